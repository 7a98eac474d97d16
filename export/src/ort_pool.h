// QuantAvgPool2d and MaxPoolNHWC of qonnx.custom_op.general.
#pragma once

#include <array>

#include "ort_op.h"

namespace hwfault::ort {

class QuantAvgPool2d {
 public:
  static constexpr const char* name = "QuantAvgPool2d";
  static constexpr std::array inputs{kFloat};
  static constexpr bool reshapes = true;
  explicit QuantAvgPool2d(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  int64_t kernel_, stride_, shift_;
  bool channels_last_;
};

class MaxPoolNHWC {
 public:
  static constexpr const char* name = "MaxPoolNHWC";
  static constexpr std::array inputs{kFloat};
  static constexpr bool reshapes = true;
  explicit MaxPoolNHWC(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  int64_t positions(int64_t length, size_t axis) const;
  std::vector<int64_t> kernel_, strides_, pads_, dilations_;
  bool ceil_;
};

}  // namespace hwfault::ort
