// Values <-> codes (docs/fault-stream.md, sections 1 and 6) for the four floating types.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwfault.h"
#include "program.h"

namespace hwfault {

// IEEE half and bfloat16 as bit patterns; conversion to them rounds to nearest even.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(BFloat16 x) { return bits_to_float(uint32_t{x.bits} << 16); }
// one of two numbers without a branch, which for halves that are 0 or not could not be foretold
inline uint32_t choose(bool first, uint32_t a, uint32_t b) {
  const uint32_t mask = 0u - first;
  return (a & mask) | (b & ~mask);
}

inline float load(Half x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, rest = x.bits & 0x7FFFu;
  if (rest >= 0x7C00u) return bits_to_float(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
  // subnormal halves by way of an integer: no float32 on the way is subnormal, which threads may flush to zero
  const uint32_t subnormal = float_to_bits(static_cast<float>(static_cast<int32_t>(rest)) * 0x1p-24f);
  return bits_to_float(sign | choose(rest < 0x400u, subnormal, (rest << 13) + 0x38000000u));
}

inline void store(float* to, float v) { *to = v; }
inline void store(double* to, double v) { *to = v; }
inline void store(BFloat16* to, float v) {
  const uint32_t bits = float_to_bits(v);
  const uint32_t quiet = v != v ? 0x400000u : 0u;
  to->bits = static_cast<uint16_t>(((quiet ? bits | quiet : bits + 0x7FFFu + (bits >> 16 & 1u))) >> 16);
}
inline void store(Half* to, float v) {
  const uint32_t bits = float_to_bits(v), sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
  if (rest >= 0x47800000u) {  // too large, infinite or NaN
    to->bits = static_cast<uint16_t>(sign | (rest > 0x7F800000u ? 0x7E00u : 0x7C00u));
    return;
  }
  // subnormal: the addition rounds at the half's last place
  const uint32_t subnormal = float_to_bits(bits_to_float(rest) + 0.5f) - 0x3F000000u;
  const uint32_t rounded = rest + 0xFFFu + (rest >> 13 & 1u);
  to->bits = static_cast<uint16_t>(sign | choose(rest < 0x38800000u, subnormal, (rounded - 0x38000000u) >> 13));
}

// The codes of integers of a width, in two's complement and as they are stored.
class WordFormat {
 public:
  explicit WordFormat(const hwfault_format& format)
      : bit_width_(format.bit_width),
        representation_(format.representation),
        is_signed_(format.is_signed != 0),
        mask_(format.bit_width == 32 ? ~0u : (1u << format.bit_width) - 1),
        top_(is_signed_ && format.bit_width > 1 ? 1u << (format.bit_width - 1) : 0),
        bipolar_(is_signed_ && format.bit_width == 1),
        low_(is_signed_ ? -(int64_t{1} << (format.bit_width - 1)) : 0),
        high_(bipolar_ ? 1 : (int64_t{1} << (format.bit_width - (is_signed_ ? 1 : 0))) - 1) {}

  int64_t low() const { return low_; }
  int64_t high() const { return high_; }
  // the code that is stored of an integer, and the integer of one
  uint32_t code_of(int64_t q) const { return bipolar_ ? q > 0 : stored(static_cast<uint32_t>(q) & mask_); }
  int64_t integer_of(uint32_t code) const { return integer(twos_complement(code)); }

 private:
  // two's complement -> what is stored; the least integer has no sign-magnitude code and shares its neighbour's
  uint32_t stored(uint32_t code) const {
    if (representation_ == HWFAULT_OFFSET_BINARY) return code ^ top_;
    if (representation_ == HWFAULT_TWOS_COMPLEMENT || !(code & top_)) return code;
    return code == top_ ? mask_ : ((0u - code) & mask_) | top_;
  }
  uint32_t twos_complement(uint32_t code) const {
    if (representation_ == HWFAULT_OFFSET_BINARY) return code ^ top_;
    if (representation_ == HWFAULT_TWOS_COMPLEMENT || !(code & top_)) return code;
    return (0u - (code ^ top_)) & mask_;
  }
  int64_t integer(uint32_t code) const {
    if (bipolar_) return code ? 1 : -1;
    const bool negative = is_signed_ && (code >> (bit_width_ - 1) & 1u);
    return int64_t{code} - (negative ? int64_t{1} << bit_width_ : 0);
  }

  int32_t bit_width_, representation_;
  bool is_signed_;
  uint32_t mask_, top_;  // all bits; the sign, 0 if there is none
  bool bipolar_;
  int64_t low_, high_;  // the least and the largest integer
};

// Encodes and decodes the words of one sample: values on the grid of a scale and a zero point.
template <class T, class = void>
class Codec {
 public:
  using Number = std::conditional_t<std::is_same_v<T, double>, double, float>;

  explicit Codec(const hwfault_format& format)
      : format_(format),
        words_(format),
        scale_(static_cast<Number>(format.scale[0])),
        zero_point_(static_cast<Number>(format.zero_point[0])) {}

  // What is not finite is no number of the word's: it has code 0, and no fault changes it.
  static bool is_number(T value) { return std::isfinite(load(value)); }

  // a value that is not finite, or 2^62 and more, has code 0
  uint32_t encode(T value, int64_t word) const {
    const Number rounded = std::rint(load(value) / scale(word) + zero_point(word));
    const bool known = std::fabs(rounded) < Number(int64_t{1} << 62);
    int64_t q = known ? static_cast<int64_t>(rounded) : 0;
    // a 16 bit type holds some integers as a number next to them, which may lie beyond the word's range
    if constexpr (sizeof(T) == 2) q = std::clamp(q, words_.low(), words_.high());
    return words_.code_of(q);
  }

  // The integer of a value that is a number, and the value of an integer.
  int64_t read(T value, int64_t word) const { return words_.integer_of(encode(value, word)); }
  void write(int64_t q, int64_t word, T* to) const { store(to, value_of(q, word)); }

  void decode(uint32_t code, int64_t word, T* to) const { store(to, value_of(words_.integer_of(code), word)); }

  // Whether a value, if it is a number, is that of the code it is read as and not that of a neighbour, too: where the
  // integers lie closer together than the type's numbers some are not.
  bool determines_code(T value, int64_t word) const {
    const Number steps = load(value) / scale(word), reach = std::fabs(steps) + std::fabs(zero_point(word));
    if (reach <= kSurelyHeld || !is_number(value)) return true;
    const int64_t q = read(value, word);
    const auto has_value = [&](int64_t other) {
      T held{};
      store(&held, value_of(other, word));
      return other >= words_.low() && other <= words_.high() && load(held) == load(value);
    };
    return has_value(q) && !has_value(q - 1) && !has_value(q + 1);
  }

 private:
  // Two roundings in decoding and two in encoding move no integer of this size by half a step.
  static constexpr Number kSurelyHeld = Number(int64_t{1} << (std::is_same_v<T, double> ? 49 : 20));

  Number value_of(int64_t q, int64_t word) const {
    return (static_cast<Number>(q) - zero_point(word)) * scale(word);
  }
  static Number pick(const double* values, int64_t n, int64_t inner, int64_t word) {
    return static_cast<Number>(values[word / inner % n]);
  }
  Number scale(int64_t word) const {
    return format_.n_scale == 1 ? scale_ : pick(format_.scale, format_.n_scale, format_.scale_inner, word);
  }
  Number zero_point(int64_t word) const {
    return format_.n_zero_point == 1 ? zero_point_
                                     : pick(format_.zero_point, format_.n_zero_point, format_.zero_point_inner, word);
  }

  hwfault_format format_;
  WordFormat words_;
  Number scale_, zero_point_;  // of the first word
};

// The same for words that are integers themselves: no scale, no rounding. One beyond its width is read modulo 2^width.
template <class T>
class Codec<T, std::enable_if_t<std::is_integral_v<T>>> {
 public:
  explicit Codec(const hwfault_format& format) : words_(format) {}

  static bool is_number(T) { return true; }
  uint32_t encode(T value, int64_t) const { return words_.code_of(value); }
  int64_t read(T value, int64_t word) const { return words_.integer_of(encode(value, word)); }
  void write(int64_t q, int64_t, T* to) const { *to = static_cast<T>(q); }
  void decode(uint32_t code, int64_t word, T* to) const { write(words_.integer_of(code), word, to); }
  bool determines_code(T, int64_t) const { return true; }

 private:
  WordFormat words_;
};

}  // namespace hwfault
