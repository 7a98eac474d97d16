// The fault stream: Philox4x32-10 and the hits of a plane (docs/fault-stream.md, sections 2 to 5).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace hwfault {

constexpr int64_t kBlock = 1024;
constexpr uint32_t kWordPlane = 63;
constexpr uint32_t kAcceptAll = 1u << 22;

using Quad = std::array<uint32_t, 4>;

inline Quad philox(Quad c, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

// A count table inside a fault program: `every` cell is hit, or thresholds to compare a count word with.
struct Table {
  const int64_t* thresholds = nullptr;
  int64_t length = 0;
  int64_t reachable = 0;  // thresholds below 2^32: no word reaches the others
  bool every = false;

  bool empty() const { return !every && length == 0; }
  uint32_t count(uint32_t word) const {
    if (every) return kBlock;
    if (length == 0 || word < thresholds[0]) return 0;
    return static_cast<uint32_t>(std::upper_bound(thresholds, thresholds + length, int64_t{word}) - thresholds);
  }
};

// What the streams of one block of one sample at one site have in common.
struct BlockKey {
  uint64_t seed;
  uint32_t site, sample, block;

  Quad call(uint32_t quad, uint32_t plane) const { return philox({quad, (block << 6) | plane, sample, site}, seed); }
  // the count words of planes 4 g to 4 g + 3
  Quad counts(uint32_t group) const { return call(0, 32 + group); }
};

constexpr int64_t kAlways = int64_t{1} << 32;
// in place of an activity: each row strikes in one period alone, its word is 2^31 times that and the word of the sample
constexpr int64_t kSampled = int64_t{1} << 33;
constexpr int kSampledWordBits = 31;
constexpr uint32_t kActivityPlane = 62;

// The word that decides whether the faulty cell (word, bit) of a site shows its fault in a period: it does where this
// is below the threshold floor(2^32 p_active).
inline uint32_t activity(uint64_t seed, uint32_t site, uint32_t period, int64_t word, uint32_t bit) {
  const uint32_t at = static_cast<uint32_t>(word) & 1023, block = static_cast<uint32_t>(word >> 10);
  return philox({bit * 256 + (at >> 2), (block << 6) | kActivityPlane, period, site}, seed)[at & 3];
}

// Calls hit(position in the block, aux) for each of n hits of a bit plane, in stream order.
template <class Hit>
void bit_hits(const BlockKey& key, uint32_t plane, const Table& table, uint32_t n, Hit hit) {
  for (uint32_t m = 0; m < n; m += 4) {
    const Quad r = key.call(m / 4, plane);
    for (uint32_t i = m; i < std::min(m + 4, n); ++i) hit(table.every ? i : r[i - m] & 1023, r[i - m] >> 10);
  }
}

// The same for words: two stream words a hit, aux is the second as a whole.
template <class Hit>
void word_hits(const BlockKey& key, const Table& table, uint32_t n, Hit hit) {
  for (uint32_t m = 0; m < n; m += 2) {
    const Quad r = key.call(m / 2, kWordPlane);
    for (uint32_t i = m; i < std::min(m + 2, n); ++i)
      hit(table.every ? i : r[2 * (i - m)] & 1023, r[2 * (i - m) + 1]);
  }
}

}  // namespace hwfault
