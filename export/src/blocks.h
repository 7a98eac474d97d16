// Striking the words of several blocks at once: only words that are hit are ever decoded.
#pragma once

#include <cstdint>

#include "hits.h"

namespace hwfault {

// The codes of up to most() blocks while the processes of a program change them, one after the other.
class Blocks {
 public:
  // for calls with no more than so many blocks
  Blocks(const Program& program, uint64_t seed, int64_t blocks);

  int most() const { return most_; }

  // Calls change(lane, word, code before, code after) for each word whose code differs after all processes, where
  // encode(lane, word) is the code stored before, also for words outside of the block (negative ones lie before it),
  // and ask(lane, word) is called some time before it. They are ascending, if asked for, else in any order.
  template <class Ask, class Encode, class Change>
  void strike(const Lanes& lanes, Ask ask, Encode encode, Change change, bool ascending = false) {
    n_ = 0;
    process_ = nullptr;
    found_ = &found_in_thread();
    for (hits_.start(lanes); hits_.next();) {
      for (const HitsOfOne& hits : hits_)
        for (const Hit& hit : hits) ask(lane_of(hit.cell()), word_of(hit.cell()));
      for (const HitsOfOne& hits : hits_) take(hits, lanes, encode);
    }
    if (ascending) sort();
    const uint16_t* const cell = found_->cell;
    for (int i = 0; i < n_; ++i)
      if (const uint32_t after = now_[i] ^ delta_[i]; after != before_[i])
        change(lane_of(cell[i]), word_of(cell[i]), before_[i], after);
  }

 private:
  static constexpr int64_t kStruck = 8192;

  // Which words are struck, and the index of each word among them. What earlier calls left there does not matter: a
  // thread clears it but once, as it is larger than all else that most calls touch.
  struct Found {
    uint16_t cell[kStruck + 1];
    uint16_t index[kLanes * kBlock];
  };

  template <class Encode>
  void take(const HitsOfOne& hits, const Lanes& lanes, Encode encode) {
    settle(*hits.process);
    const int known = n_;
    find(hits, lanes);
    const uint16_t* const cell = found_->cell;
    for (int i = known; i < n_; ++i) before_[i] = now_[i] = encode(lane_of(cell[i]), word_of(cell[i]));
    if (hits.process->kind == Kind::late) read_earlier(hits, lanes, encode);
    flip(hits);
  }

  // The code that the processing element of each hit's word produced before, instead of the hit's aux.
  template <class Encode>
  static void read_earlier(const HitsOfOne& hits, const Lanes& lanes, Encode encode) {
    for (Hit& hit : hits) {
      const int lane = lane_of(hit.cell());
      const int64_t first = int64_t{lanes.block[lane]} * kBlock;
      const int64_t word = hits.process->previous(first + word_of(hit.cell()));
      hit.set_aux(word < 0 ? 0u : encode(lane, word - first));
    }
  }

  static Found& found_in_thread();
  // What the processes before this one have flipped is what it finds.
  void settle(const Process& process);
  // Which of the struck words each hit is on; those that were not struck before come behind the others.
  void find(const HitsOfOne& hits, const Lanes& lanes);
  // What the hits flip in the words that they are on.
  void flip(const HitsOfOne& hits);
  void sort();

  int place(uint16_t cell, int& n);
  void burst(const HitsOfOne& hits, const Lanes& lanes);
  void flip_bits(const HitsOfOne& hits);
  template <class FlipsOf>
  void replace(const HitsOfOne& hits, FlipsOf flips_of);

  const Program& program_;
  Hits hits_;
  int most_;
  int n_ = 0;
  const Process* process_ = nullptr;  // the present one
  Found* found_ = nullptr;
  // of each word that is hit: its code before all processes, before the present one, and what this one flips; there is
  // room for one more than there can be
  uint32_t before_[kStruck], now_[kStruck], delta_[kStruck + 1];
  uint16_t at_[Hits::kMost];         // of a hit's word among them
};

}  // namespace hwfault
