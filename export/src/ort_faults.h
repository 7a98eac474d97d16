// TransientFaults and FaultMap of domain hwfault (export/SPEC.md).
#pragma once

#include <array>

#include "codec.h"
#include "ort_op.h"

namespace hwfault::ort {

// What both ops know of the tensor they strike.
struct Target {
  explicit Target(const NodeInfo& node);
  int32_t bit_width, is_signed, representation;
  bool batched;
};

template <class T>
class TransientFaults {
 public:
  static constexpr const char* name = "TransientFaults";
  static constexpr ElementType type = std::is_same_v<T, float> ? kFloat : kDouble;
  static constexpr std::array inputs{type, type, type, kInt64, kInt64};
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
  static constexpr ElementType type = std::is_same_v<T, float> ? kFloat : kDouble;
  static constexpr std::array inputs{type, type, type, kInt64, kInt64, kInt64};
  explicit FaultMap(const NodeInfo& node) : target_(node) {}
  void compute(const Context& context) const;

 private:
  Target target_;
};

// When the activity of intermittent faults is drawn anew.
enum class Refresh { inference, batch, held };

template <class T>
class IntermittentFaults {
 public:
  static constexpr const char* name = "IntermittentFaults";
  static constexpr ElementType type = std::is_same_v<T, float> ? kFloat : kDouble;
  static constexpr std::array inputs{type, type, type, kInt64, kInt64, kInt64, kInt64, kInt64};
  explicit IntermittentFaults(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  Target target_;
  int64_t threshold_;
  uint32_t site_;
  Refresh refresh_;
};

}  // namespace hwfault::ort
