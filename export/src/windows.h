// Limits of windows that slide over images.
#pragma once

#include <cstdint>

namespace hwfault::ort {

// The longest kernel, stride, padding or dilation: products of two of them with a length fit into 63 bits.
constexpr int64_t kLongest = 1 << 20;

}  // namespace hwfault::ort
