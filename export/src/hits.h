// The hits of a process in several blocks at once. All counts come first, then the calls of the generator that these ask
// for, packed as densely as there are lanes whatever block and plane they are of.
#pragma once

#include <cstdint>

#include "lanes.h"
#include "program.h"

namespace hwfault {

// no member is of a type that may alias all others (uint8_t), which would have everything read again
struct Hit {
  uint16_t cell;   // the lane times 1024 plus the word in its block
  uint16_t plane;  // of a bit or cluster process
  uint32_t aux;    // as bit_hits and word_hits have it
};
inline int lane_of(uint16_t cell) { return cell / kBlock; }
inline uint32_t word_of(uint16_t cell) { return cell % kBlock; }

class Hits {
 public:
  static constexpr int kCalls = 256;
  static constexpr int kMost = kCalls * 4;

  explicit Hits(uint64_t seed) : seed_(seed) {}

  // The hits of a process in some blocks, which must both outlive their drawing.
  void start(const Process& process, const Lanes& lanes);
  // Draws the next ones, up to kMost, or returns false: block by block and plane by plane, in stream order.
  bool next();

  Hit* begin() { return hits_; }
  Hit* end() { return hits_ + n_; }

 private:
  static constexpr int kPlanes = 32;

  // A call of the generator and how many hits there are from it on.
  struct Call {
    uint32_t quad, hits;
    uint16_t plane, lane;
  };
  // Where the next call is.
  struct Place {
    int lane, plane;
    uint32_t quad;
  };

  void count();
  int list_calls();
  void make_calls(int first, int n);
  void number_hits(Counters& c, const Call* calls, int n) const;

  uint64_t seed_;
  const Process* process_ = nullptr;
  const Lanes* lanes_ = nullptr;
  uint32_t per_call_ = 4;  // hits
  bool every_ = false;     // whether some plane has all its cells hit
  Place next_{};
  uint32_t counts_[kPlanes][kLanes];
  // one more than there can be, to be written to and not counted
  Call calls_[kCalls + 1];
  Hit hits_[kMost + 1];
  int n_ = 0;
};

}  // namespace hwfault
