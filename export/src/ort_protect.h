// ProtectedFaults of domain hwfault (export/SPEC.md).
#pragma once

#include "ort_faults.h"
#include "protect.h"

namespace hwfault::ort {

template <class T>
class ProtectedFaults {
 public:
  static constexpr const char* name = "ProtectedFaults";
  static constexpr ElementType type = std::is_same_v<T, float> ? kFloat : kDouble;
  static constexpr std::array inputs{type,   type,   type,   kInt64, kInt64,
                                     kInt64, kInt64, kInt64, kInt64, kInt64};
  explicit ProtectedFaults(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  Target target_;
  std::vector<int64_t> program_;
  hwfault_protection protection_;  // without a table
  int64_t threshold_;
  uint32_t site_;
  Refresh refresh_;
};

}  // namespace hwfault::ort
