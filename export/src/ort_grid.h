// What the quantizing ops share: how they walk over their values, and what they take for a scale and a bit width.
#pragma once

#include "broadcast.h"
#include "clones.h"
#include "rounding.h"

namespace hwfault::ort {

constexpr int64_t kPart = 1 << 15;  // words a thread takes at a time
constexpr int64_t kRow = 256;       // words with a scale each that are taken at a time

// The integers that `bits` bits hold.
Range range_of(float bits, bool is_signed, bool narrow);

// Throws Error unless each of `scale` is finite and not 0; `what` names it.
void check_scale(const Tensor<const float>& scale, const char* what);
// Throws Error unless each of `bits` is finite and not negative.
void check_bits(const Tensor<const float>& bits, const char* what);
float check_bits(float bits, const char* what);

// Calls run(first word, words, offsets) for the parts of runs, of at most `longest` words, that lie in [first, last).
template <class R, class F>
void for_runs(const R& runs, int64_t longest, int64_t first, int64_t last, F run) {
  for (int64_t at = first; at < last;) {
    const int64_t index = at / runs.inner();
    const int64_t end = std::min({last, (index + 1) * runs.inner(), at + longest});
    run(at, end - at, runs.offsets(index, at - index * runs.inner()));
    at = end;
  }
}

}  // namespace hwfault::ort
