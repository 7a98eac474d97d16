// What the fault ops of domain hwfault do alike: their inputs by name, what they know of the words that they strike, the
// numbers of samples and periods, rows of a map, and how the work is shared out (export/SPEC.md).
#pragma once

#include <array>
#include <limits>
#include <string_view>

#include "ort_axes.h"

namespace hwfault::ort {

constexpr int64_t kUnitsPerPart = 64;

// An input of an op, under its name in export/SPEC.md.
struct Input {
  const char* name;
  ElementType type;
  constexpr explicit operator int() const { return type; }
};

// The place of an input; a name that is none does not compile.
template <size_t n>
constexpr size_t place_of(const std::array<Input, n>& inputs, std::string_view name) {
  for (size_t i = 0; i < n; ++i)
    if (inputs[i].name == name) return i;
  throw "no input has that name";
}

template <class T>
constexpr ElementType kTypeOf = kFloat;
template <>
constexpr ElementType kTypeOf<double> = kDouble;
template <>
constexpr ElementType kTypeOf<int8_t> = kInt8;
template <>
constexpr ElementType kTypeOf<uint8_t> = kUint8;
template <>
constexpr ElementType kTypeOf<int16_t> = kInt16;
template <>
constexpr ElementType kTypeOf<uint16_t> = kUint16;
template <>
constexpr ElementType kTypeOf<int32_t> = kInt32;

// The type of the scale and zero point of words of type T: of integers, which have none, float, with the values 1 and 0.
template <class T>
using Grid = std::conditional_t<std::is_integral_v<T>, float, T>;

// What the fault ops know of the tensor they strike, from their attributes.
struct Target {
  explicit Target(const NodeInfo& node);
  // the same, if words of type T hold its integers; throws Error otherwise
  template <class T>
  static Target holding(const NodeInfo& node) {
    const Target target(node);
    if constexpr (std::is_integral_v<T>)
      target.check_held(std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
    return target;
  }
  void check_held(int64_t least, int64_t most) const;
  int32_t bit_width, is_signed, representation;
  Order order;
};

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

// The seeds under which a batch is struck: one for all of its elements, or one for each. Neighbours with one seed are
// struck together.
class Seeds {
 public:
  // elements [first, last) of the batch
  struct Stretch {
    uint64_t seed;
    int64_t first, last;
  };
  Seeds(uint64_t seed, int64_t batch) : stretches_(1, {seed, 0, batch}) {}
  explicit Seeds(const Tensor<const int64_t>& of_each);
  const Few<Stretch>& stretches() const { return stretches_; }

  // work(number of the stretch, first, last) for those that have some of [first, last), with so many for each element
  template <class F>
  void each(int64_t first, int64_t last, int64_t of_element, F work) const {
    for (size_t i = 0; i < stretches_.size(); ++i) {
      const Stretch& stretch = stretches_.data()[i];
      const int64_t from = std::max(first, stretch.first * of_element), to = std::min(last, stretch.last * of_element);
      if (from < to) work(i, from, to);
    }
  }

 private:
  Few<Stretch> stretches_;
};

// Values along at most one axis of x, as the codec wants them.
struct Axis {
  Few<double> values;
  int64_t inner = 1;
  bool all(double value) const { return std::count(values.begin(), values.end(), value) == values.end() - values.begin(); }
};
template <class G>
Axis along_axis(const Tensor<const G>& small, const Shape& x, const Target& target, const char* what);

// When the activity of intermittent faults is drawn anew.
enum class Refresh { inference, batch, held };

// The attributes of intermittent faults.
struct Activity {
  // throws Error for values out of their range; the threshold must be given where faults are intermittent by all means
  static Activity required(const NodeInfo& node);
  static Activity optional(const NodeInfo& node);
  int64_t threshold;
  uint32_t site;
  Refresh refresh;
};

// The value of an attribute, if it is from 0 to `most`.
int64_t in_range(int64_t value, const char* attribute, int64_t most);

// One run of a fault op: X, how its words stand for codes and where they lie, from the inputs that all have in front.
template <class T>
class Run {
 public:
  // throws Error for a scale or zero point that does not lie along X, and for an X without whole samples
  Run(const Context& context, const Target& target);
  Run(const Run&) = delete;

  // the numbers of a batch's samples, and the periods of its elements; throws Error for numbers, in the input at `place`,
  // that are not below 2^32, or that do not say when a batch began where that matters
  Few<int64_t> samples(size_t place) const;
  Few<int64_t> periods(size_t place, Refresh refresh) const;
  // throws Error for different seeds where all samples read the same values
  Seeds seeds(size_t place) const;
  // throws Error for scales and zero points that are none; it points into this
  hwfault_format format() const;

  // Y, and in it work(where, first, last) for parts of [0, count), `part` of them at a time; where tells the place of a
  // word in X, of which Y is a copy already unless the words lie in order. Throws Error for values that do not tell
  // their codes. Not shared out if `alone`.
  template <class F>
  void strike(T* y, int64_t count, int64_t part, F work, bool alone = false) const {
    in_order(context, target_.order, units, x, y, [&](const auto& where) {
      check_codes_known(where);
      const auto here = [&](int64_t first, int64_t last) { work(where, first, last); };
      if (alone) return here(int64_t{0}, count);
      context.share_out(count, part, here);
    });
  }

  const Context& context;
  const Tensor<const T> x;
  const Units units;

 private:
  template <class Where>
  void check_codes_known(const Where& where) const;
  Few<int64_t> numbers(size_t place, Refresh refresh) const;
  Few<int64_t> count_from(int64_t first_sample, Refresh refresh) const;
  Few<int64_t> numbers_of_each(const Tensor<const int64_t>& given, Refresh refresh) const;
  void check_one_each(const Shape& given, const char* what) const;
  const Target& target_;
  Axis scale_, zero_point_;
};

// Words so wide that some value may be that of two codes are all looked at.
template <class T>
template <class Where>
void Run<T>::check_codes_known(const Where& where) const {
  constexpr int kSurelyKnown = 20;  // bits
  if (!std::is_same_v<T, float> || target_.bit_width <= kSurelyKnown) return;
  const Codec<T> codec(format());
  for (int64_t at = 0; at < x.size(); ++at) {
    const int64_t word = at % units.words;
    const T value = x.data[where(at, word)];
    if (!codec.determines_code(value, word))
      throw Error("word " + std::to_string(word) + " holds " + std::to_string(value) +
                  ", which float32 cannot tell from the value of another code of " +
                  std::to_string(target_.bit_width) + " bits; expected smaller integers, or values of type double");
  }
}

// The rows of a map as they come in three inputs from `place` on, and the map that points into them.
class Rows {
 public:
  // throws Error for masks that are none, or of another number
  Rows(const Context& context, size_t place, const Units& units);
  Rows(const Rows&) = delete;
  hwfault_map map;

 private:
  Tensor<const int64_t> word_;
  std::vector<uint32_t> and_mask_, xor_mask_;
};

}  // namespace hwfault::ort
