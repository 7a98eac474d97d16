// What the C functions share: errors as codes, types by their numbers, work shared out to threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <numeric>
#include <string>
#include <vector>

#include "inject.h"
#include "parts.h"

namespace hwfault {

constexpr int64_t kFailed = -1;
constexpr int64_t kUnitsPerThread = 256;
constexpr int64_t kMostThreads = 256;  // a pool that cannot have as many threads as asked for may end the process

// What went wrong last in a C function that this thread called.
inline std::string& last_error() {
  thread_local std::string text;
  return text;
}

template <class F>
int64_t guarded(F f) {
  try {
    return f();
  } catch (const std::exception& error) {
    last_error() = error.what();
    return kFailed;
  }
}

// The sum of work(first, last) over [0, count), shared out to at most `threads` threads, to each at least `least`.
template <class F>
int64_t share_out(int64_t count, int64_t threads, F work, int64_t least = kUnitsPerThread) {
  const int64_t parts = std::max<int64_t>(1, std::min({threads, kMostThreads, count / least}));
  if (parts == 1) return work(0, count);
  std::vector<int64_t> sums(parts, 0);
  run_parts(parts, [&](int64_t i) { sums[i] = work(count * i / parts, count * (i + 1) / parts); });
  return std::accumulate(sums.begin(), sums.end(), int64_t{0});
}

// The same for work that returns Changes: the words changed, and in *no_numbers (it may be null) those left as they are.
template <class F>
int64_t share_out_changes(int64_t count, int64_t threads, int64_t* no_numbers, F work,
                          int64_t least = kUnitsPerThread) {
  std::atomic<int64_t> left{0};
  const int64_t changed = share_out(count, threads, [&](int64_t first, int64_t last) {
    const Changes found = work(first, last);
    left += found.no_numbers;
    return found.changed;
  }, least);
  if (no_numbers) *no_numbers = left;
  return changed;
}

// Calls f(T{}) with the type that dtype names.
template <class F>
int64_t with_type(int32_t dtype, F f) {
  switch (dtype) {
    case HWFAULT_FLOAT32: return f(float{});
    case HWFAULT_FLOAT64: return f(double{});
    case HWFAULT_FLOAT16: return f(Half{});
    case HWFAULT_BFLOAT16: return f(BFloat16{});
  }
  throw Error("dtype is " + std::to_string(dtype) + ", expected 0 to 3");
}

// A tensor's pointers may be null only where there are no words.
template <class... P>
void check_present(const Units& units, const P*... pointer) {
  if (units.count() > 0 && !(... && pointer)) throw Error("a pointer to values, codes or sample numbers is null");
}

}  // namespace hwfault
