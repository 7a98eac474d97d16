// Rows of weights added up: what changed inputs add to the sums of the channels of a group, side by side.
#pragma once

#include <cstdint>
#include <cstring>

namespace hwfault {

constexpr int64_t kRowBlock = 16;  // channels that are added up at a time

struct Term {
  int32_t row;     // where its weights begin
  int32_t change;  // what they are multiplied by
};

// Terms that have their rows among the same weights.
struct Segment {
  const Term* terms;
  int64_t count;
  const int16_t* weights;
};

// sum[i] = all terms' weights times their changes, for n channels: whole blocks, or fewer than half of one.
void add_rows(int32_t* sum, const Segment* segments, int64_t count, int64_t n);

// flags[i] = whether sum[i] lies outside of low[i] to high[i]; returns whether any does
bool leaves(const int32_t* sum, const int32_t* low, const int32_t* high, uint8_t* flags, int64_t n);

// flags[i] = whether change * x[i] lies outside of low[i] to high[i]; returns whether any does
bool product_leaves(const int32_t* x, int32_t change, const int32_t* low, const int32_t* high, uint8_t* flags,
                    int64_t n);

// Calls f(i) for each i whose flag is set, in their order.
template <class F>
void for_each_flag(const uint8_t* flags, int64_t n, F f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, flags + i, 8);
    if (!eight) continue;
    for (int64_t k = i; k < i + 8; ++k)
      if (flags[k]) f(k);
  }
  for (; i < n; ++i)
    if (flags[i]) f(i);
}

}  // namespace hwfault
