#include "ort_threshold.h"

#include "clones.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kPart = 1 << 13;   // values a thread takes at a time
constexpr int64_t kBlock = 512;      // values that are counted at a time
constexpr int64_t kSearched = 64;    // from so many thresholds on they are searched, if they ascend
constexpr int64_t kLongest = 1 << 21;  // so many thresholds a block may have and be numbered in 32 bits

// count[i] = how many of a channel's thresholds x[i] reaches
HWFAULT_CLONES void count_one(const float* x, float* count, int64_t n, const float* thresholds, int64_t steps) {
  std::fill(count, count + n, 0.0f);
  for (int64_t t = 0; t < steps; ++t) {
    const float threshold = thresholds[t];
    for (int64_t i = 0; i < n; ++i) count[i] += x[i] >= threshold ? 1.0f : 0.0f;
  }
}

// the same for n channels side by side, whose thresholds lie (step, channel)
HWFAULT_CLONES void count_each(const float* x, float* count, int64_t n, const float* thresholds, int64_t steps,
                               int64_t channels) {
  std::fill(count, count + n, 0.0f);
  for (int64_t t = 0; t < steps; ++t, thresholds += channels)
    for (int64_t i = 0; i < n; ++i) count[i] += x[i] >= thresholds[i] ? 1.0f : 0.0f;
}

// the same by halving, in ascending thresholds; those of x[i] lie `step` after those of x[i - 1]
HWFAULT_CLONES void count_ascending(const float* x, float* count, int32_t n, const float* thresholds, int32_t steps,
                                    int32_t step, int32_t half) {
  int32_t reached[kBlock] = {};
  for (; half > 0; half /= 2)
    for (int32_t i = 0; i < n; ++i) {
      const int32_t next = reached[i] + half, within = std::min(next, steps);
      const bool reaches = (next <= steps) & (x[i] >= thresholds[i * step + within - 1]);
      reached[i] = reaches ? next : reached[i];
    }
  for (int32_t i = 0; i < n; ++i) count[i] = static_cast<float>(reached[i]);
}

int32_t largest_power(int64_t most) {
  int32_t power = 1;
  while (power <= most / 2) power *= 2;
  return most > 0 ? power : 0;
}

HWFAULT_CLONES void scale_counts(const float* count, float* y, int64_t n, float scale, float bias) {
  for (int64_t i = 0; i < n; ++i) y[i] = scale * count[i] + bias;
}

// A tensor as (outer, channels, inner), and its thresholds.
struct Layout {
  int64_t channels, inner, steps;
  bool searched;
  const float* thresholds;            // (channel, step)
  std::vector<float> side_by_side;    // (step, channel), where the channels are the last axis
};

void count(const Layout& layout, const float* x, float* counts, int64_t at, int64_t n) {
  const int64_t channel = at / layout.inner % layout.channels;
  const float* own = layout.thresholds + channel * layout.steps;
  if (layout.searched) {
    const int32_t steps = static_cast<int32_t>(layout.steps);
    count_ascending(x + at, counts, static_cast<int32_t>(n), own, steps, layout.inner > 1 ? 0 : steps,
                    largest_power(steps));
  } else if (layout.side_by_side.empty()) {
    count_one(x + at, counts, n, own, layout.steps);
  } else {
    count_each(x + at, counts, n, layout.side_by_side.data() + channel, layout.steps, layout.channels);
  }
}

bool ascend(const float* values, int64_t rows, int64_t length) {
  for (int64_t row = 0; row < rows; ++row, values += length)
    for (int64_t i = 1; i < length; ++i)
      if (!(values[i - 1] <= values[i])) return false;
  return true;
}

std::vector<float> transposed(const float* values, int64_t rows, int64_t length) {
  std::vector<float> result(static_cast<size_t>(rows * length));
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < length; ++i) result[static_cast<size_t>(i * rows + row)] = values[row * length + i];
  return result;
}

}  // namespace

MultiThreshold::MultiThreshold(const NodeInfo& node)
    : layout_(node.text("data_layout", "")), scale_(node.number("out_scale", 1)), bias_(node.number("out_bias", 0)) {
  node.text("out_dtype", "");  // says nothing about values, but has to be what it should
}

// Without a layout the channels of a tensor with 3 axes are its last, as qonnx has it.
size_t MultiThreshold::channel_axis(size_t rank) const {
  if (layout_.empty()) return rank == 3 ? 2 : 1;
  const size_t axis = layout_.find('C');
  return axis == std::string::npos ? 1 : axis;
}

void MultiThreshold::compute(const Context& context) const {
  const auto x = context.input<float>(0), thresholds = context.input<float>(1);
  const size_t axis = channel_axis(x.shape.size());
  if (x.shape.size() < 2 || axis >= x.shape.size())
    throw Error("X has shape " + text_of(x.shape) + ", expected 2 or more axes, and channels on axis " +
                std::to_string(axis) + " (data_layout '" + layout_ + "')");
  const int64_t own = x.shape[axis];
  if (thresholds.shape.size() != 2 || (thresholds.shape[0] != 1 && thresholds.shape[0] != own))
    throw Error("the thresholds have shape " + text_of(thresholds.shape) + ", expected one row, or one for each of " +
                std::to_string(own) + " channels");
  const int64_t channels = thresholds.shape[0], steps = thresholds.shape[1];
  float* y = context.output<float>(x.shape);
  if (x.size() == 0) return;
  const int64_t inner = element_count(Shape(x.shape.begin() + static_cast<int64_t>(axis) + 1, x.shape.end()));
  Layout layout{channels, channels == 1 ? x.size() : inner, steps, false, thresholds.data, {}};
  layout.searched = steps >= kSearched && steps <= kLongest && ascend(thresholds.data, channels, steps);
  if (layout.inner == 1 && !layout.searched) layout.side_by_side = transposed(thresholds.data, channels, steps);
  const int64_t run = layout.inner > 1 ? layout.inner : channels;  // words to the next row of thresholds
  context.share_out(x.size(), kPart, [&](int64_t first, int64_t last) {
    float counts[kBlock];
    for (int64_t at = first; at < last;) {
      const int64_t n = std::min({last - at, kBlock, run - at % run});
      count(layout, x.data, counts, at, n);
      scale_counts(counts, y + at, n, scale_, bias_);
      at += n;
    }
  });
}

}  // namespace hwfault::ort
