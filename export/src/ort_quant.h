// Quant and BipolarQuant of qonnx.custom_op.general, as qonnx's own executor computes them, in float32.
#pragma once

#include <array>

#include "ort_op.h"
#include "rounding.h"

namespace hwfault::ort {

class Quant {
 public:
  static constexpr const char* name = "Quant";
  static constexpr std::array inputs{kFloat, kFloat, kFloat, kFloat};
  static constexpr bool in_place = true;
  static constexpr bool of_inputs_alone = true;
  explicit Quant(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  bool signed_, narrow_;
  Rounding rounding_;
};

// The same under the name that QONNX 1.0 gives it.
class IntQuant : public Quant {
 public:
  static constexpr const char* name = "IntQuant";
  using Quant::Quant;
};

class BipolarQuant {
 public:
  static constexpr const char* name = "BipolarQuant";
  static constexpr std::array inputs{kFloat, kFloat};
  static constexpr bool in_place = true;
  static constexpr bool of_inputs_alone = true;
  explicit BipolarQuant(const NodeInfo&) {}
  void compute(const Context& context) const;
};

}  // namespace hwfault::ort
