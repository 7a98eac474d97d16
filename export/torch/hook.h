// Striking values before the hook that would do it is called: by the operator that makes them, in the same pass.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "zero_node.h"

namespace hwfault_torch {

struct Inside {
  Struck struck;
  bool straight_through;
};

// What the hook of a quantizer would strike its values with; nothing where they are left to the hook. `x` has their shape
// and type, and lies as they will; `keeps_gradient` says whether autograd follows them, `width` is their bit width.
// What is asked for has to be done: the site has run then.
std::optional<Inside> strike_inside(pybind11::handle hook, pybind11::handle proxy, const at::Tensor& x,
                                    bool keeps_gradient, const at::Tensor& scale, const at::Tensor& zero_point,
                                    pybind11::handle width);

// Notes values that are struck, which the hook leaves alone when it is called next in this thread.
void note_struck(const at::Tensor& values);

}  // namespace hwfault_torch
