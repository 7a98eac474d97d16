// ClippedRange of domain hwfault (export/SPEC.md).
#pragma once

#include "clip.h"
#include "ort_fault_op.h"

namespace hwfault::ort {

template <class T>
class ClippedRange {
 public:
  static constexpr const char* name = "ClippedRange";
  static constexpr std::array inputs{Input{"X", kTypeOf<T>}, Input{"scale", kTypeOf<Grid<T>>}, Input{"zeropt", kTypeOf<Grid<T>>}};
  static constexpr bool in_place = true;
  explicit ClippedRange(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  Target target_;
  hwfault_range range_;
};

}  // namespace hwfault::ort
