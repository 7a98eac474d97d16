// The native library's C functions as the extension calls them: at the addresses where Python has loaded them, so that
// there is one copy of the stream.
#pragma once

#include <stdexcept>
#include <string>

#include "hwfault.h"

// Every function that the extension calls, a line each.
#define HWFAULT_CALLED(X)               \
  X(hwfault_error_text)                 \
  X(hwfault_site_new)                   \
  X(hwfault_site_free)                  \
  X(hwfault_site_strike)                \
  X(hwfault_site_strike_strided)        \
  X(hwfault_site_zero)                  \
  X(hwfault_quantize)                   \
  X(hwfault_quantize_gradient)          \
  X(hwfault_quantize_struck)            \
  X(hwfault_quantize_struck_gradient)   \
  X(hwfault_largest)                    \
  X(hwfault_largest_gradient)

namespace hwfault_torch {

struct Library {
#define HWFAULT_POINTER(name) decltype(&::name) name = nullptr;
  HWFAULT_CALLED(HWFAULT_POINTER)
#undef HWFAULT_POINTER
};
extern Library library;

// The result of a C function; throws its text where that is an error.
inline int64_t checked(int64_t result) {
  if (result < 0) throw std::runtime_error(library.hwfault_error_text(result));
  return result;
}

}  // namespace hwfault_torch
