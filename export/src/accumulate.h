// Accumulators of convolutions and linear layers, added up anew where an array's faults or its width demand it
// (export/SPEC.md, ArrayFaults).
#pragma once

#include <cstdint>
#include <vector>

#include "hwfault.h"
#include "program.h"

namespace hwfault {

// A stuck bit: code' = (code & and_mask) ^ xor_mask for channels n with n mod channels = channel, positions and steps
// of a pass likewise.
struct ArrayEvent {
  int64_t channels, channel, positions, position, steps, step;
  uint32_t and_mask, xor_mask;
};

class Accumulation {
 public:
  // Throws Error for a layer or array with impossible numbers. The elements of a linear layer's batch take turns, `run`
  // positions of each at a time; 0: all of them.
  Accumulation(const hwfault_layer& layer, const hwfault_array& array, int64_t run = 0);

  int64_t words() const { return layer_.batch * layer_.channels * positions_; }
  int64_t x_size() const { return layer_.batch * layer_.groups * layer_.depth * input_size_; }
  int64_t w_size() const { return layer_.channels * products_; }
  const hwfault_layer& layer() const { return layer_; }

  // Decides which channels are added up anew: those that the events name, all if asked for, and where sums saturate
  // those that can overflow.
  void choose(const float* x, const float* w);
  bool any_chosen() const { return !chosen_.empty(); }

  // out = acc within the width, for words [first, last): for the channels that are not chosen
  template <class T>
  void keep(const T* acc, T* out, int64_t first, int64_t last) const;

  // out = the chosen channels of items (position of an element, counted through the batch) [first, last)
  template <class T>
  void add_up(const float* x, const float* w, T* out, int64_t first, int64_t last) const;

  int64_t items() const { return layer_.batch * positions_; }
  int64_t items_per_part() const;

 private:
  struct Part;  // the inputs of some items of one group, as integers
  template <class A, class T>
  void add_up_as(const float* x, const float* w, T* out, int64_t first, int64_t last) const;
  template <class A>
  void add_up_channel(const Part& part, const float* w, int64_t channel, std::vector<A>& partial,
                      std::vector<A>& total) const;
  template <class A>
  void settle(const Part& part, int64_t channel, int64_t step, A* partial) const;
  template <class A>
  A within(A value) const;
  bool stops_at(int64_t channel, int64_t step) const;
  // where in a linear layer's tensors, of so many positions, the row of an element's position lies
  int64_t row_of(int64_t element, int64_t position, int64_t positions) const {
    if (run_ == 0) return element * positions + position;
    return (position / run_ * layer_.batch + element) * run_ + position % run_;
  }
  int64_t word_of(int64_t item, int64_t channel) const;

  hwfault_layer layer_;
  std::vector<int64_t> axes_, order_;
  std::vector<ArrayEvent> events_;
  int64_t step_, steps_, passes_, products_, kernel_size_ = 1, input_size_ = 1, positions_ = 1, run_ = 0;
  uint32_t mask_, sign_;
  bool saturate_, recompute_, narrow_ = false;
  std::vector<int64_t> chosen_;
};

}  // namespace hwfault
