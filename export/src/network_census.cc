#include "network_census.h"

#include <cstdlib>
#include <string>

namespace hwfault {
Census::Census(const Golden& golden, int64_t number)
    : golden_(golden), number_(number), node_(layer_of(golden.network(), number)), spread_(golden) {
  const int64_t n = items();
  x_.resize(n), low_.resize(n), high_.resize(n), flags_.resize(n);
}

void Census::check(int64_t word, int32_t change) const {
  if (word < 0 || word >= node_.words())
    throw Error("the word is " + std::to_string(word) + ", expected 0 to " + std::to_string(node_.words() - 1));
  const int64_t weight = int64_t{node_.weights[word]} + change;
  if (std::abs(weight) > node_.largest_weight)
    throw Error("a change makes a weight " + std::to_string(weight) + ", beyond the largest of its layer");
}

// What the weight is multiplied by at a position.
int32_t Census::input_at(int64_t word, int64_t image, int64_t position) const {
  const Windows& windows = node_.windows;
  const int64_t term = word % (node_.depth * windows.taps), channel = word / (node_.depth * windows.taps);
  const int32_t at = windows.input_of[position * windows.taps + term % windows.taps];
  if (at < 0) return 0;
  const int64_t input = channel / node_.in_group() * node_.depth + term / windows.taps;
  return static_cast<int32_t>(golden_.values(node_.inputs[0], image)[input * windows.inputs + at]);
}

void Census::read_word(int64_t word) {
  if (word == word_) return;
  word_ = word;
  read_channel(word / (node_.depth * node_.windows.taps));
  int64_t i = 0;
  for (int64_t image = 0; image < golden_.images(); ++image)
    for (int64_t position = 0; position < node_.positions; ++position) x_[i++] = input_at(word, image, position);
}

void Census::read_channel(int64_t channel) {
  if (channel == channel_) return;
  channel_ = channel;
  const GoldenSums& sums = golden_.sums(number_);
  for (int64_t i = 0; i < items(); ++i) {
    low_[i] = sums.low[i * node_.channels + channel];
    high_[i] = sums.high[i * node_.channels + channel];
  }
}

void Census::collect() {
  differing_.clear();
  for_each_flag(flags_.data(), items(), [&](int64_t i) { differing_.push_back(i); });
}

int64_t Census::spread_image(int64_t image, size_t first, size_t last, int32_t change) {
  const GoldenSums& sums = golden_.sums(number_);
  spread_.begin(number_, image);
  for (size_t k = first; k < last; ++k) {
    const int64_t i = differing_[k];
    const int64_t sum = int64_t{sums.sum[i * node_.channels + channel_]} + int64_t{change} * x_[i];
    const float value = node_.steps.apply(static_cast<double>(sum), channel_);
    spread_.tell(channel_ * node_.positions + i % node_.positions, value);
  }
  return spread_.finish();
}

int64_t Census::strike(int64_t word, int32_t change, int64_t image) {
  const GoldenSums& sums = golden_.sums(number_);
  const int64_t channel = word / (node_.depth * node_.windows.taps);
  spread_.begin(number_, image);
  for (int64_t position = 0; position < node_.positions; ++position) {
    const int64_t at = (image * node_.positions + position) * node_.channels + channel;
    const int64_t sum = int64_t{sums.sum[at]} + int64_t{change} * input_at(word, image, position);
    spread_.tell(channel * node_.positions + position, node_.steps.apply(static_cast<double>(sum), channel));
  }
  return spread_.finish();
}

}  // namespace hwfault
