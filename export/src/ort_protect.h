// ProtectedFaults of domain hwfault (export/SPEC.md).
#pragma once

#include "ort_fault_op.h"
#include "protect.h"

namespace hwfault::ort {

template <class T>
class ProtectedFaults {
 public:
  static constexpr const char* name = "ProtectedFaults";
  static constexpr std::array inputs{
      Input{"X", kTypeOf<T>},    Input{"scale", kTypeOf<Grid<T>>},    Input{"zeropt", kTypeOf<Grid<T>>}, Input{"word", kInt64},
      Input{"and_mask", kInt64}, Input{"xor_mask", kInt64},     Input{"seed", kInt64},       Input{"first_sample", kInt64},
      Input{"number", kInt64},   Input{"cells", kInt64}};
  explicit ProtectedFaults(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  // the protection with the table of its layout
  hwfault_protection with_table(const Context& context) const;

  Target target_;
  std::vector<int64_t> program_;
  hwfault_protection protection_;  // without a table
  Activity activity_;
};

}  // namespace hwfault::ort
