// Im2Col of qonnx.custom_op.general: the pixels under each position of a kernel, side by side.
#pragma once

#include <array>

#include "ort_op.h"

namespace hwfault::ort {

class Im2Col {
 public:
  static constexpr const char* name = "Im2Col";
  static constexpr std::array inputs{kFloat};
  static constexpr bool reshapes = true;
  explicit Im2Col(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  std::vector<int64_t> strides_, kernel_, pads_, dilations_;
  float padding_;
};

}  // namespace hwfault::ort
