#include "network_spread.h"

#include <algorithm>

namespace hwfault {

Spread::Spread(const Golden& golden) : golden_(golden), network_(golden.network()) {
  for (const Tensor& tensor : network_.tensors())
    overlays_.push_back({std::vector<Element>(tensor.size), {}});
  int64_t inputs = 0, outputs = 0, channels = 0, taps = 0;
  for (const Node& node : network_.nodes()) {
    if (node.kind == NodeKind::layer) inputs = std::max(inputs, node.groups * node.windows.inputs);
    outputs = std::max(outputs, node.size());
    channels = std::max({channels, node.channels, node.stride});
    taps = std::max(taps, node.windows.taps);
  }
  inputs_.resize(inputs);
  elements_.resize(outputs), channels_.resize(outputs), before_.resize(outputs), behind_.resize(outputs);
  sum_.resize(channels), flags_.resize(channels);
  segments_.resize(taps);
  seen_.resize(outputs);
}

void Spread::begin(int64_t number, int64_t image) {
  number_ = number, image_ = image;
  if (++epoch_ == 0) {  // after 2^32 - 1 images: old stamps must not come true
    for (Overlay& overlay : overlays_) std::fill(overlay.elements.begin(), overlay.elements.end(), Element{});
    epoch_ = 1;
  }
  for (size_t tensor = number + 1; tensor < overlays_.size(); ++tensor) overlays_[tensor].changed.clear();
}

int64_t Spread::finish() {
  const auto last = static_cast<int64_t>(network_.nodes().size());
  // the last node that reads anything that differs; what is behind it need not be looked at
  int64_t end = overlays_[number_ + 1].changed.empty() ? -1 : network_.tensors()[number_ + 1].last_reader;
  int64_t died = number_;
  for (int64_t i = number_ + 1; i <= end; ++i) {
    const std::vector<int64_t>& inputs = network_.nodes()[i].inputs;
    const bool differs = std::any_of(inputs.begin(), inputs.end(), [&](int64_t input) {
      return input > number_ && !overlays_[input].changed.empty();
    });
    if (!differs) continue;
    pass(i);
    died = i;
    if (!overlays_[i + 1].changed.empty()) end = std::max(end, network_.tensors()[i + 1].last_reader);
  }
  return overlays_[last].changed.empty() ? died : -1;
}

void Spread::pass(int64_t number) {
  const Node& node = network_.nodes()[number];
  switch (node.kind) {
    case NodeKind::layer: pass_layer(number); break;
    case NodeKind::add: pass_add(node); break;
    case NodeKind::max_pool: pass_pool(node); break;
    case NodeKind::move: pass_move(node); break;
    case NodeKind::elementwise: {
      const Overlay& input = overlays_[node.inputs[0]];
      for (const int32_t at : input.changed) keep(at, at / node.positions, input.elements[at].value);
    }
  }
  settle(node, number + 1);
}

// Takes the node's steps with all values that were kept.
void Spread::settle(const Node& node, int64_t output) {
  node.steps.apply_all(before_.data(), channels_.data(), kept_, behind_.data());
  for (int64_t i = 0; i < kept_; ++i) note(output, elements_[i], behind_[i]);
  kept_ = 0;
}

void Spread::pass_layer(int64_t number) {
  const Node& node = network_.nodes()[number];
  collect_terms(node);
  find_touched(node);
  for (const int32_t bucket : touched_) pass_sums(number, bucket);
  for (const int32_t bucket : struck_) inputs_[bucket].count = 0;
  struck_.clear(), touched_.clear();
}

// The changed inputs by their group and position.
void Spread::collect_terms(const Node& node) {
  const auto inputs = static_cast<uint32_t>(node.windows.inputs), depth = static_cast<uint32_t>(node.depth);
  const auto stride = static_cast<int32_t>(node.stride);
  const Overlay& input = overlays_[node.inputs[0]];
  const float* golden = golden_.values(node.inputs[0], image_);
  const auto bucket_of = [&](uint32_t at) { return at / inputs / depth * inputs + at % inputs; };
  for (const int32_t at : input.changed) {
    const uint32_t bucket = bucket_of(at);
    if (inputs_[bucket].count++ == 0) struck_.push_back(static_cast<int32_t>(bucket));
  }
  int32_t next = 0;
  for (const int32_t bucket : struck_) {
    inputs_[bucket].first = next;
    next += inputs_[bucket].count;
  }
  terms_.resize(next);
  for (const int32_t at : input.changed) {
    const auto change = static_cast<int32_t>(input.elements[at].value) - static_cast<int32_t>(golden[at]);
    const auto row = static_cast<int32_t>(static_cast<uint32_t>(at) / inputs % depth) * stride;
    terms_[inputs_[bucket_of(at)].first++] = {row, change};
  }
  for (const int32_t bucket : struck_) inputs_[bucket].first -= inputs_[bucket].count;
}

// The outputs whose windows hold a changed input.
void Spread::find_touched(const Node& node) {
  const Windows& windows = node.windows;
  begin_seeing();
  for (const int32_t bucket : struck_) {
    const int64_t group = bucket / windows.inputs, position = bucket % windows.inputs;
    for (int32_t i = windows.first[position]; i < windows.first[position + 1]; ++i) {
      const int64_t output = group * node.positions + windows.touches[i].output;
      if (see(output)) touched_.push_back(static_cast<int32_t>(output));
    }
  }
}

// The sums of a group's channels at a position; those that left their segment are looked at further.
void Spread::pass_sums(int64_t number, int64_t bucket) {
  const Node& node = network_.nodes()[number];
  const Windows& windows = node.windows;
  const GoldenSums& golden = golden_.sums(number);
  const int64_t in_group = node.in_group(), group = bucket / node.positions, position = bucket % node.positions;
  int64_t segments = 0;
  for (int64_t tap = 0; tap < windows.taps; ++tap) {
    const int32_t input = windows.input_of[position * windows.taps + tap];
    if (input < 0) continue;
    const Inputs found = inputs_[group * windows.inputs + input];
    if (found.count) segments_[segments++] = {terms_.data() + found.first, found.count, node.rows_at(group, tap)};
  }
  const int64_t first = group * in_group;
  const int64_t at = (image_ * node.positions + position) * node.channels + first;
  add_rows(sum_.data(), segments_.data(), segments, node.stride);
  if (!leaves(sum_.data(), golden.low.data() + at, golden.high.data() + at, flags_.data(), in_group)) return;
  for_each_flag(flags_.data(), in_group, [&](int64_t i) {
    const int64_t channel = first + i;
    keep(channel * node.positions + position, channel, golden.sum[at + i] + sum_[i]);
  });
}

void Spread::pass_add(const Node& node) {
  const int64_t one = node.inputs[0], other = node.inputs[1];
  const auto add = [&](int32_t at) { keep(at, at / node.positions, now(one, at) + now(other, at)); };
  const bool first = one > number_, second = other > number_ && other != one;
  if (first)
    for (const int32_t at : overlays_[one].changed) add(at);
  if (!second) return;
  for (const int32_t at : overlays_[other].changed)
    if (!first || overlays_[one].elements[at].stamp != epoch_) add(at);
}

void Spread::pass_pool(const Node& node) {
  const Windows& windows = node.windows;
  const int64_t input = node.inputs[0];
  begin_seeing();
  for (const int32_t at : overlays_[input].changed) {
    const int64_t channel = at / windows.inputs, position = at % windows.inputs;
    for (int32_t i = windows.first[position]; i < windows.first[position + 1]; ++i) {
      const int64_t to = channel * node.positions + windows.touches[i].output;
      if (!see(to)) continue;
      const float most = largest_in_window(windows, windows.touches[i].output, [&](int32_t tap) {
        return now(input, channel * windows.inputs + tap);
      });
      keep(to, channel, most);
    }
  }
}

void Spread::pass_move(const Node& node) {
  int64_t before = 0;
  for (const int64_t input : node.inputs) {
    if (input > number_)
      for (const int32_t at : overlays_[input].changed) {
        const float value = overlays_[input].elements[at].value;
        for (int32_t i = node.moved_first[before + at]; i < node.moved_first[before + at + 1]; ++i)
          keep(node.moved_to[i], node.moved_to[i] / node.positions, value);
      }
    before += network_.tensors()[input].size;
  }
}

void Spread::copy_outputs(float* out) const {
  const auto output = static_cast<int64_t>(overlays_.size()) - 1;
  const float* golden = golden_.values(output, image_);
  std::copy(golden, golden + network_.output_size(), out);
  for (const int32_t at : overlays_[output].changed) out[at] = overlays_[output].elements[at].value;
}

bool Spread::top1_differs() const {
  const auto output = static_cast<int64_t>(overlays_.size()) - 1;
  const float* golden = golden_.values(output, image_);
  int64_t best = 0, was = 0;
  for (int64_t i = 1; i < network_.output_size(); ++i) {
    if (golden[i] > golden[was]) was = i;
    if (now(output, i) > now(output, best)) best = i;
  }
  return best != was;
}

}  // namespace hwfault
