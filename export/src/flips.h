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
  // for the lanes from `first` on, whose words nobody will read
  void clear(int first) {
    for (int lane = first; lane < kLanes; ++lane) set(lane, 0, 0, 0, 0);
  }
};

constexpr int kMostHits = 64;  // of a plane, in a block

// The thresholds of a plane's count table that a word can reach.
struct Thresholds {
  int n = 0;
  uint32_t value[kMostHits];
};

// philox of each counter, in its place.
void philox_lanes(Counters& counters, uint64_t key);
// counts[i][lane] = how many of thresholds[i] the word i of a lane's counter reaches, for i below n.
void count_lanes(const Counters& counters, const Thresholds* thresholds, int n, uint32_t (*counts)[kLanes]);

// The hits in up to kLanes blocks, block by block and in each plane by plane.
class Flips {
 public:
  // no member is of a type that may alias all others (uint8_t), which would have everything read again
  struct Hit {
    uint16_t cell;  // the lane times 1024 plus the word in its block
    uint16_t plane;
    uint32_t aux;
  };
  static int lane_of(uint16_t cell) { return cell / kBlock; }
  static uint32_t word_of(uint16_t cell) { return cell % kBlock; }

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
      Thresholds& reached = thresholds_[plane];
      // a threshold of 2^32 never is
      while (reached.n < table.length && table.thresholds[reached.n] <= int64_t{UINT32_MAX}) {
        reached.value[reached.n] = static_cast<uint32_t>(table.thresholds[reached.n]);
        ++reached.n;
      }
    }
  }

  // for n lanes: the number of the sample, of the block in it, and how many words the block has
  void draw(const uint32_t* sample, const uint32_t* block, const uint32_t* size, int n) {
    for (int first = 0; first < width_; first += 4) count(sample, block, n, first);
    int n_calls = 0;
    for (int lane = 0; lane < n; ++lane)
      for (int plane = 0; plane < width_; ++plane) {
        const int count = static_cast<int>(counts_[plane][lane]);
        const auto of = static_cast<uint16_t>(plane), in = static_cast<uint16_t>(lane);
        calls_[n_calls] = {0, static_cast<uint16_t>(count), of, in};
        n_calls += count > 0;  // no branch: it could not be foretold
        for (int left = count - 4, quad = 1; left > 0; left -= 4, ++quad)
          calls_[n_calls++] = {static_cast<uint16_t>(quad), static_cast<uint16_t>(left), of, in};
      }
    n_hits_ = 0;
    for (int first = 0; first < n_calls; first += kLanes)
      call(sample, block, size, first, std::min(n_calls - first, kLanes));
  }

  const Hit* begin() const { return hits_; }
  const Hit* end() const { return hits_ + n_hits_; }

  // Calls change(lane, word, code before, code after) for the words that the hits change, where encode(lane, word) is
  // the code stored before. All blocks go through one loop: where one block's hits end cannot be foretold.
  template <class Encode, class Change>
  void strike(Encode encode, Change change) {
    const Plane* const planes = process_.planes.data();
    int n = 0;
    for (const Hit& hit : *this) {
      // an index of an earlier block or draw does not matter: it is checked against what was struck there
      uint16_t& index = index_[word_of(hit.cell)];
      int at = index;
      if (at >= n || struck_[at].cell != hit.cell) {
        at = n++;
        index = static_cast<uint16_t>(at);
        struck_[at] = {hit.cell, static_cast<uint16_t>(encode(lane_of(hit.cell), word_of(hit.cell))), 0};
      }
      Struck& struck = struck_[at];
      const Plane& plane = planes[hit.plane];
      // no branch: which bit is stored could not be foretold
      const uint32_t one = uint32_t{struck.before} >> hit.plane & 1u;
      const uint32_t of_one = hit.aux >= kAcceptAll - plane.accept10, of_zero = hit.aux < plane.accept01;
      struck.delta = static_cast<uint16_t>(struck.delta | ((one & of_one) | (~one & of_zero)) << hit.plane);
    }
    for (const Struck* s = struck_; s != struck_ + n; ++s)
      if (s->delta) change(lane_of(s->cell), word_of(s->cell), uint32_t{s->before}, uint32_t{s->before} ^ s->delta);
  }

 private:
  static constexpr int kPlanes = 8;
  struct Call {
    uint16_t quad, hits, plane, lane;
  };
  struct Struck {
    uint16_t cell, before, delta;  // codes have kPlanes bits at most
  };

  void count(const uint32_t* sample, const uint32_t* block, int n, int first) {
    Counters c;
    const uint32_t stream = 32 + (first >> 2);
    for (int lane = 0; lane < n; ++lane) c.set(lane, 0, block[lane] << 6 | stream, sample[lane], process_.site);
    c.clear(n);
    philox_lanes(c, seed_);
    count_lanes(c, thresholds_ + first, std::min(4, width_ - first), counts_ + first);
  }

  void call(const uint32_t* sample, const uint32_t* block, const uint32_t* size, int first, int n) {
    Counters c;
    for (int i = 0; i < n; ++i) {
      const Call& made = calls_[first + i];
      c.set(i, made.quad, block[made.lane] << 6 | made.plane, sample[made.lane], process_.site);
    }
    c.clear(n);
    philox_lanes(c, seed_);
    int n_hits = n_hits_;
    for (int i = 0; i < n; ++i) {
      const Call& made = calls_[first + i];
      for (int k = 0; k < 4; ++k) {
        const uint32_t word = c.word[k][i] & 1023;
        hits_[n_hits] = {static_cast<uint16_t>(made.lane * kBlock + word), made.plane, c.word[k][i] >> 10};
        n_hits += (k < made.hits) & (word < size[made.lane]);
      }
    }
    n_hits_ = n_hits;
  }

  const Process& process_;
  int width_;
  uint64_t seed_;
  Thresholds thresholds_[kPlanes];
  uint32_t counts_[kPlanes][kLanes];
  int n_hits_ = 0;
  // one more than there can be, to be written to and not counted
  Call calls_[kLanes * kPlanes * kMostHits / 4 + 1];
  Hit hits_[kLanes * kPlanes * kMostHits + 1];
  uint16_t index_[kBlock] = {};  // of a word among those that are struck, the last one if it is so in several blocks
  Struck struck_[kLanes * kPlanes * kMostHits];
};

}  // namespace hwfault
