// The extension's module: `python -m hwfault.fast` compiles all files of this folder into one.
#include "module.h"

#include <torch/version.h>

#include <cstdint>

#include "library.h"
#include "plain.h"

namespace hwfault_torch {

Library library;

namespace {

// Takes the functions' addresses by their names; raises KeyError where one is missing.
void connect(const pybind11::dict& addresses) {
#define HWFAULT_CONNECT(name) \
  library.name = reinterpret_cast<decltype(library.name)>(addresses[#name].cast<uintptr_t>());
  HWFAULT_CALLED(HWFAULT_CONNECT)
#undef HWFAULT_CONNECT
  note_plain_keys();
}

}  // namespace
}  // namespace hwfault_torch

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.attr("TORCH_VERSION") = TORCH_VERSION;
  m.def("connect", &hwfault_torch::connect);
  hwfault_torch::add_quantizer(m);
  hwfault_torch::add_counting(m);
  hwfault_torch::add_guards(m);
  hwfault_torch::add_hook(m);
  hwfault_torch::add_zero_node(m);
}
