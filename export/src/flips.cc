#include "flips.h"

#include <algorithm>

#include "clones.h"

namespace hwfault {

HWFAULT_CLONES void philox_lanes(Counters& counters, uint64_t key) {
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

HWFAULT_CLONES void count_lanes(const uint32_t* words, const uint32_t* thresholds, int n, uint32_t* counts) {
  uint32_t reached[kLanes] = {};
  for (int i = 0; i < n; ++i)
    for (int lane = 0; lane < kLanes; ++lane) reached[lane] += words[lane] >= thresholds[i];
  std::copy(reached, reached + kLanes, counts);
}

}  // namespace hwfault
