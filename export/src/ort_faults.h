// TransientFaults and FaultMap of domain hwfault (export/SPEC.md).
#pragma once

#include <array>

#include "ort_axes.h"

namespace hwfault::ort {

constexpr int64_t kUnitsPerPart = 64;

// What the fault ops know of the tensor they strike.
struct Target {
  explicit Target(const NodeInfo& node);
  int32_t bit_width, is_signed, representation;
  Order order;
};

// Throws Error if a word is so wide that the values do not tell its codes: some value is that of two codes.
template <class T, class Where>
void check_codes_known(const Tensor<const T>& x, const Units& units, const hwfault_format& format, const Where& where) {
  constexpr int kSurelyKnown = 20;  // bits
  if (std::is_same_v<T, double> || format.bit_width <= kSurelyKnown) return;
  const Codec<T> codec(format);
  for (int64_t at = 0; at < x.size(); ++at) {
    const int64_t word = at % units.words;
    if (!codec.determines_code(x.data[where(at, word)], word))
      throw Error("word " + std::to_string(word) + " holds " + std::to_string(x.data[where(at, word)]) +
                  ", which float32 cannot tell from the value of another code of " +
                  std::to_string(format.bit_width) + " bits; expected smaller integers, or values of type double");
  }
}

// Values that are mostly one, for which no memory is taken: every node has some of them at every run.
template <class V>
class Few {
 public:
  explicit Few(size_t size, V value = {}) : size_(size), one_(value), many_(size == 1 ? 0 : size, value) {}
  size_t size() const { return size_; }
  V* data() { return size_ == 1 ? &one_ : many_.data(); }
  const V* data() const { return const_cast<Few*>(this)->data(); }
  const V* begin() const { return data(); }
  const V* end() const { return data() + size_; }

 private:
  size_t size_;
  V one_;
  std::vector<V> many_;
};

// Values along at most one axis of x, as the codec wants them.
struct Axis {
  Few<double> values;
  int64_t inner = 1;
};
template <class T>
Axis along_axis(const Tensor<const T>& small, const Shape& x, const Target& target, const char* what);
hwfault_format format_of(const Target& target, const Axis& scale, const Axis& zero_point);

// When the activity of intermittent faults is drawn anew.
enum class Refresh { inference, batch, held };
Refresh refresh_named(const std::string& name);
// The sample numbers of a batch (0 for what has none), or for all of them the first, or 0; throws Error for numbers that
// are not below 2^32.
Few<int64_t> numbers_of(const Units& units, bool batched, int64_t first_sample, Refresh refresh);
// The value of an attribute, if it is from 0 to `most`.
int64_t in_range(int64_t value, const char* attribute, int64_t most);

// The rows of a map as they come in inputs 3 to 5, and the map that points into them.
class Rows {
 public:
  Rows(const Context& context, const Units& units);
  Rows(const Rows&) = delete;
  hwfault_map map;

 private:
  Tensor<const int64_t> word_;
  std::vector<uint32_t> and_mask_, xor_mask_;
};

template <class T>
class TransientFaults {
 public:
  static constexpr const char* name = "TransientFaults";
  static constexpr ElementType type = std::is_same_v<T, float> ? kFloat : kDouble;
  static constexpr std::array inputs{type, type, type, kInt64, kInt64};
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
  static constexpr ElementType type = std::is_same_v<T, float> ? kFloat : kDouble;
  static constexpr std::array inputs{type, type, type, kInt64, kInt64, kInt64, kFloat};
  static constexpr bool in_place = true;
  static constexpr size_t required = 6;  // the last is never read
  explicit FaultMap(const NodeInfo& node) : target_(node) {}
  void compute(const Context& context) const;

 private:
  Target target_;
};

template <class T>
class IntermittentFaults {
 public:
  static constexpr const char* name = "IntermittentFaults";
  static constexpr ElementType type = std::is_same_v<T, float> ? kFloat : kDouble;
  static constexpr std::array inputs{type, type, type, kInt64, kInt64, kInt64, kInt64, kInt64};
  static constexpr bool in_place = true;
  explicit IntermittentFaults(const NodeInfo& node);
  void compute(const Context& context) const;

 private:
  Target target_;
  int64_t threshold_;
  uint32_t site_;
  Refresh refresh_;
};

}  // namespace hwfault::ort
