// ArrayFaults of domain hwfault (export/SPEC.md).
#pragma once

#include "ort_fault_op.h"

namespace hwfault::ort {

template <class T>
class ArrayFaults {
 public:
  static constexpr const char* name = "ArrayFaults";
  static constexpr std::array inputs{Input{"acc", kTypeOf<T>}, Input{"x", kFloat}, Input{"w", kFloat}};
  explicit ArrayFaults(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  std::vector<int64_t> strides_, pads_, dilations_, order_, events_;
  int64_t groups_, step_, pass_steps_;
  int32_t width_, saturate_, recompute_;
  bool channels_last_;
  BatchAxis batch_;  // of a linear layer
};

}  // namespace hwfault::ort
