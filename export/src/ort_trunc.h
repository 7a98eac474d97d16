// Trunc of qonnx.custom_op.general in both versions, as qonnx's own executor computes them, in float32.
#pragma once

#include <array>

#include "ort_op.h"
#include "rounding.h"

namespace hwfault::ort {

// A node has 5 inputs (X, scale, zeropt, in_bitwidth, out_bitwidth: version 1) or 6 (out_scale before the last).
class Trunc {
 public:
  static constexpr const char* name = "Trunc";
  static constexpr std::array inputs{kFloat, kFloat, kFloat, kFloat, kFloat, kFloat};
  static constexpr bool in_place = true;
  static constexpr size_t required = 5;
  explicit Trunc(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  bool signed_, narrow_;
  Rounding rounding_;
};

}  // namespace hwfault::ort
