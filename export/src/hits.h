// The hits of a process in several blocks at once. All counts come first, then the calls of the generator that these ask
// for, packed as densely as there are lanes whatever block and plane they are of.
#pragma once

#include <cstdint>

#include "lanes.h"
#include "program.h"

namespace hwfault {

// A hit in one number, which compilers write at once.
class Hit {
 public:
  Hit() = default;
  Hit(uint32_t place, uint32_t aux) : bits_(uint64_t{aux} << 32 | place) {}
  static uint32_t place(uint32_t lane, uint32_t word, uint32_t plane) { return plane << 16 | lane << 10 | word; }

  uint16_t cell() const { return static_cast<uint16_t>(bits_); }             // the lane times 1024 plus the word in its block
  uint32_t plane() const { return static_cast<uint32_t>(bits_) >> 16; }      // of a bit or cluster process
  uint32_t aux() const { return static_cast<uint32_t>(bits_ >> 32); }        // as bit_hits and word_hits have it
  void set_aux(uint32_t aux) { *this = Hit(static_cast<uint32_t>(bits_), aux); }

 private:
  uint64_t bits_;
};
inline int lane_of(uint16_t cell) { return cell / kBlock; }
inline uint32_t word_of(uint16_t cell) { return cell % kBlock; }

// Hits that one process has, [from, to).
struct HitsOfOne {
  const Process* process;
  Hit *from, *to;

  Hit* begin() const { return from; }
  Hit* end() const { return to; }
};

class Hits {
 public:
  static constexpr int kCalls = 256;
  static constexpr int kMost = kCalls * 4;

  Hits(const Program& program, uint64_t seed) : program_(program), seed_(seed) {}

  // The hits of all processes in some blocks, which must outlive their drawing.
  void start(const Lanes& lanes);
  // Draws the next ones, up to kMost, or returns false: process by process, in it block by block and plane by plane, in
  // stream order.
  bool next();

  const HitsOfOne* begin() const { return of_; }
  const HitsOfOne* end() const { return of_ + n_of_; }

 private:
  static constexpr int kPlanes = 32;

  // A call of the generator and how many hits there are from it on.
  struct Call {
    uint32_t quad, hits;
    uint16_t plane, lane;
    uint32_t process;
  };
  // Where the next call is.
  struct Place {
    int lane, plane;
    uint32_t quad;
  };

  const Process& process(const Call& call) const { return program_.processes[call.process]; }
  void start_process();
  void count(const Process& process);
  int list_calls();
  int list_calls_of_process(int n);
  int make_calls(const Call* calls, int n);
  void begin_hits_of(const Process& process, Hit* from);
  void number_hits(Counters& c, const Call* calls, int n) const;

  const Program& program_;
  uint64_t seed_;
  const Lanes* lanes_ = nullptr;
  uint32_t process_ = 0;  // whose calls are listed
  bool every_ = false;    // whether some plane has all its cells hit
  Place next_{};
  uint32_t counts_[kPlanes][kLanes];
  // one more than there can be, to be written to and not counted
  Call calls_[kCalls + 1];
  Hit hits_[kMost + 1];
  HitsOfOne of_[kCalls];
  int n_ = 0, n_of_ = 0;
};

}  // namespace hwfault
