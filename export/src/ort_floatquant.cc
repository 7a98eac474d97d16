#include "ort_floatquant.h"

#include <limits>

#include "ort_grid.h"

namespace hwfault::ort {
namespace {

// A format of floating-point numbers.
struct Format {
  float mantissa_bits;
  float least_exponent;  // of the mantissa's last bit
  double largest;
};

// The largest value is NumPy's float64, the rest float32.
Format format_of(float exponent_bits, float mantissa_bits, float bias, float limit) {
  const double last = std::ceil(mantissa_bits + 1.0);  // bits of the mantissa, the hidden one included
  const double mantissa = last > 0 ? 2 - std::exp2(1 - last) : 0;
  const float exponent = std::pow(2.0f, exponent_bits) - 1.0f - bias;
  const double largest = mantissa * std::pow(2.0f, exponent);
  return {mantissa_bits, 1.0f - bias - mantissa_bits, std::min<double>(largest, limit)};
}

// a value on the format's grid, not yet clamped
template <class Round>
HWFAULT_INLINE float on_grid(float x, const Format& format, Round round) {
  const float exponent = std::floor(std::log2(std::fabs(x) + std::numeric_limits<float>::min())) - format.mantissa_bits;
  const float unit = std::exp2(exponent < format.least_exponent ? format.least_exponent : exponent);
  return unit * round(x / unit);
}

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
  const float exponent_bits = check_bits(context.scalar<float>(2, "the exponent's bit width"), "the exponent's bit width");
  const float mantissa_bits = check_bits(context.scalar<float>(3, "the mantissa's bit width"), "the mantissa's bit width");
  const float bias = context.scalar<float>(4, "the exponent bias"), limit = context.scalar<float>(5, "the largest value");
  if (!std::isfinite(bias)) throw Error("the exponent bias is " + std::to_string(bias) + ", expected a finite number");
  if (!(limit > 0)) throw Error("the largest value is " + std::to_string(limit) + ", expected more than 0");
  const Format format = format_of(exponent_bits, mantissa_bits, bias, limit);
  const double over = saturates_ ? format.largest : infinities_ ? INFINITY : NAN;
  const double infinite = saturates_ || infinities_ ? 1 : NAN;  // times an infinity that is not beyond the largest
  float* y = context.output<float>(x.shape);
  const Runs<1> runs(x.shape, {&scale.shape}, {"the scale"});
  context.share_out(x.size(), kPart, [&](int64_t first, int64_t last) {
    for_runs(runs, kPart, first, last, [&](int64_t at, int64_t n, const std::array<int64_t, 1>& offsets) {
      const float* s = scale.data + offsets[0];
      with_rounding(rounding_, [&](auto round) {
        for (int64_t i = 0; i < n; ++i) {
          const float own = s[i * runs.steps()[0]];
          const float v = on_grid(x.data[at + i] / own, format, round);
          const double q = v > format.largest    ? over
                           : v < -format.largest ? -over
                           : std::isinf(v)       ? v * infinite
                                                 : v;
          y[at + i] = static_cast<float>(q * own);
        }
      });
    });
  });
}

}  // namespace hwfault::ort
