// What happens to single values, windows over positions, and the levels of integer sums.
#include <algorithm>
#include <cmath>

#include "clones.h"
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

// The steps that are frequent, for many values; `channels` is null where one number is for all.

HWFAULT_CLONES void affine_all(const double* x, const float* multiplier, const float* addend, const int32_t* channels,
                               int64_t n, float* out) {
  if (!channels) {
    const double m = multiplier[0], a = addend[0];
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(x[i] * m + a);
    return;
  }
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<float>(x[i] * double{multiplier[channels[i]]} + double{addend[channels[i]]});
}

HWFAULT_CLONES void quantize_all(float* x, float scale, float zero_point, float least, float most, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float integer = std::rint(x[i] / scale + zero_point);
    integer = integer < least ? least : integer;
    integer = integer > most ? most : integer;
    x[i] = (integer - zero_point) * scale;
  }
}

HWFAULT_CLONES void rectify_all(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] > 0 ? x[i] : 0.0f;
}

HWFAULT_CLONES void divide_all(float* x, float divisor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] /= divisor;
}

HWFAULT_CLONES void round_all(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::rint(x[i]);
}

}  // namespace

void Steps::apply_all(const double* values, const int32_t* channels, int64_t n, float* out) const {
  size_t done = 0;
  if (!steps_.empty() && steps_[0].kind == StepKind::affine) {
    const Step& step = steps_[done++];
    const float* numbers = constants_ + step.at;
    affine_all(values, numbers, numbers + (step.each ? channels_ : 1), step.each ? channels : nullptr, n, out);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(values[i]);
  }
  for (; done < steps_.size(); ++done) {
    const Step& step = steps_[done];
    const float* numbers = constants_ + step.at;
    if (step.kind == StepKind::quantize && !step.each && step.rounding == StepRounding::half_even)
      quantize_all(out, numbers[0], numbers[1], step.least, step.most, n);
    else if (step.kind == StepKind::rectify)
      rectify_all(out, n);
    else if (step.kind == StepKind::divide && !step.each)
      divide_all(out, numbers[0], n);
    else if (step.kind == StepKind::round)
      round_all(out, n);
    else
      for (int64_t i = 0; i < n; ++i) out[i] = apply_step(step, out[i], out[i], channels[i]);
  }
}

float Steps::apply_step(const Step& step, double value, float x, int64_t channel) const {
  const float* n = numbers(step, channel);
  const int64_t count = step.each ? channels_ : 1;
  switch (step.kind) {
    case StepKind::affine: return static_cast<float>(value * double{n[0]} + double{n[count]});  // rounded once
    case StepKind::rectify: return x > 0 ? x : 0.0f;
    case StepKind::quantize: return quantized(x, n[0], n[count], step);
    case StepKind::bipolar: return x >= 0 ? n[0] : -n[0];
    case StepKind::multiply: return x * n[0];
    case StepKind::add: return x + n[0];
    case StepKind::divide: return x / n[0];
    case StepKind::round: return std::rint(x);
    case StepKind::clip: return std::min(std::max(x, n[0]), n[count]);
  }
  return x;
}

float Steps::apply(double value, int64_t channel) const { return apply_part(value, channel, 0, steps_.size()); }

float Steps::apply_part(double value, int64_t channel, size_t first, size_t last) const {
  float x = static_cast<float>(value);
  for (size_t i = first; i < last; ++i) value = x = apply_step(steps_[i], value, x, channel);
  return x;
}

float Steps::apply_with_addend(double value, int64_t channel, float addend) const {
  const double multiplier = numbers(steps_.front(), channel)[0];
  return apply_part(static_cast<float>(value * multiplier + double{addend}), channel, 1, steps_.size());
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
