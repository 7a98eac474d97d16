#include "ort_trunc.h"

#include "ort_grid.h"

namespace hwfault::ort {
namespace {

// What is done to a value: y = (round(clamp(rint(x / scale + zero_point) / step)) - out_zero_point) * out_scale.
struct Step {
  float scale, zero_point, step, least, most, out_zero_point, out_scale;
  HWFAULT_INLINE const Step& operator[](int64_t) const { return *this; }
};

template <class Steps>
HWFAULT_INLINE void truncate(Rounding rounding, const float* x, float* y, int64_t n, const Steps& steps) {
  with_rounding(rounding, [&](auto round) HWFAULT_INLINE_CALL {
    HWFAULT_EACH_ALONE
    for (int64_t i = 0; i < n; ++i) {
      const Step& s = steps[i];
      float v = std::rint(x[i] / s.scale + s.zero_point) / s.step;
      v = v > s.most ? s.most : v;
      v = v < s.least ? s.least : v;
      y[i] = (round(v) - s.out_zero_point) * s.out_scale;
    }
  });
}

HWFAULT_CLONES void truncate_same(Rounding rounding, const float* x, float* y, int64_t n, const Step& step) {
  const Step own = step;  // which y cannot alias
  truncate(rounding, x, y, n, own);
}
HWFAULT_CLONES void truncate_each(Rounding rounding, const float* x, float* y, int64_t n, const Step* steps) {
  truncate(rounding, x, y, n, steps);
}

// The bits that version 1 drops are the difference of two widths, and nothing is clamped.
Step first_version(float scale, float zero_point, float in_bits, float out_bits) {
  return {scale, zero_point, std::pow(2.0f, in_bits - out_bits), -INFINITY, INFINITY, zero_point, scale};
}

Step second_version(float scale, float zero_point, float out_scale, Range range) {
  const float step = std::pow(2.0f, std::rint(std::log2(out_scale / scale)));
  return {scale, zero_point, step, range.least, range.most, zero_point / step, out_scale};
}

}  // namespace

Trunc::Trunc(const NodeInfo& node)
    : signed_(node.integer("signed", 1, 0, 1) != 0),
      narrow_(node.integer("narrow", 0, 0, 1) != 0),
      rounding_(rounding_named(node.text("rounding_mode", "FLOOR"))) {}

void Trunc::compute(const Context& context) const {
  const auto x = context.input<float>(0), scale = context.input<float>(1), zero_point = context.input<float>(2);
  const bool first = context.input_count() < 6;
  const size_t at = first ? 3 : 4;
  const auto from = context.input<float>(at), bits = context.input<float>(at + 1);
  check_scale(scale, "the scale");
  check_bits(bits, "the output bit width");
  if (first)
    check_bits(from, "the input bit width");
  else
    check_scale(from, "the output scale");
  float* y = context.output<float>(x.shape);
  const Runs<4> runs(x.shape, {&scale.shape, &zero_point.shape, &from.shape, &bits.shape},
                     {"the scale", "the zero point", first ? "the input bit width" : "the output scale",
                      "the output bit width"});
  const auto step_at = [&](const std::array<int64_t, 4>& offsets, int64_t i) {
    const auto& steps = runs.steps();
    const float own[] = {scale.data[offsets[0] + i * steps[0]], zero_point.data[offsets[1] + i * steps[1]],
                         from.data[offsets[2] + i * steps[2]], bits.data[offsets[3] + i * steps[3]]};
    return first ? first_version(own[0], own[1], own[2], own[3])
                 : second_version(own[0], own[1], own[2], range_of(own[3], signed_, narrow_));
  };
  if (runs.constant())
    return context.share_out(x.size(), kPart, [&](int64_t begin, int64_t end) {
      for_runs(runs, kPart, begin, end, [&](int64_t word, int64_t n, const std::array<int64_t, 4>& offsets) {
        truncate_same(rounding_, x.data + word, y + word, n, step_at(offsets, 0));
      });
    });
  context.share_out(x.size(), kPart, [&](int64_t begin, int64_t end) {
    std::vector<Step> steps(static_cast<size_t>(std::min(runs.inner(), kPart)));
    std::array<int64_t, 4> made{-1};  // the offsets and the number of words that the steps are for
    int64_t made_words = 0;
    for (int64_t word = begin; word < end;) {
      const int64_t first = word % runs.inner();
      const int64_t n = std::min({end - word, runs.inner() - first, kPart});
      const auto offsets = runs.offsets(word / runs.inner(), first);
      if (offsets != made || n > made_words)
        for (int64_t i = 0; i < n; ++i) steps[static_cast<size_t>(i)] = step_at(offsets, i);
      made = offsets;
      made_words = n;
      truncate_each(rounding_, x.data + word, y + word, n, steps.data());
      word += n;
    }
  });
}

}  // namespace hwfault::ort
