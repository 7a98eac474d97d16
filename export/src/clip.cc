// Ranges of integers, and their C functions.
#include "clip.h"

#include "calls.h"

namespace hwfault {

void check_range(const hwfault_range& range, const hwfault_format& format) {
  const bool bipolar = format.is_signed && format.bit_width == 1;
  const int64_t least = format.is_signed ? -(int64_t{1} << (format.bit_width - 1)) : 0;
  const int64_t most = bipolar ? 1 : (int64_t{1} << (format.bit_width - (format.is_signed ? 1 : 0))) - 1;
  if (!(least <= range.low && range.low <= range.high && range.high <= most))
    throw Error("a range of " + std::to_string(range.low) + " to " + std::to_string(range.high) +
                ", expected ascending integers from " + std::to_string(least) + " to " + std::to_string(most));
  for (const int64_t q : {range.below, range.above})
    if (q < range.low || q > range.high || (bipolar && q == 0))
      throw Error("integers beyond the range become " + std::to_string(q) + ", expected " + std::to_string(range.low) +
                  " to " + std::to_string(range.high));
}

}  // namespace hwfault

using namespace hwfault;

namespace {

// Checks what a call was given.
Units units_of(const hwfault_range& range, const hwfault_format& format) {
  check_format(format);
  check_draw({0, nullptr, range.batch, range.words, nullptr, 0});
  check_range(range, format);
  return {range.batch, range.words};
}

}  // namespace

extern "C" {

int64_t hwfault_clip(int32_t dtype, const void* x, void* out, const hwfault_range* range, const hwfault_format* format,
                     int32_t threads) {
  return guarded([&] {
    const Units units = units_of(*range, *format);
    check_present(units, x, out);
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      return share_out(units.count(), threads, [&](int64_t first, int64_t last) {
        return write_clipped(static_cast<const T*>(x), static_cast<T*>(out), *range, codec, units, first, last);
      });
    });
  });
}

int64_t hwfault_zero_clipped(int32_t dtype, const void* gradient, void* out, const void* x, const hwfault_range* range,
                             const hwfault_format* format, int32_t threads) {
  return guarded([&] {
    const Units units = units_of(*range, *format);
    check_present(units, gradient, out, x);
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      return share_out(units.count(), threads, [&](int64_t first, int64_t last) {
        return zero_clipped(static_cast<const T*>(gradient), static_cast<T*>(out), static_cast<const T*>(x), *range,
                            codec, units, first, last);
      });
    });
  });
}

}  // extern "C"
