// Affine of domain hwfault (export/SPEC.md).
#pragma once

#include <array>
#include <type_traits>

#include "ort_op.h"

namespace hwfault::ort {

template <class T>
class Affine {
 public:
  static constexpr const char* name = "Affine";
  static constexpr std::array inputs{std::is_same_v<T, float> ? kFloat : kDouble, kFloat, kFloat};
  static constexpr bool in_place = true;
  explicit Affine(const NodeInfo&) {}
  void compute(const Context& context) const;
};

}  // namespace hwfault::ort
