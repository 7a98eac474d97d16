#include "copy.h"

#include <cstring>

#include "clones.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace hwfault {
namespace {

constexpr size_t kLine = 64;

}  // namespace

HWFAULT_CLONES void copy_lines(void* to, const void* from, size_t bytes) {
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  size_t at = 0;
  for (; at + kLine <= bytes; at += kLine) std::memcpy(out + at, in + at, kLine);
  std::memcpy(out + at, in + at, bytes - at);
}

#if defined(__SSE2__)
void copy_past_caches(void* to, const void* from, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(__m128i)) return copy_lines(to, from, bytes);
  auto* out = static_cast<__m128i*>(to);
  const auto* in = static_cast<const __m128i*>(from);
  const size_t n = bytes / kLine * (kLine / sizeof(__m128i));
  for (size_t i = 0; i < n; i += 4) {
    const __m128i a = _mm_loadu_si128(in + i), b = _mm_loadu_si128(in + i + 1);
    const __m128i c = _mm_loadu_si128(in + i + 2), d = _mm_loadu_si128(in + i + 3);
    _mm_stream_si128(out + i, a), _mm_stream_si128(out + i + 1, b);
    _mm_stream_si128(out + i + 2, c), _mm_stream_si128(out + i + 3, d);
  }
  std::memcpy(out + n, in + n, bytes % kLine);
}

void end_copies_past_caches() { _mm_sfence(); }
#else
void copy_past_caches(void* to, const void* from, size_t bytes) { copy_lines(to, from, bytes); }
void end_copies_past_caches() {}
#endif

}  // namespace hwfault
