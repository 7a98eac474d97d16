// The parts of the extension: each adds its functions to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace hwfault_torch {

void add_counting(pybind11::module_& m);
void add_guards(pybind11::module_& m);
void add_hook(pybind11::module_& m);
void add_quantizer(pybind11::module_& m);
void add_zero_node(pybind11::module_& m);

}  // namespace hwfault_torch
