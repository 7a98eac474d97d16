#include "ecc.h"

namespace hwfault {

WordCode::WordCode(int kind, int data_bits) : kind_(kind), data_bits_(data_bits) {
  check_bits_ = kind == HWFAULT_PARITY ? 1 : 2 * data_bits;
  if (kind != HWFAULT_SECDED) return;
  data_bit_at_.fill(-1);
  int position = 1, hamming_bits = 0;
  for (int bit = 0; bit < data_bits; ++position) {
    if ((position & (position - 1)) == 0) {
      ++hamming_bits;
      continue;
    }
    for (int k = 0; k < 7; ++k)
      if (position >> k & 1) covered_[k] |= uint64_t{1} << bit;
    data_bit_at_[position] = static_cast<int8_t>(bit++);
  }
  check_bits_ = hamming_bits + 1;
}

Cells WordCode::store(uint64_t data) const {
  Cells word;
  word.put(0, data_bits_, data);
  if (kind_ == HWFAULT_PARITY) {
    word.put(data_bits_, 1, odd(data));
  } else if (kind_ == HWFAULT_TMR) {
    word.put(data_bits_, data_bits_, data);
    word.put(2 * data_bits_, data_bits_, data);
  } else {
    const uint64_t checks = hamming(data);
    word.put(data_bits_, check_bits_ - 1, checks);
    word.put(cells() - 1, 1, odd(data) ^ odd(checks));
  }
  return word;
}

Reading WordCode::read(const Cells& word) const {
  const uint64_t data = word.take(0, data_bits_);
  if (kind_ == HWFAULT_SECDED) return read_secded(data, word.take(data_bits_, check_bits_));
  if (kind_ == HWFAULT_PARITY)
    return {data, odd(data) != bool(word.take(data_bits_, 1)) ? Verdict::detected : Verdict::clean};
  const uint64_t second = word.take(data_bits_, data_bits_), third = word.take(2 * data_bits_, data_bits_);
  const uint64_t majority = (data & second) | (data & third) | (second & third);
  return {majority, data == second && data == third ? Verdict::clean : Verdict::corrected};
}

Reading WordCode::read_secded(uint64_t data, uint64_t checks) const {
  const int hamming_bits = check_bits_ - 1;
  const bool wrong = odd(data) ^ odd(checks);
  const uint64_t syndrome = hamming(data) ^ (checks & low_bits(hamming_bits));
  if (!wrong) return {data, syndrome ? Verdict::detected : Verdict::clean};
  if (syndrome > static_cast<uint64_t>(data_bits_ + hamming_bits)) return {data, Verdict::detected};
  const int bit = data_bit_at_[syndrome];
  return {bit < 0 ? data : data ^ uint64_t{1} << bit, Verdict::corrected};
}

}  // namespace hwfault
