// TransientFaults, FaultMap and IntermittentFaults of domain hwfault (export/SPEC.md).
#pragma once

#include "ort_fault_op.h"

namespace hwfault::ort {

template <class T>
class TransientFaults {
 public:
  static constexpr const char* name = "TransientFaults";
  static constexpr std::array inputs{Input{"X", kTypeOf<T>}, Input{"scale", kTypeOf<Grid<T>>}, Input{"zeropt", kTypeOf<Grid<T>>},
                                     Input{"seed", kInt64}, Input{"first_sample", kInt64}};
  static constexpr bool in_place = true;
  explicit TransientFaults(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  Target target_;
  std::vector<int64_t> numbers_;
  Program program_;  // points into numbers_
};

template <class T>
class FaultMap {
 public:
  static constexpr const char* name = "FaultMap";
  static constexpr std::array inputs{Input{"X", kTypeOf<T>},    Input{"scale", kTypeOf<Grid<T>>}, Input{"zeropt", kTypeOf<Grid<T>>},
                                     Input{"word", kInt64},     Input{"and_mask", kInt64},  Input{"xor_mask", kInt64},
                                     Input{"(optional)", kFloat}};
  static constexpr bool in_place = true;
  static constexpr size_t required = 6;  // the last is never read
  explicit FaultMap(const NodeInfo& node) : target_(Target::holding<T>(node)) {}
  void compute(const Context& context) const;

 private:
  Target target_;
};

template <class T>
class IntermittentFaults {
 public:
  static constexpr const char* name = "IntermittentFaults";
  static constexpr std::array inputs{Input{"X", kTypeOf<T>}, Input{"scale", kTypeOf<Grid<T>>}, Input{"zeropt", kTypeOf<Grid<T>>},
                                     Input{"word", kInt64},  Input{"and_mask", kInt64},  Input{"xor_mask", kInt64},
                                     Input{"seed", kInt64},  Input{"first_sample", kInt64}};
  static constexpr bool in_place = true;
  explicit IntermittentFaults(const NodeInfo& node) : target_(Target::holding<T>(node)), activity_(Activity::required(node)) {}
  void compute(const Context& context) const;

 private:
  Target target_;
  Activity activity_;
};

}  // namespace hwfault::ort
