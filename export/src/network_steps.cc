// What happens to single values, windows over positions, and the levels of integer sums.
#include <algorithm>
#include <cmath>

#include "network.h"

namespace hwfault {
namespace {

float rounded(float value, StepRounding rounding) {
  switch (rounding) {
    case StepRounding::floor: return std::floor(value);
    case StepRounding::ceil: return std::ceil(value);
    case StepRounding::down: return std::trunc(value);
    case StepRounding::half_even: break;
  }
  return std::rint(value);
}

// The integer of a quantizer, then its value: Brevitas' operations in Brevitas' order, each rounded to float32.
float quantized(float value, float scale, float zero_point, const Step& step) {
  float integer = rounded(value / scale + zero_point, step.rounding);
  integer = std::min(std::max(integer, step.least), step.most);
  return (integer - zero_point) * scale;
}

}  // namespace

float Steps::apply(double value, int64_t channel) const {
  float x = static_cast<float>(value);
  bool first = true;
  for (const Step& step : steps_) {
    const float* n = numbers(step, channel);
    const int64_t count = step.each ? channels_ : 1;
    switch (step.kind) {
      case StepKind::affine:
        // in float64 and rounded once
        x = static_cast<float>((first ? value : double{x}) * double{n[0]} + double{n[count]});
        break;
      case StepKind::rectify: x = x > 0 ? x : 0.0f; break;
      case StepKind::quantize: x = quantized(x, n[0], n[count], step); break;
      case StepKind::bipolar: x = x >= 0 ? n[0] : -n[0]; break;
      case StepKind::multiply: x *= n[0]; break;
      case StepKind::add: x += n[0]; break;
      case StepKind::divide: x /= n[0]; break;
      case StepKind::round: x = std::rint(x); break;
      case StepKind::clip: x = std::min(std::max(x, n[0]), n[count]); break;
    }
    first = false;
  }
  return x;
}

bool Steps::each() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& step) { return step.each; });
}

bool Steps::quantizes() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.kind == StepKind::quantize || step.kind == StepKind::bipolar;
  });
}

void Windows::build(const std::vector<Axis>& axes) {
  for (const Axis& axis : axes) inputs *= axis.input, outputs *= axis.output, taps *= axis.kernel;
  input_of.resize(outputs * taps);
  std::vector<int32_t> count(inputs + 1, 0);
  for (int64_t output = 0; output < outputs; ++output)
    for (int64_t tap = 0; tap < taps; ++tap) {
      // which index of each axis, from the last one on
      int64_t rest = output, kernel = tap, stride = 1, index = 0;
      for (auto axis = axes.rbegin(); axis != axes.rend() && index >= 0; ++axis) {
        const int64_t at = rest % axis->output * axis->stride - axis->padding + kernel % axis->kernel * axis->dilation;
        index = at < 0 || at >= axis->input ? -1 : index + at * stride;
        stride *= axis->input, rest /= axis->output, kernel /= axis->kernel;
      }
      input_of[output * taps + tap] = static_cast<int32_t>(index);
      if (index >= 0) ++count[index];
    }
  // the same by inputs
  first.assign(inputs + 1, 0);
  for (int64_t i = 0; i < inputs; ++i) first[i + 1] = first[i] + count[i];
  touches.resize(first[inputs]);
  std::vector<int32_t> next(first.begin(), first.end());
  for (int64_t output = 0; output < outputs; ++output)
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int32_t index = input_of[output * taps + tap];
      if (index >= 0) touches[next[index]++] = {static_cast<int32_t>(output), static_cast<int32_t>(tap)};
    }
}

}  // namespace hwfault
