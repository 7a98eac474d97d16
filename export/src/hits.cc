#include "hits.h"

#include <algorithm>

#include "clones.h"

namespace hwfault {
namespace {

// What calls are to give: where their hits are but for the word, how many words the block has, and how many hits.
struct Asked {
  uint32_t place[kLanes], size[kLanes], hits[kLanes];
};

// Hit k of each call, and whether there is one; those behind a block's last word are none.
struct Answer {
  Hit hit[4][kLanes];
  uint32_t is_hit[4][kLanes];
};

HWFAULT_CLONES void answer_bits(const Counters& c, const Asked& asked, Answer& answer) {
  for (uint32_t k = 0; k < 4; ++k)
    for (int i = 0; i < kLanes; ++i) {
      const uint32_t word = c.word[k][i] % kBlock;
      answer.hit[k][i] = Hit(asked.place[i] | word, c.word[k][i] >> 10);
      answer.is_hit[k][i] = (k < asked.hits[i]) & (word < asked.size[i]);
    }
}

HWFAULT_CLONES void answer_words(const Counters& c, const Asked& asked, Answer& answer) {
  for (uint32_t k = 0; k < 2; ++k)
    for (int i = 0; i < kLanes; ++i) {
      const uint32_t word = c.word[2 * k][i] % kBlock;
      answer.hit[k][i] = Hit(asked.place[i] | word, c.word[2 * k + 1][i]);
      answer.is_hit[k][i] = (k < asked.hits[i]) & (word < asked.size[i]);
    }
}

}  // namespace

void Hits::start(const Process& process, const Lanes& lanes) {
  process_ = &process, lanes_ = &lanes;
  per_call_ = process.on_bits() ? 4 : 2;
  next_ = {};
  count();
}

bool Hits::next() {
  n_ = 0;
  while (n_ == 0) {  // those behind the last word are none
    const int n_calls = list_calls();
    if (n_calls == 0) return false;
    for (int first = 0; first < n_calls; first += kLanes) make_calls(first, std::min(n_calls - first, kLanes));
  }
  return true;
}

// The count words of four planes come from one call; the calls of all lanes are packed together.
void Hits::count() {
  const auto planes = static_cast<int>(process_->planes.size());
  const uint32_t first = process_->on_bits() ? 0 : kWordPlane;
  const int n_calls = (planes + 3) / 4 * lanes_->n;
  uint32_t words[4][kPlanes / 4 * kLanes + kLanes];  // whole lanes are read from wherever those of a group begin
  for (int at = 0, lane = 0, group = 0; at < n_calls; at += kLanes) {
    Counters c;
    const int n = std::min(n_calls - at, kLanes);
    for (int i = 0; i < n; ++i) {
      c.set(i, 0, lanes_->block[lane] << 6 | (32 + (first >> 2) + group), lanes_->sample[lane], process_->site);
      if (++lane == lanes_->n) lane = 0, ++group;
    }
    c.clear(n);
    philox_lanes(c, seed_);
    for (int k = 0; k < 4; ++k) std::copy(c.word[k], c.word[k] + kLanes, words[k] + at);
  }
  for (int k = 0; k < 4; ++k) std::fill_n(words[k] + (n_calls + kLanes - 1) / kLanes * kLanes, kLanes, 0);
  every_ = false;
  for (int plane = 0; plane < planes; ++plane) {
    const Table& table = process_->planes[plane].table;
    count_lanes(words[(first + plane) & 3] + plane / 4 * lanes_->n, table, counts_[plane]);
    every_ |= table.every;
  }
}

// Lists the next calls to be made, up to kCalls; returns how many there are.
int Hits::list_calls() {
  const auto planes = static_cast<int>(process_->planes.size());
  const int n_lanes = lanes_->n;
  const uint32_t per_call = per_call_;
  auto [lane, plane, quad] = next_;
  int n = 0;
  for (; lane < n_lanes; ++lane, plane = 0)
    for (; plane < planes; ++plane, quad = 0) {
      const uint32_t hits = counts_[plane][lane];
      const auto list = [&, of = static_cast<uint16_t>(plane), in = static_cast<uint16_t>(lane)] {
        calls_[n] = {quad, hits - quad * per_call, of, in};
      };
      list();
      n += quad * per_call < hits;  // no branch: whether there is a first call could not be foretold
      for (++quad; quad * per_call < hits && n < kCalls; ++quad) list(), ++n;
      if (n == kCalls) {
        next_ = {lane, plane, quad};
        return n;
      }
    }
  next_ = {lane, plane, quad};
  return n;
}

// Makes some of the calls listed, and writes the hits that come of them.
void Hits::make_calls(int first, int n) {
  const Call* const calls = calls_ + first;
  const bool on_bits = per_call_ == 4;
  Counters c;
  Asked asked{};
  for (int i = 0; i < n; ++i) {
    const Call& made = calls[i];
    c.set(i, made.quad, lanes_->block[made.lane] << 6 | (on_bits ? made.plane : kWordPlane), lanes_->sample[made.lane],
          process_->site);
    asked.place[i] = Hit::place(made.lane, 0, made.plane);
    asked.size[i] = lanes_->size[made.lane];
    asked.hits[i] = made.hits;
  }
  c.clear(n);
  philox_lanes(c, seed_);
  if (every_) number_hits(c, calls, n);
  Answer answer;
  if (on_bits)
    answer_bits(c, asked, answer);
  else
    answer_words(c, asked, answer);
  int n_hits = n_;
  for (int i = 0; i < n; ++i)
    for (uint32_t k = 0; k < per_call_; ++k) {
      hits_[n_hits] = answer.hit[k][i];
      n_hits += static_cast<int>(answer.is_hit[k][i]);  // no branch here, either
    }
  n_ = n_hits;
}

// Where every cell is hit, hit m has position m.
void Hits::number_hits(Counters& c, const Call* calls, int n) const {
  for (int i = 0; i < n; ++i) {
    if (!process_->planes[calls[i].plane].table.every) continue;
    for (uint32_t k = 0; k < per_call_; ++k) {
      uint32_t& word = c.word[k * 4 / per_call_][i];
      word = (word & ~uint32_t{kBlock - 1}) | (calls[i].quad * per_call_ + k);
    }
  }
}

}  // namespace hwfault
