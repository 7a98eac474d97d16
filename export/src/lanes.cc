#include "lanes.h"

#include <algorithm>

#include "clones.h"

// a build that has one version of each function has no special ones either
#if defined(__GNUC__) && defined(__x86_64__) && !defined(HWFAULT_ONE_VERSION)
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of those functions: gcc.gnu.org/PR105593
#endif
#define HWFAULT_AVX512
#endif

namespace hwfault {
namespace {

#if defined(HWFAULT_AVX512)
// Words stay in the lower halves of 64 bits, where the multiplication finds them; what is above them does not matter.
// Compilers move all words together and apart again in each round instead.
__attribute__((target("avx512f"))) void philox_wide(Counters& counters, uint64_t key) {
  constexpr int kHalf = kLanes / 2;
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
  __m512i w[4][2];
  for (int i = 0; i < 4; ++i)
    for (int half = 0; half < 2; ++half)
      w[i][half] = _mm512_cvtepu32_epi64(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(counters.word[i] + half * kHalf)));
  for (uint32_t round = 0; round < 10; ++round) {
    const __m512i k0 = _mm512_set1_epi64(static_cast<uint32_t>(key) + round * 0x9E3779B9);
    const __m512i k1 = _mm512_set1_epi64(static_cast<uint32_t>(key >> 32) + round * 0xBB67AE85);
    for (int half = 0; half < 2; ++half) {
      const __m512i p0 = _mm512_mul_epu32(m0, w[0][half]), p1 = _mm512_mul_epu32(m1, w[2][half]);
      w[0][half] = _mm512_xor_si512(_mm512_srli_epi64(p1, 32), _mm512_xor_si512(w[1][half], k0));
      w[1][half] = p1;
      w[2][half] = _mm512_xor_si512(_mm512_srli_epi64(p0, 32), _mm512_xor_si512(w[3][half], k1));
      w[3][half] = p0;
    }
  }
  for (int i = 0; i < 4; ++i)
    for (int half = 0; half < 2; ++half)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(counters.word[i] + half * kHalf), _mm512_cvtepi64_epi32(w[i][half]));
}
#endif

HWFAULT_CLONES void philox_each(Counters& counters, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int lane = 0; lane < kLanes; ++lane) {
      uint32_t* const c[4] = {&counters.word[0][lane], &counters.word[1][lane], &counters.word[2][lane],
                              &counters.word[3][lane]};
      const uint64_t p0 = uint64_t{0xD2511F53} * *c[0], p1 = uint64_t{0xCD9E8D57} * *c[2];
      *c[0] = static_cast<uint32_t>(p1 >> 32) ^ *c[1] ^ k0;
      *c[1] = static_cast<uint32_t>(p1);
      *c[2] = static_cast<uint32_t>(p0 >> 32) ^ *c[3] ^ k1;
      *c[3] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
}

// Up to so many thresholds are compared one after the other with all words, more are searched for each.
constexpr int64_t kFewThresholds = 256;

HWFAULT_CLONES void count_few(const uint32_t* words, const int64_t* thresholds, int64_t n, uint32_t* counts) {
  uint32_t word[kLanes], reached[kLanes] = {};
  std::copy(words, words + kLanes, word);
  for (int64_t i = 0; i < n; ++i) {
    const auto threshold = static_cast<uint32_t>(thresholds[i]);
    for (int lane = 0; lane < kLanes; ++lane) reached[lane] += word[lane] >= threshold;
  }
  std::copy(reached, reached + kLanes, counts);
}

}  // namespace

void philox_lanes(Counters& counters, uint64_t key) {
#if defined(HWFAULT_AVX512)
  static const bool wide = __builtin_cpu_supports("avx512f");
  if (wide) return philox_wide(counters, key);
#endif
  philox_each(counters, key);
}

void count_lanes(const uint32_t* words, const Table& table, uint32_t* counts) {
  if (table.every || table.reachable > kFewThresholds)
    std::transform(words, words + kLanes, counts, [&](uint32_t word) { return table.count(word); });
  else
    count_few(words, table.thresholds, table.reachable, counts);
}

}  // namespace hwfault
