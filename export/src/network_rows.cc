#include "network_rows.h"

#include <algorithm>

#include "clones.h"

namespace hwfault {

HWFAULT_CLONES void add_rows(int32_t* sum, const Segment* segments, int64_t count, int64_t n) {
  std::fill(sum, sum + n, 0);
  if (n < kRowBlock) {
    for (int64_t s = 0; s < count; ++s)
      for (int64_t t = 0; t < segments[s].count; ++t) {
        const Term term = segments[s].terms[t];
        for (int64_t i = 0; i < n; ++i) sum[i] += term.change * segments[s].weights[term.row + i];
      }
    return;
  }
  // a block's sums stay in registers
  for (int64_t block = 0; block < n; block += kRowBlock) {
    int32_t total[kRowBlock] = {};
    for (int64_t s = 0; s < count; ++s) {
      const int16_t* weights = segments[s].weights + block;
      const Term* terms = segments[s].terms;
      int64_t t = 0;
      for (; t + 4 <= segments[s].count; t += 4) {
        const int32_t c0 = terms[t].change, c1 = terms[t + 1].change, c2 = terms[t + 2].change, c3 = terms[t + 3].change;
        const int16_t *r0 = weights + terms[t].row, *r1 = weights + terms[t + 1].row;
        const int16_t *r2 = weights + terms[t + 2].row, *r3 = weights + terms[t + 3].row;
        for (int64_t i = 0; i < kRowBlock; ++i) total[i] += c0 * r0[i] + c1 * r1[i] + c2 * r2[i] + c3 * r3[i];
      }
      for (; t < segments[s].count; ++t) {
        const int16_t* row = weights + terms[t].row;
        for (int64_t i = 0; i < kRowBlock; ++i) total[i] += terms[t].change * row[i];
      }
    }
    std::copy(total, total + kRowBlock, sum + block);
  }
}

HWFAULT_CLONES bool leaves(const int32_t* sum, const int32_t* low, const int32_t* high, uint8_t* flags, int64_t n) {
  uint8_t any = 0;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t out = (sum[i] < low[i]) | (sum[i] > high[i]);
    flags[i] = out;
    any |= out;
  }
  return any;
}

HWFAULT_CLONES bool product_leaves(const int32_t* x, int32_t change, const int32_t* low, const int32_t* high,
                                   uint8_t* flags, int64_t n) {
  uint8_t any = 0;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) {
    const int32_t sum = change * x[i];
    const uint8_t out = (sum < low[i]) | (sum > high[i]);
    flags[i] = out;
    any |= out;
  }
  return any;
}

}  // namespace hwfault
