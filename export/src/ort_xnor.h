// XnorPopcountMatMul of qonnx.custom_op.general: in how many places two rows of bits agree.
#pragma once

#include <array>

#include "ort_op.h"

namespace hwfault::ort {

class XnorPopcountMatMul {
 public:
  static constexpr const char* name = "XnorPopcountMatMul";
  static constexpr std::array inputs{kFloat, kFloat};
  static constexpr bool reshapes = true;
  explicit XnorPopcountMatMul(const NodeInfo&) {}
  void compute(const Context& context) const;
};

}  // namespace hwfault::ort
