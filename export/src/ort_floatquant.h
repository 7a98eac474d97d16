// FloatQuant of qonnx.custom_op.general: rounding to a minifloat, as qonnx's own executor computes it.
#pragma once

#include <array>

#include "ort_op.h"
#include "rounding.h"

namespace hwfault::ort {

class FloatQuant {
 public:
  static constexpr const char* name = "FloatQuant";
  static constexpr std::array inputs{kFloat, kFloat, kFloat, kFloat, kFloat, kFloat};
  explicit FloatQuant(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  Rounding rounding_;
  bool infinities_, nans_, saturates_;
};

}  // namespace hwfault::ort
