#include "ort_quant.h"

#include <cctype>
#include <cmath>

#include "broadcast.h"
#include "clones.h"

#if defined(__GNUC__)
#define HWFAULT_INLINE inline __attribute__((always_inline))
#else
#define HWFAULT_INLINE inline
#endif

namespace hwfault::ort {
namespace {

constexpr int64_t kPart = 1 << 15;  // words a thread takes at a time
constexpr int64_t kRow = 256;       // words with a scale each that are taken at a time

// The scale and zero point of each word of a run: one for all, or one for each.
struct Same {
  float scale, zero_point;
  HWFAULT_INLINE Same operator[](int64_t) const { return *this; }
};
struct Each {
  const float *scale, *zero_point;
  HWFAULT_INLINE Same operator[](int64_t i) const { return {scale[i], zero_point[i]}; }
};

// NumPy's sign: zero for both zeros
HWFAULT_INLINE float sign(float v) { return v > 0 ? 1.0f : v < 0 ? -1.0f : v == 0 ? 0.0f : v; }

template <class Grid, class Round>
HWFAULT_INLINE void quantize(const float* x, float* y, int64_t n, const Grid& grid, const Range& range, Round round) {
  for (int64_t i = 0; i < n; ++i) {
    const Same g = grid[i];
    float v = x[i] / g.scale + g.zero_point;
    v = v > range.most ? range.most : v;
    v = v < range.least ? range.least : v;
    y[i] = (round(v) - g.zero_point) * g.scale;
  }
}

template <class Grid>
HWFAULT_INLINE void quantize(Rounding rounding, const float* x, float* y, int64_t n, const Grid& g, const Range& r) {
  switch (rounding) {
    case Rounding::half_even: return quantize(x, y, n, g, r, [](float v) { return std::rint(v); });
    case Rounding::ceil: return quantize(x, y, n, g, r, [](float v) { return std::ceil(v); });
    case Rounding::floor: return quantize(x, y, n, g, r, [](float v) { return std::floor(v); });
    case Rounding::up: return quantize(x, y, n, g, r, [](float v) { return sign(v) * std::ceil(std::fabs(v)); });
    case Rounding::down: return quantize(x, y, n, g, r, [](float v) { return std::trunc(v); });
    case Rounding::half_up:
      return quantize(x, y, n, g, r, [](float v) { return sign(v) * std::floor(std::fabs(v) + 0.5f); });
    case Rounding::half_down:
      return quantize(x, y, n, g, r, [](float v) { return sign(v) * std::ceil(std::fabs(v) - 0.5f); });
    case Rounding::bipolar: return quantize(x, y, n, g, r, [](float v) { return v >= 0 ? 1.0f : -1.0f; });
  }
}

HWFAULT_CLONES void quantize_same(Rounding rounding, const float* x, float* y, int64_t n, const Same& g,
                                  const Range& r) {
  quantize(rounding, x, y, n, g, r);
}
HWFAULT_CLONES void quantize_each(Rounding rounding, const float* x, float* y, int64_t n, const Each& g,
                                  const Range& r) {
  quantize(rounding, x, y, n, g, r);
}

Rounding rounding_named(std::string mode) {
  for (char& c : mode) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  static const std::pair<const char*, Rounding> known[] = {
      {"ROUND", Rounding::half_even}, {"HALF_EVEN", Rounding::half_even}, {"CEIL", Rounding::ceil},
      {"FLOOR", Rounding::floor},     {"UP", Rounding::up},               {"DOWN", Rounding::down},
      {"HALF_UP", Rounding::half_up}, {"HALF_DOWN", Rounding::half_down}};
  std::string names;
  for (const auto& [name, rounding] : known) {
    if (mode == name) return rounding;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  throw Error("rounding_mode is '" + mode + "', expected one of " + names);
}

// Calls run(first word, words, offsets) for the parts of runs, of at most `longest` words, that lie in [first, last).
template <class R, class F>
void for_runs(const R& runs, int64_t longest, int64_t first, int64_t last, F run) {
  for (int64_t at = first; at < last;) {
    const int64_t index = at / runs.inner();
    const int64_t end = std::min({last, (index + 1) * runs.inner(), at + longest});
    run(at, end - at, runs.offsets(index, at - index * runs.inner()));
    at = end;
  }
}

}  // namespace

Quant::Quant(const NodeInfo& node)
    : signed_(node.integer("signed", 1) != 0),
      narrow_(node.integer("narrow", 1) != 0),
      rounding_(rounding_named(node.text("rounding_mode", "ROUND"))) {}

void Quant::compute(const Context& context) const {
  const auto x = context.input<float>(0), scale = context.input<float>(1), zero_point = context.input<float>(2);
  const float bits = context.scalar<float>(3, "the bit width");
  float* y = context.output<float>(x.shape);
  const bool bipolar = signed_ && bits == 1;
  const Rounding rounding = bipolar ? Rounding::bipolar : rounding_;
  const Range range = bipolar ? Range{-INFINITY, INFINITY} : range_of(bits);
  const Runs<2> runs(x.shape, {&scale.shape, &zero_point.shape}, {"the scale", "the zero point"});
  const auto same = [&](int64_t at, int64_t n, const std::array<int64_t, 2>& offsets) {
    const Same grid{scale.data[offsets[0]], zero_point.data[offsets[1]]};
    quantize_same(rounding, x.data + at, y + at, n, grid, range);
  };
  const auto each = [&](int64_t at, int64_t n, const std::array<int64_t, 2>& offsets) {
    float scales[kRow], zero_points[kRow];
    for (int64_t i = 0; i < n; ++i) {
      scales[i] = scale.data[offsets[0] + i * runs.steps()[0]];
      zero_points[i] = zero_point.data[offsets[1] + i * runs.steps()[1]];
    }
    quantize_each(rounding, x.data + at, y + at, n, {scales, zero_points}, range);
  };
  context.share_out(x.size(), kPart, [&](int64_t first, int64_t last) {
    if (runs.constant())
      for_runs(runs, kPart, first, last, same);
    else
      for_runs(runs, kRow, first, last, each);
  });
}

Range Quant::range_of(float bits) const {
  const float half = std::pow(2.0f, bits - 1), full = std::pow(2.0f, bits);
  if (signed_) return {narrow_ ? -half + 1 : -half, half - 1};
  return {0 * bits, narrow_ ? full - 2 : full - 1};
}

void BipolarQuant::compute(const Context& context) const {
  const auto x = context.input<float>(0), scale = context.input<float>(1);
  float* y = context.output<float>(x.shape);
  const Runs<1> runs(x.shape, {&scale.shape}, {"the scale"});
  context.share_out(x.size(), kPart, [&](int64_t first, int64_t last) {
    for_runs(runs, kPart, first, last, [&](int64_t at, int64_t n, const std::array<int64_t, 1>& offsets) {
      const float* s = scale.data + offsets[0];
      for (int64_t i = 0; i < n; ++i) y[at + i] = (x.data[at + i] >= 0 ? 1.0f : -1.0f) * s[i * runs.steps()[0]];
    });
  });
}

}  // namespace hwfault::ort
