// Codes that protect a memory word: parity, SECDED, TMR (docs/fault-stream.md, "Protected memories").
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "hwfault.h"

namespace hwfault {

inline bool odd(uint64_t bits) {
  for (int shift = 32; shift > 0; shift >>= 1) bits ^= bits >> shift;
  return bits & 1;
}

// the lowest `count` bits, 0 to 64
inline uint64_t low_bits(int count) { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

// The cells of a memory word, in its sub-words.
class Cells {
 public:
  uint32_t& operator[](int sub_word) { return sub_words_[sub_word]; }
  uint32_t operator[](int sub_word) const { return sub_words_[sub_word]; }

  // cells first to first + count - 1, at most 64
  uint64_t take(int first, int count) const {
    uint64_t bits = 0;
    for (int at = 0, n; at < count; at += n) {
      const int offset = (first + at) & 31;
      n = std::min(32 - offset, count - at);
      bits |= (sub_words_[(first + at) >> 5] >> offset & low_bits(n)) << at;
    }
    return bits;
  }

  // sets those cells, which must be 0
  void put(int first, int count, uint64_t bits) {
    for (int at = 0, n; at < count; at += n) {
      const int offset = (first + at) & 31;
      n = std::min(32 - offset, count - at);
      sub_words_[(first + at) >> 5] |= static_cast<uint32_t>(bits >> at & low_bits(n)) << offset;
    }
  }

 private:
  std::array<uint32_t, 8> sub_words_{};
};

enum class Verdict { clean, corrected, detected };

struct Reading {
  uint64_t data;
  Verdict verdict;
};

// Stores data bits with check bits, and reads them again. `kind` and `data_bits` must be in range.
class WordCode {
 public:
  WordCode(int kind, int data_bits);
  int cells() const { return data_bits_ + check_bits_; }
  Cells store(uint64_t data) const;
  Reading read(const Cells& word) const;

 private:
  uint64_t hamming(uint64_t data) const {
    uint64_t checks = 0;
    for (int k = 0; k < check_bits_ - 1; ++k) checks |= uint64_t{odd(data & covered_[k])} << k;
    return checks;
  }
  Reading read_secded(uint64_t data, uint64_t checks) const;

  int kind_, data_bits_, check_bits_;
  std::array<uint64_t, 7> covered_{};      // data bits that each Hamming check bit covers
  std::array<int8_t, 128> data_bit_at_{};  // of each position; -1 for check bits
};

}  // namespace hwfault
