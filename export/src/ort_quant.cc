#include "ort_quant.h"

#include "ort_grid.h"

namespace hwfault::ort {
namespace {

// The scale and zero point of each word of a run: one for all, or one for each.
struct Same {
  float scale, zero_point;
  HWFAULT_INLINE Same operator[](int64_t) const { return *this; }
};
struct Each {
  const float *scale, *zero_point;
  HWFAULT_INLINE Same operator[](int64_t i) const { return {scale[i], zero_point[i]}; }
};

// The scale and zero point of each word of so many alike runs that loops over them are long.
class Rows {
 public:
  Rows(const Runs<2>& runs, const float* scale, const float* zero_point, int64_t words) {
    for (int64_t again = 0; words && (again == 0 || length_ < kRow); ++again) {
      for (int64_t i = 0; i < runs.inner(); ++i) {
        scales_.push_back(scale[i * runs.steps()[0]]);
        zero_points_.push_back(zero_point[i * runs.steps()[1]]);
      }
      length_ += runs.inner();
    }
  }
  // use(first word, words, grid) for all of [first, last)
  template <class F>
  void walk(int64_t first, int64_t last, F use) const {
    for (int64_t at = first; at < last;) {
      const int64_t within = at % length_, n = std::min(last - at, length_ - within);
      use(at, n, Each{scales_.data() + within, zero_points_.data() + within});
      at += n;
    }
  }

 private:
  int64_t length_ = 0;
  std::vector<float> scales_, zero_points_;
};

template <class Grid, class Round>
HWFAULT_INLINE void quantize(const float* x, float* y, int64_t n, const Grid& grid, const Range& range, Round round) {
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) {
    const Same g = grid[i];
    float v = x[i] / g.scale + g.zero_point;
    v = v > range.most ? range.most : v;
    v = v < range.least ? range.least : v;
    y[i] = (round(v) - g.zero_point) * g.scale;
  }
}

HWFAULT_CLONES void quantize_same(Rounding rounding, const float* x, float* y, int64_t n, const Same& g,
                                  const Range& r) {
  with_rounding(rounding, [&](auto round) HWFAULT_INLINE_CALL { quantize(x, y, n, g, r, round); });
}
HWFAULT_CLONES void quantize_each(Rounding rounding, const float* x, float* y, int64_t n, const Each& g,
                                  const Range& r) {
  with_rounding(rounding, [&](auto round) HWFAULT_INLINE_CALL { quantize(x, y, n, g, r, round); });
}

}  // namespace

Quant::Quant(const NodeInfo& node)
    : signed_(node.integer("signed", 1) != 0),
      narrow_(node.integer("narrow", 1) != 0),
      rounding_(rounding_named(node.text("rounding_mode", "ROUND"))) {}

void Quant::compute(const Context& context) const {
  const auto x = context.input<float>(0), scale = context.input<float>(1), zero_point = context.input<float>(2);
  const float bits = check_bits(context.scalar<float>(3, "the bit width"), "the bit width");
  check_scale(scale, "the scale");
  float* y = context.output<float>(x.shape);
  const bool bipolar = signed_ && bits == 1;
  const Rounding rounding = bipolar ? Rounding::bipolar : rounding_;
  const Range range = bipolar ? Range{-INFINITY, INFINITY} : range_of(bits, signed_, narrow_);
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
  const auto share_out = [&](auto work) { context.share_out(x.size(), kPart, work); };
  if (runs.constant())
    return share_out([&](int64_t first, int64_t last) { for_runs(runs, kPart, first, last, same); });
  if (runs.alike()) {
    const Rows rows(runs, scale.data, zero_point.data, x.size());
    return share_out([&](int64_t first, int64_t last) {
      rows.walk(first, last, [&](int64_t at, int64_t n, const Each& grid) {
        quantize_each(rounding, x.data + at, y + at, n, grid, range);
      });
    });
  }
  share_out([&](int64_t first, int64_t last) { for_runs(runs, kRow, first, last, each); });
}

void BipolarQuant::compute(const Context& context) const {
  const auto x = context.input<float>(0), scale = context.input<float>(1);
  check_scale(scale, "the scale");
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
