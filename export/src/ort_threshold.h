// MultiThreshold of qonnx.custom_op.general: how many thresholds of its channel a value reaches.
#pragma once

#include <array>

#include "ort_op.h"

namespace hwfault::ort {

class MultiThreshold {
 public:
  static constexpr const char* name = "MultiThreshold";
  static constexpr std::array inputs{kFloat, kFloat};
  explicit MultiThreshold(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  size_t channel_axis(size_t rank) const;
  std::string layout_;
  float scale_, bias_;
};

}  // namespace hwfault::ort
