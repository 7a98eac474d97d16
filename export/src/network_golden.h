// The run of a network without faults, kept to be compared with.
#pragma once

#include <cstdint>
#include <vector>

#include "network.h"

namespace hwfault {

// What is kept of a layer: its sums, and how far each may change either way without a change of its value; in the order
// (images, positions, channels).
struct GoldenSums {
  std::vector<int32_t> sum, low, high;
};

class Golden {
 public:
  // Runs the network on (images, input size) values. Throws Error for values that are no numbers.
  Golden(const Network& network, const float* x, int64_t images);

  const Network& network() const { return network_; }
  int64_t images() const { return images_; }
  const float* values(int64_t tensor, int64_t image) const {
    return values_[tensor].data() + image * network_.tensors()[tensor].size;
  }
  const GoldenSums& sums(int64_t node) const { return sums_[node]; }
  // What a node's steps are given for an element of its output.
  double before_steps(int64_t number, int64_t image, int64_t element) const;

 private:
  void run(int64_t number);
  void run_layer(int64_t number, int64_t image, float* out);
  void keep_sum(const Node& node, GoldenSums& sums, int64_t at, int32_t sum, int64_t channel) const;

  const Network& network_;
  int64_t images_;
  std::vector<std::vector<float>> values_;
  std::vector<GoldenSums> sums_;
};

// The largest of the values in a pool's window; value(input) reads one.
template <class F>
float largest_in_window(const Windows& windows, int64_t output, F value) {
  bool any = false;
  float largest = 0;
  for (int64_t tap = 0; tap < windows.taps; ++tap) {
    const int32_t input = windows.input_of[output * windows.taps + tap];
    if (input < 0) continue;
    const float x = value(input);
    largest = any && largest >= x ? largest : x;
    any = true;
  }
  return largest;
}

}  // namespace hwfault

struct hwfault_golden : hwfault::Golden {
  using Golden::Golden;
};
