// The autograd node of a struck tensor: gradients are zero at words that faults changed, which are drawn again.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <cstdint>
#include <memory>
#include <string>

#include "stream_site.h"

namespace hwfault_torch {

// What a backward pass needs of a strike.
struct Struck {
  std::shared_ptr<const StreamSite> site;
  hwfault_shape shape;
  uint64_t seed;
  at::Tensor samples;
  at::Tensor left;  // places of values that were not struck because they hold no number; undefined where there are none
};

// A gradient with zeros at the words that faults changed, in memory of its own unless nobody else holds it.
at::Tensor zero_gradient(const Struck& struck, at::Tensor gradient);

// Makes `out` what autograd knows as the result of a strike on x; `out` is x where that was struck in place.
void note_history(const at::Tensor& x, const at::Tensor& out, bool in_place, Struck struck, bool straight_through);

}  // namespace hwfault_torch
