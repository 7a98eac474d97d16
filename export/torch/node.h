// Autograd nodes as this version of torch holds them.
#pragma once

#include <torch/csrc/autograd/function.h>

#include <memory>
#include <type_traits>
#include <utility>

namespace hwfault_torch {

template <class N, class... Given>
auto make_node(Given&&... given) {
  if constexpr (std::is_same_v<decltype(torch::autograd::Edge::function), std::shared_ptr<torch::autograd::Node>>)
    return std::make_shared<N>(std::forward<Given>(given)...);
  else
    return c10::make_intrusive<N>(std::forward<Given>(given)...);
}

}  // namespace hwfault_torch
