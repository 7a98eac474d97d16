#include "network_spread.h"

#include <algorithm>

namespace hwfault {

Spread::Spread(const Golden& golden) : golden_(golden), network_(golden.network()) {
  for (const Tensor& tensor : network_.tensors())
    overlays_.push_back({std::vector<uint32_t>(tensor.size, 0), std::vector<float>(tensor.size), {}});
  int64_t buckets = 0, channels = 0, outputs = 0;
  for (const Node& node : network_.nodes()) {
    if (node.kind == NodeKind::layer) buckets = std::max(buckets, node.groups * node.positions);
    channels = std::max(channels, node.channels);
    if (node.kind == NodeKind::max_pool) outputs = std::max(outputs, node.size());
  }
  count_.resize(buckets);
  sum_.resize(channels), flags_.resize(channels);
  seen_.resize(outputs);
}

void Spread::begin(int64_t number, int64_t image) {
  number_ = number, image_ = image;
  if (++epoch_ == 0) {  // after 2^32 - 1 images: old stamps must not come true
    for (Overlay& overlay : overlays_) std::fill(overlay.stamp.begin(), overlay.stamp.end(), 0);
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
  const int64_t output = number + 1;
  switch (node.kind) {
    case NodeKind::layer: return pass_layer(number);
    case NodeKind::add: return pass_add(node, output);
    case NodeKind::max_pool: return pass_pool(node, output);
    case NodeKind::move: return pass_move(node, output);
    case NodeKind::elementwise: {
      const Overlay& input = overlays_[node.inputs[0]];
      for (const int32_t at : input.changed)
        note(output, at, node.steps.apply(input.value[at], at / node.positions));
    }
  }
}

void Spread::pass_layer(int64_t number) {
  const Node& node = network_.nodes()[number];
  collect_terms(node);
  sort_terms();
  const Term* terms = terms_.data();
  for (const int32_t bucket : touched_) {
    pass_sums(number, bucket, terms, count_[bucket]);
    terms += count_[bucket];
    count_[bucket] = 0;
  }
  touched_.clear();
}

// What each changed input adds to the sums of each group and position, in the order of the inputs.
void Spread::collect_terms(const Node& node) {
  const Windows& windows = node.windows;
  const Overlay& input = overlays_[node.inputs[0]];
  const float* golden = golden_.values(node.inputs[0], image_);
  const int64_t in_group = node.in_group();
  unsorted_.clear(), bucket_of_.clear();
  for (const int32_t at : input.changed) {
    const int64_t channel = at / windows.inputs, position = at % windows.inputs;
    const int64_t group = channel / node.depth;
    const auto change = static_cast<int32_t>(input.value[at]) - static_cast<int32_t>(golden[at]);
    for (int32_t i = windows.first[position]; i < windows.first[position + 1]; ++i) {
      const Windows::Touch touch = windows.touches[i];
      const auto bucket = static_cast<int32_t>(group * node.positions + touch.output);
      if (count_[bucket]++ == 0) touched_.push_back(bucket);
      bucket_of_.push_back(bucket);
      unsorted_.push_back({(channel * windows.taps + touch.tap) * in_group, change});
    }
  }
}

// Puts the terms in the order of `touched_`.
void Spread::sort_terms() {
  terms_.resize(unsorted_.size());
  if (touched_.size() == 1) return terms_.swap(unsorted_);
  int32_t next = 0;
  for (const int32_t bucket : touched_) {
    const int32_t count = count_[bucket];
    count_[bucket] = next;
    next += count;
  }
  for (size_t i = 0; i < unsorted_.size(); ++i) terms_[count_[bucket_of_[i]]++] = unsorted_[i];
  // each number is now where its bucket ends
  int32_t begin = 0;
  for (const int32_t bucket : touched_) {
    const int32_t end = count_[bucket];
    count_[bucket] = end - begin;
    begin = end;
  }
}

// The sums of a group's channels at a position; those that left their segment are looked at one by one.
void Spread::pass_sums(int64_t number, int64_t bucket, const Term* terms, int64_t count) {
  const Node& node = network_.nodes()[number];
  const GoldenSums& golden = golden_.sums(number);
  const int64_t in_group = node.in_group(), position = bucket % node.positions;
  const int64_t first = bucket / node.positions * in_group;
  const int64_t at = (image_ * node.positions + position) * node.channels + first;
  add_rows(sum_.data(), terms, count, node.rows.data(), in_group);
  if (!leaves(sum_.data(), golden.low.data() + at, golden.high.data() + at, flags_.data(), in_group)) return;
  for_each_flag(flags_.data(), in_group, [&](int64_t i) {
    const int64_t channel = first + i;
    note(number + 1, channel * node.positions + position, node.steps.apply(golden.sum[at + i] + sum_[i], channel));
  });
}

void Spread::pass_add(const Node& node, int64_t output) {
  const int64_t one = node.inputs[0], other = node.inputs[1];
  const auto add = [&](int32_t at) {
    note(output, at, node.steps.apply(now(one, at) + now(other, at), at / node.positions));
  };
  const bool first = one > number_, second = other > number_ && other != one;
  if (first)
    for (const int32_t at : overlays_[one].changed) add(at);
  if (!second) return;
  for (const int32_t at : overlays_[other].changed)
    if (!first || overlays_[one].stamp[at] != epoch_) add(at);
}

void Spread::pass_pool(const Node& node, int64_t output) {
  const Windows& windows = node.windows;
  const int64_t input = node.inputs[0];
  if (++seen_epoch_ == 0) std::fill(seen_.begin(), seen_.end(), 0), seen_epoch_ = 1;
  for (const int32_t at : overlays_[input].changed) {
    const int64_t channel = at / windows.inputs, position = at % windows.inputs;
    for (int32_t i = windows.first[position]; i < windows.first[position + 1]; ++i) {
      const int64_t to = channel * node.positions + windows.touches[i].output;
      if (seen_[to] == seen_epoch_) continue;
      seen_[to] = seen_epoch_;
      const float most = largest_in_window(windows, windows.touches[i].output, [&](int32_t tap) {
        return now(input, channel * windows.inputs + tap);
      });
      note(output, to, node.steps.apply(most, channel));
    }
  }
}

void Spread::pass_move(const Node& node, int64_t output) {
  int64_t before = 0;
  for (const int64_t input : node.inputs) {
    if (input > number_)
      for (const int32_t at : overlays_[input].changed) {
        const float value = overlays_[input].value[at];
        for (int32_t i = node.moved_first[before + at]; i < node.moved_first[before + at + 1]; ++i)
          note(output, node.moved_to[i], node.steps.apply(value, node.moved_to[i] / node.positions));
      }
    before += network_.tensors()[input].size;
  }
}

void Spread::copy_outputs(float* out) const {
  const auto output = static_cast<int64_t>(overlays_.size()) - 1;
  const float* golden = golden_.values(output, image_);
  std::copy(golden, golden + network_.output_size(), out);
  for (const int32_t at : overlays_[output].changed) out[at] = overlays_[output].value[at];
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
