// QONNX's rounding modes, as loops that the compiler can vectorize.
#pragma once

#include <cmath>
#include <string>

#if defined(__GNUC__)
#define HWFAULT_INLINE inline __attribute__((always_inline))
#define HWFAULT_INLINE_CALL __attribute__((always_inline))
#define HWFAULT_RESTRICT __restrict__
#else
#define HWFAULT_RESTRICT
#define HWFAULT_INLINE inline
#define HWFAULT_INLINE_CALL
#endif

namespace hwfault::ort {

enum class Rounding { half_even, ceil, floor, up, down, half_up, half_down, bipolar };

// The rounding of a mode's name in any case; throws Error, with the names there are, for another.
Rounding rounding_named(std::string mode);

// The integers that there are.
struct Range {
  float least, most;
};

// NumPy's sign: zero for both zeros
HWFAULT_INLINE float sign(float v) { return v > 0 ? 1.0f : v < 0 ? -1.0f : v == 0 ? 0.0f : v; }

// loop(round) for a function that rounds one value
template <class Loop>
HWFAULT_INLINE void with_rounding(Rounding rounding, Loop loop) {
  switch (rounding) {
    case Rounding::half_even: return loop([](float v) { return std::rint(v); });
    case Rounding::ceil: return loop([](float v) { return std::ceil(v); });
    case Rounding::floor: return loop([](float v) { return std::floor(v); });
    case Rounding::up: return loop([](float v) { return sign(v) * std::ceil(std::fabs(v)); });
    case Rounding::down: return loop([](float v) { return std::trunc(v); });
    case Rounding::half_up: return loop([](float v) { return sign(v) * std::floor(std::fabs(v) + 0.5f); });
    case Rounding::half_down: return loop([](float v) { return sign(v) * std::ceil(std::fabs(v) - 0.5f); });
    case Rounding::bipolar: return loop([](float v) { return v >= 0 ? 1.0f : -1.0f; });
  }
}

}  // namespace hwfault::ort
