#include "ort_floatquant.h"

#include <cstring>
#include <limits>

#include "ort_grid.h"

namespace hwfault::ort {
namespace {

// A format of floating-point numbers.
struct Format {
  float mantissa_bits;
  float least_exponent;  // of the mantissa's last bit
  double largest;
  double over;      // what becomes of a value beyond the largest, but for its sign
  double infinite;  // times an infinity that is not beyond the largest
};

// The largest value is NumPy's float64, the rest float32.
Format format_of(float exponent_bits, float mantissa_bits, float bias, float limit) {
  const float exponent = std::pow(2.0f, exponent_bits) - 1.0f - bias;
  const double largest = (2 - std::exp2(-static_cast<double>(mantissa_bits))) * std::pow(2.0f, exponent);
  return {mantissa_bits, 1.0f - bias - mantissa_bits, std::min<double>(largest, limit), 0, 0};
}

constexpr int kLeast = -150, kMost = 128;  // exponents of float's powers of two, and one beyond at each end

// The logarithm and the powers of two as tables, which vectorize.
struct Tables {
  // the first mantissa of each exponent whose logarithm is rounded up to the next whole number
  int32_t rounded_up[256];
  float powers[kMost - kLeast + 1];

  Tables() {
    for (int e = 0; e < 256; ++e) rounded_up[e] = first_rounded_up(e);
    for (int k = kLeast; k <= kMost; ++k) powers[k - kLeast] = std::ldexp(1.0f, k);
  }

  static int32_t first_rounded_up(int e) {
    int32_t below = 0, from = 1 << 23;
    while (e > 0 && e < 255 && from - below > 1) {
      const int32_t middle = (below + from) / 2;
      const float value = std::ldexp(static_cast<float>((1 << 23) + middle), e - 127 - 23);
      (std::floor(std::log2(value)) > static_cast<float>(e - 127) ? from : below) = middle;
    }
    return from;
  }
};
const Tables& tables() {
  static const Tables made;
  return made;
}

// a value on the format's grid, not yet clamped; NaN for what is not finite
template <class Round>
HWFAULT_INLINE float on_grid(float x, const Format& format, const Tables& known, Round round) {
  const float size = std::fabs(x) + std::numeric_limits<float>::min();
  int32_t bits;
  std::memcpy(&bits, &size, sizeof bits);
  const int32_t field = bits >> 23, mantissa = bits & ((1 << 23) - 1);
  const float logarithm = static_cast<float>(field - 127 + (mantissa >= known.rounded_up[field] ? 1 : 0));
  const float exponent = std::max(logarithm - format.mantissa_bits, format.least_exponent);
  const int32_t at = static_cast<int32_t>(std::min<float>(std::max<float>(exponent, kLeast), kMost)) - kLeast;
  const float unit = known.powers[at];
  return field < 255 ? unit * round(x / unit) : NAN;
}

template <class Round>
HWFAULT_INLINE void quantize(const float* x, float* HWFAULT_RESTRICT y, int64_t n, const float* scale, int64_t step,
                             const Format f, const Tables& known, Round round) {
  for (int64_t i = 0; i < n; ++i) {
    const float own = scale[i * step];
    const float v = on_grid(x[i] / own, f, known, round);
    double q = std::fabs(v) == INFINITY ? v * f.infinite : v;
    q = v > f.largest ? f.over : q;
    q = v < -f.largest ? -f.over : q;
    y[i] = static_cast<float>(q * own);
  }
}

HWFAULT_CLONES void quantize_same(Rounding rounding, const float* x, float* y, int64_t n, const float* scale,
                                  const Format& format) {
  const float own = *scale;
  with_rounding(rounding, [&](auto round) HWFAULT_INLINE_CALL {
    quantize(x, y, n, &own, 0, format, tables(), round);
  });
}
HWFAULT_CLONES void quantize_each(Rounding rounding, const float* x, float* y, int64_t n, const float* scale,
                                  int64_t step, const Format& format) {
  with_rounding(rounding, [&](auto round) HWFAULT_INLINE_CALL {
    quantize(x, y, n, scale, step, format, tables(), round);
  });
}

float whole(float value, const char* what) {
  if (std::rint(value) != value || std::fabs(value) > 1 << 20)
    throw Error(std::string(what) + " is " + std::to_string(value) + ", expected a whole number up to 2^20");
  return value;
}

float whole_bits(float bits, const char* what) { return whole(check_bits(bits, what), what); }

}  // namespace

FloatQuant::FloatQuant(const NodeInfo& node)
    : rounding_(rounding_named(node.text("rounding_mode", "ROUND"))),
      infinities_(node.integer("has_inf", 0) != 0),
      nans_(node.integer("has_nan", 0) != 0),
      saturates_(node.integer("saturation", 1) != 0) {
  node.integer("has_subnormal", 0);  // says nothing about values, but has to be what it should
  if (!saturates_ && !infinities_ && !nans_)
    throw Error("the attribute saturation is 0 and has_inf and has_nan are 0 as well, expected one of them to be 1: "
                "values beyond the largest would have nowhere to go");
}

void FloatQuant::compute(const Context& context) const {
  const auto x = context.input<float>(0), scale = context.input<float>(1);
  check_scale(scale, "the scale");
  const char *exponents = "the exponent's bit width", *mantissas = "the mantissa's bit width";
  const float exponent_bits = whole_bits(context.scalar<float>(2, exponents), exponents);
  const float mantissa_bits = whole_bits(context.scalar<float>(3, mantissas), mantissas);
  const float bias = whole(context.scalar<float>(4, "the exponent bias"), "the exponent bias");
  const float limit = context.scalar<float>(5, "the largest value");
  if (!(limit > 0)) throw Error("the largest value is " + std::to_string(limit) + ", expected more than 0");
  Format format = format_of(exponent_bits, mantissa_bits, bias, limit);
  format.over = saturates_ ? format.largest : infinities_ ? INFINITY : NAN;
  format.infinite = saturates_ || infinities_ ? 1 : NAN;
  float* y = context.output<float>(x.shape);
  const Runs<1> runs(x.shape, {&scale.shape}, {"the scale"});
  context.share_out(x.size(), kPart, [&](int64_t first, int64_t last) {
    for_runs(runs, kPart, first, last, [&](int64_t at, int64_t n, const std::array<int64_t, 1>& offsets) {
      const float* own = scale.data + offsets[0];
      if (runs.constant())
        quantize_same(rounding_, x.data + at, y + at, n, own, format);
      else
        quantize_each(rounding_, x.data + at, y + at, n, own, runs.steps()[0], format);
    });
  });
}

}  // namespace hwfault::ort
