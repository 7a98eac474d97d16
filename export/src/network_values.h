// Single flipped bits of quantized values, image by image.
#pragma once

#include <cstdint>

#include "codec.h"
#include "network_spread.h"

namespace hwfault {

// Flipped bits of the values of one quantizer: strike(i, image, spread) has flip i in an image and
// returns as Spread::finish.
class FlippedValues {
 public:
  // Throws Error for a step that quantizes nothing, and for words and bits that there are not.
  FlippedValues(const Golden& golden, const hwfault_value_flips& flips);

  int64_t count() const { return flips_.count; }
  int64_t strike(int64_t flip, int64_t image, Spread& spread) const;

 private:
  const Golden& golden_;
  const hwfault_value_flips& flips_;
  const Node& node_;
  const Codec<float> codec_;
};

}  // namespace hwfault
