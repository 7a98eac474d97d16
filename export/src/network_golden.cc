#include "network_golden.h"

#include <algorithm>
#include <cmath>

#include "network_rows.h"

namespace hwfault {

Golden::Golden(const Network& network, const float* x, int64_t images) : network_(network), images_(images) {
  if (images < 1) throw Error("the number of images is " + std::to_string(images) + ", expected 1 or more");
  if (images > INT64_MAX / std::max<int64_t>(network.bytes_per_image(), 1)) throw Error("too many images to count");
  if (!x) throw Error("the pointer to the images is null");
  const int64_t count = images * network.input_size();
  if (!std::all_of(x, x + count, [](float value) { return std::isfinite(value); }))
    throw Error("an image has values that are no finite numbers");
  values_.emplace_back(x, x + count);
  sums_.resize(network.nodes().size());
  for (size_t i = 0; i < network.nodes().size(); ++i) run(static_cast<int64_t>(i));
}

void Golden::run(int64_t number) {
  const Node& node = network_.nodes()[number];
  const int64_t size = node.size();
  values_.emplace_back(images_ * size);
  if (node.kind == NodeKind::layer)
    for (auto* numbers : {&sums_[number].sum, &sums_[number].low, &sums_[number].high}) numbers->resize(images_ * size);

  for (int64_t image = 0; image < images_; ++image) {
    float* out = values_.back().data() + image * size;
    if (node.kind == NodeKind::layer)
      run_layer(number, image, out);
    else
      for (int64_t i = 0; i < size; ++i) out[i] = node.steps.apply(before_steps(number, image, i), i / node.positions);
  }
}

double Golden::before_steps(int64_t number, int64_t image, int64_t element) const {
  const Node& node = network_.nodes()[number];
  const float* x = values(node.inputs[0], image);
  const int64_t channel = element / node.positions, position = element % node.positions;
  switch (node.kind) {
    case NodeKind::elementwise: break;
    case NodeKind::layer: return sums_[number].sum[(image * node.positions + position) * node.channels + channel];
    case NodeKind::add: return x[element] + values(node.inputs[1], image)[element];
    case NodeKind::max_pool: {
      const float* inputs = x + channel * node.windows.inputs;
      return largest_in_window(node.windows, position, [&](int32_t at) { return inputs[at]; });
    }
    case NodeKind::move: {
      int64_t at = node.table[element], input = 0;
      if (at < 0) return 0;
      while (at >= network_.tensors()[node.inputs[input]].size) at -= network_.tensors()[node.inputs[input++]].size;
      return values(node.inputs[input], image)[at];
    }
  }
  return x[element];
}

void Golden::run_layer(int64_t number, int64_t image, float* out) {
  const Node& node = network_.nodes()[number];
  const float* x = values(node.inputs[0], image);
  const Windows& windows = node.windows;
  const int64_t in_group = node.in_group();
  std::vector<Term> terms;
  std::vector<Segment> segments;
  terms.reserve(node.depth * windows.taps);  // segments point into it
  std::vector<int32_t> sum(node.stride);
  for (int64_t position = 0; position < node.positions; ++position)
    for (int64_t group = 0; group < node.groups; ++group) {
      terms.clear(), segments.clear();
      for (int64_t tap = 0; tap < windows.taps; ++tap) {
        const int32_t at = windows.input_of[position * windows.taps + tap];
        const Term* first = terms.data() + terms.size();
        for (int64_t c = 0; at >= 0 && c < node.depth; ++c) {
          const auto value = static_cast<int32_t>(x[(group * node.depth + c) * windows.inputs + at]);
          if (value) terms.push_back({static_cast<int32_t>(c * node.stride), value});
        }
        segments.push_back({first, terms.data() + terms.size() - first, node.rows_at(group, tap)});
      }
      add_rows(sum.data(), segments.data(), windows.taps, node.stride);
      for (int64_t i = 0; i < in_group; ++i) {
        const int64_t channel = group * in_group + i;
        keep_sum(node, sums_[number], (image * node.positions + position) * node.channels + channel, sum[i], channel);
        out[channel * node.positions + position] = node.steps.apply(sum[i], channel);
      }
    }
}

// Notes a sum with the ends of the segment that it lies in; without levels every other sum counts as another value.
void Golden::keep_sum(const Node& node, GoldenSums& sums, int64_t at, int32_t sum, int64_t channel) const {
  sums.sum[at] = sum;
  const Levels* levels = node.levels_of(channel);
  if (!levels) return;
  const auto next = std::upper_bound(levels->begin.begin(), levels->begin.end(), sum);
  const auto most = static_cast<int32_t>(node.largest_sum + 1);
  sums.low[at] = *(next - 1) - sum;
  sums.high[at] = (next == levels->begin.end() ? most : *next - 1) - sum;
}

}  // namespace hwfault
