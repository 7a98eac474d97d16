// Changed addends of a layer, as flipped biases make them, image by image.
#pragma once

#include <cstdint>

#include "network_spread.h"

namespace hwfault {

// Addends of one layer: strike(i, image, spread) has addend i in an image and returns as Spread::finish. It is a change
// of the same size at every position of one channel.
class ChangedAddends {
 public:
  // Throws Error for a node that is no layer, for channels that there are not, and for addends that are no numbers or
  // with which a layer would read larger integers than its sums have room for.
  ChangedAddends(const Golden& golden, const hwfault_addends& addends);

  int64_t count() const { return addends_.count; }
  int64_t strike(int64_t i, int64_t image, Spread& spread) const;

 private:
  const Golden& golden_;
  const hwfault_addends& addends_;
  const Node& node_;
};

}  // namespace hwfault
