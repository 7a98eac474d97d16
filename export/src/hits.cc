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

uint32_t hits_per_call(const Process& process) { return process.on_bits() ? 4 : 2; }

}  // namespace

void Hits::start(const Lanes& lanes) {
  lanes_ = &lanes;
  process_ = 0;
  every_ = false;
  if (!program_.processes.empty()) start_process();
}

bool Hits::next() {
  n_ = n_of_ = 0;
  while (n_ == 0) {  // those behind the last word are none
    const int n_calls = list_calls();
    if (n_calls == 0) return false;
    for (int made = 0; made < n_calls;) made += make_calls(calls_ + made, n_calls - made);
  }
  return true;
}

void Hits::start_process() {
  next_ = {};
  count(program_.processes[process_]);
}

// The count words of four planes come from one call; the calls of all lanes are packed together.
void Hits::count(const Process& process) {
  const auto planes = static_cast<int>(process.planes.size());
  const uint32_t first = process.on_bits() ? 0 : kWordPlane;
  const int n_calls = (planes + 3) / 4 * lanes_->n;
  uint32_t words[4][kPlanes / 4 * kLanes + kLanes];  // whole lanes are read from wherever those of a group begin
  for (int at = 0, lane = 0, group = 0; at < n_calls; at += kLanes) {
    Counters c;
    const int n = std::min(n_calls - at, kLanes);
    for (int i = 0; i < n; ++i) {
      c.set(i, 0, lanes_->block[lane] << 6 | (32 + (first >> 2) + group), lanes_->sample[lane], process.site);
      if (++lane == lanes_->n) lane = 0, ++group;
    }
    c.clear(n);
    philox_lanes(c, seed_);
    for (int k = 0; k < 4; ++k) std::copy(c.word[k], c.word[k] + kLanes, words[k] + at);
  }
  for (int k = 0; k < 4; ++k) std::fill_n(words[k] + (n_calls + kLanes - 1) / kLanes * kLanes, kLanes, 0);
  for (int plane = 0; plane < planes; ++plane) {
    const Table& table = process.planes[plane].table;
    count_lanes(words[(first + plane) & 3] + plane / 4 * lanes_->n, table, counts_[plane]);
    every_ |= table.every;
  }
}

// Lists the next calls to be made, up to kCalls, of as many processes as there is room for; returns how many there are.
int Hits::list_calls() {
  const auto processes = static_cast<uint32_t>(program_.processes.size());
  int n = 0;
  while (process_ < processes) {
    n = list_calls_of_process(n);
    if (n == kCalls) return n;
    if (++process_ < processes) start_process();
  }
  return n;
}

// The same behind n that are listed, of one process.
int Hits::list_calls_of_process(int n) {
  const Process& process = program_.processes[process_];
  const auto planes = static_cast<int>(process.planes.size());
  const int n_lanes = lanes_->n;
  const uint32_t per_call = hits_per_call(process), number = process_;
  auto [lane, plane, quad] = next_;
  for (; lane < n_lanes; ++lane, plane = 0)
    for (; plane < planes; ++plane, quad = 0) {
      const uint32_t hits = counts_[plane][lane];
      const auto list = [&, of = static_cast<uint16_t>(plane), in = static_cast<uint16_t>(lane)] {
        calls_[n] = {quad, hits - quad * per_call, of, in, number};
      };
      list();
      n += quad * per_call < hits;  // no branch: whether there is a first call could not be foretold
      for (++quad; quad * per_call < hits && n < kCalls; ++quad) list(), ++n;
      if (n == kCalls) {
        next_ = {lane, plane, quad};
        return n;
      }
    }
  return n;
}

// Makes as many of the n calls listed as can be made at once, and writes the hits that come of them; returns how many.
int Hits::make_calls(const Call* calls, int n) {
  const Process* of = &process(calls[0]);
  const bool on_bits = of->on_bits();
  Counters c;
  Asked asked{};
  int made = 0;
  for (; made < std::min(n, kLanes); ++made) {
    const Call& call = calls[made];
    if (made > 0 && call.process != calls[made - 1].process) of = &process(call);
    if (of->on_bits() != on_bits) break;
    c.set(made, call.quad, lanes_->block[call.lane] << 6 | (on_bits ? call.plane : kWordPlane),
          lanes_->sample[call.lane], of->site);
    asked.place[made] = Hit::place(call.lane, 0, call.plane);
    asked.size[made] = lanes_->size[call.lane];
    asked.hits[made] = call.hits;
  }
  c.clear(made);
  philox_lanes(c, seed_);
  if (every_) number_hits(c, calls, made);
  Answer answer;
  if (on_bits)
    answer_bits(c, asked, answer);
  else
    answer_words(c, asked, answer);
  const int per_call = on_bits ? 4 : 2;
  int n_hits = n_;
  for (int i = 0; i < made; ++i) {
    if (i == 0 || calls[i].process != calls[i - 1].process) begin_hits_of(process(calls[i]), hits_ + n_hits);
    for (int k = 0; k < per_call; ++k) {
      hits_[n_hits] = answer.hit[k][i];
      n_hits += static_cast<int>(answer.is_hit[k][i]);  // no branch here, either
    }
  }
  n_ = n_hits;
  of_[n_of_ - 1].to = hits_ + n_hits;
  return made;
}

// The hits from here on are of a process, which may be the one of those before.
void Hits::begin_hits_of(const Process& process, Hit* from) {
  if (n_of_ > 0 && of_[n_of_ - 1].process == &process) return;
  if (n_of_ > 0) of_[n_of_ - 1].to = from;
  of_[n_of_++] = {&process, from, from};
}

// Where every cell is hit, hit m has position m.
void Hits::number_hits(Counters& c, const Call* calls, int n) const {
  for (int i = 0; i < n; ++i) {
    const Process& of = process(calls[i]);
    if (!of.planes[calls[i].plane].table.every) continue;
    const uint32_t per_call = hits_per_call(of);
    for (uint32_t k = 0; k < per_call; ++k) {
      uint32_t& word = c.word[k * 4 / per_call][i];
      word = (word & ~uint32_t{kBlock - 1}) | (calls[i].quad * per_call + k);
    }
  }
}

}  // namespace hwfault
