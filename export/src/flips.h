// The commonest program, one bit process at a low rate, for many blocks at a time. Which words are hit is known before
// any of them is read: their counters go through Philox side by side, and their memory is asked for in time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "program.h"

namespace hwfault {

constexpr int kLanes = 16;

// The four words of so many counters.
struct Counters {
  uint32_t word[4][kLanes];

  void set(int lane, uint32_t quad, uint32_t block_plane, uint32_t sample, uint32_t site) {
    word[0][lane] = quad;
    word[1][lane] = block_plane;
    word[2][lane] = sample;
    word[3][lane] = site;
  }
};

// philox of each counter, in its place.
void philox_lanes(Counters& counters, uint64_t key);
// For each of kLanes words how many of n thresholds it reaches.
void count_lanes(const uint32_t* words, const uint32_t* thresholds, int n, uint32_t* counts);

// The hits in up to kLanes blocks, block by block and in each plane by plane.
class Flips {
 public:
  struct Hit {
    uint16_t word;  // in its block
    uint8_t plane, lane;
    uint32_t aux;
  };

  static bool can_draw(const Program& program) {
    if (program.processes.size() != 1 || program.processes[0].kind != Kind::bit || program.bit_width > kPlanes)
      return false;
    const std::vector<Plane>& planes = program.processes[0].planes;
    return std::all_of(planes.begin(), planes.end(),
                       [](const Plane& p) { return !p.table.every && p.table.length <= kMostHits; });
  }

  Flips(const Program& program, uint64_t seed)
      : process_(program.processes[0]), width_(program.bit_width), seed_(seed) {
    for (int plane = 0; plane < width_; ++plane) {
      const Table& table = process_.planes[plane].table;
      // a threshold of 2^32 is never reached
      for (n_thresholds_[plane] = 0; n_thresholds_[plane] < table.length; ++n_thresholds_[plane]) {
        if (table.thresholds[n_thresholds_[plane]] > int64_t{UINT32_MAX}) break;
        thresholds_[plane][n_thresholds_[plane]] = static_cast<uint32_t>(table.thresholds[n_thresholds_[plane]]);
      }
    }
  }

  // for n lanes: the number of the sample, of the block in it, and how many words the block has
  void draw(const uint32_t* sample, const uint32_t* block, const uint32_t* size, int n) {
    n_calls_ = n_hits_ = 0;
    for (int first = 0; first < width_; first += 4) count(sample, block, n, first);
    for (int lane = 0; lane < n; ++lane)
      for (int plane = 0; plane < width_; ++plane) {
        const auto count = static_cast<uint8_t>(counts_[plane][lane]);
        calls_[n_calls_] = {0, count, static_cast<uint8_t>(plane), static_cast<uint8_t>(lane)};
        n_calls_ += count > 0;  // no branch: it could not be foretold
        for (int left = count - 4, quad = 1; left > 0; left -= 4, ++quad)
          calls_[n_calls_++] = {static_cast<uint8_t>(quad), static_cast<uint8_t>(left), static_cast<uint8_t>(plane),
                                static_cast<uint8_t>(lane)};
      }
    for (int first = 0; first < n_calls_; first += kLanes)
      call(sample, block, size, first, std::min(n_calls_ - first, kLanes));
  }

  const Hit* begin() const { return hits_; }
  const Hit* end() const { return hits_ + n_hits_; }

  // Calls change(word, code before, code after) for the words of one block that its hits change, where encode(word) is
  // the code stored before.
  template <class Encode, class Change>
  void strike(const Hit* first, const Hit* last, Encode encode, Change change) {
    int n = 0;
    for (const Hit* hit = first; hit != last; ++hit) {
      // what index_ holds of earlier blocks does not matter: it is checked against word_
      int at = index_[hit->word];
      if (at >= n || word_[at] != hit->word) {
        at = n++;
        index_[hit->word] = static_cast<uint16_t>(at);
        word_[at] = hit->word;
        before_[at] = encode(hit->word);
        delta_[at] = 0;
      }
      const Plane& plane = process_.planes[hit->plane];
      const bool one = before_[at] >> hit->plane & 1u;
      const bool accepted = one ? hit->aux >= kAcceptAll - plane.accept10 : hit->aux < plane.accept01;
      delta_[at] |= uint32_t{accepted} << hit->plane;
    }
    for (int at = 0; at < n; ++at)
      if (delta_[at]) change(word_[at], before_[at], before_[at] ^ delta_[at]);
  }

 private:
  static constexpr int kPlanes = 8, kMostHits = 64;  // of a plane, in a block
  struct Call {
    uint8_t quad, hits, plane, lane;
  };

  void count(const uint32_t* sample, const uint32_t* block, int n, int first) {
    Counters c{};
    const uint32_t stream = 32 + (first >> 2);
    for (int lane = 0; lane < n; ++lane) c.set(lane, 0, block[lane] << 6 | stream, sample[lane], process_.site);
    philox_lanes(c, seed_);
    for (int plane = first; plane < std::min(first + 4, width_); ++plane)
      count_lanes(c.word[plane & 3], thresholds_[plane], n_thresholds_[plane], counts_[plane]);
  }

  void call(const uint32_t* sample, const uint32_t* block, const uint32_t* size, int first, int n) {
    Counters c{};
    for (int i = 0; i < n; ++i) {
      const Call& made = calls_[first + i];
      c.set(i, made.quad, block[made.lane] << 6 | made.plane, sample[made.lane], process_.site);
    }
    philox_lanes(c, seed_);
    for (int i = 0; i < n; ++i) {
      const Call& made = calls_[first + i];
      for (int k = 0; k < 4; ++k) {
        const uint32_t word = c.word[k][i] & 1023;
        hits_[n_hits_] = {static_cast<uint16_t>(word), made.plane, made.lane, c.word[k][i] >> 10};
        n_hits_ += (k < made.hits) & (word < size[made.lane]);
      }
    }
  }

  const Process& process_;
  int width_;
  uint64_t seed_;
  int n_thresholds_[kPlanes];
  uint32_t thresholds_[kPlanes][kMostHits];
  uint32_t counts_[kPlanes][kLanes];
  int n_calls_ = 0, n_hits_ = 0;
  // one more than there can be, to be written to and not counted
  Call calls_[kLanes * kPlanes * kMostHits / 4 + 1];
  Hit hits_[kLanes * kPlanes * kMostHits + 1];
  uint16_t index_[kBlock] = {};  // of a word among those that are struck
  uint16_t word_[kPlanes * kMostHits];
  uint32_t before_[kPlanes * kMostHits], delta_[kPlanes * kMostHits];
};

}  // namespace hwfault
