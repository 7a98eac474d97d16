#include "network_rows.h"

#include <algorithm>

#include "clones.h"

namespace hwfault {

HWFAULT_CLONES void add_rows(int32_t* sum, const Term* terms, int64_t count, const int16_t* weights, int64_t n) {
  std::fill(sum, sum + n, 0);
  int64_t t = 0;
  for (; t + 4 <= count; t += 4) {
    const int32_t c0 = terms[t].change, c1 = terms[t + 1].change, c2 = terms[t + 2].change, c3 = terms[t + 3].change;
    const int16_t *r0 = weights + terms[t].row, *r1 = weights + terms[t + 1].row;
    const int16_t *r2 = weights + terms[t + 2].row, *r3 = weights + terms[t + 3].row;
    HWFAULT_EACH_ALONE
    for (int64_t i = 0; i < n; ++i) sum[i] += c0 * r0[i] + c1 * r1[i] + c2 * r2[i] + c3 * r3[i];
  }
  for (; t < count; ++t) {
    const int32_t change = terms[t].change;
    const int16_t* row = weights + terms[t].row;
    HWFAULT_EACH_ALONE
    for (int64_t i = 0; i < n; ++i) sum[i] += change * row[i];
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
