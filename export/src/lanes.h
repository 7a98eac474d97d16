// The generator for many blocks side by side: their counters go through Philox together, and so do their count words
// through a count table.
#pragma once

#include <cstdint>

#include "stream.h"

namespace hwfault {

constexpr int kLanes = 16;

// Blocks that are drawn together: of which sample each is, which one in it, and how many words it has.
struct Lanes {
  int n = 0;
  uint32_t sample[kLanes], block[kLanes], size[kLanes];
};

// The four words of so many counters.
struct Counters {
  uint32_t word[4][kLanes];

  void set(int lane, uint32_t quad, uint32_t block_plane, uint32_t sample, uint32_t site) {
    word[0][lane] = quad;
    word[1][lane] = block_plane;
    word[2][lane] = sample;
    word[3][lane] = site;
  }
  // for the lanes from `first` on, whose words nobody will read
  void clear(int first) {
    for (int lane = first; lane < kLanes; ++lane) set(lane, 0, 0, 0, 0);
  }
};

// philox of each counter, in its place.
void philox_lanes(Counters& counters, uint64_t key);
// counts[i] = how many hits count word i says there are by the table, for all kLanes of them.
void count_lanes(const uint32_t* words, const Table& table, uint32_t* counts);

}  // namespace hwfault
