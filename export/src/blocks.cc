#include "blocks.h"

#include <algorithm>
#include <numeric>

namespace hwfault {
namespace {

// how many words of a block can be struck at most
int64_t most_struck(const Program& program) {
  int64_t most = 0;
  for (const Process& process : program.processes)
    for (const Plane& plane : process.planes) {
      const int64_t hits = plane.table.every ? kBlock : std::min(plane.table.reachable, kBlock);
      most += hits * (process.along_words ? process.n_sizes + 1 : 1);
    }
  return std::clamp<int64_t>(most, 1, kBlock);
}

// how many cells a cluster strikes
uint32_t size_of(const Process& process, int64_t aux) {
  constexpr int64_t kFew = 8;
  const int64_t* const sizes = process.sizes;
  if (process.n_sizes > kFew)
    return static_cast<uint32_t>(1 + (std::upper_bound(sizes, sizes + process.n_sizes, aux) - sizes));
  uint32_t size = 1;
  for (int64_t i = 0; i < process.n_sizes; ++i) size += sizes[i] <= aux;  // no branch to be foretold
  return size;
}

}  // namespace

Blocks::Blocks(const Program& program, uint64_t seed, int64_t blocks)
    : program_(program),
      hits_(program, seed),
      most_(static_cast<int>(std::clamp<int64_t>(kStruck / most_struck(program), 1, std::min<int64_t>(blocks, kLanes)))) {
}

Blocks::Found& Blocks::found_in_thread() {
  thread_local Found found;
  return found;
}

void Blocks::settle(const Process& process) {
  if (process_ == &process) return;
  process_ = &process;
  for (int i = 0; i < n_; ++i) now_[i] ^= delta_[i], delta_[i] = 0;
}

void Blocks::find(const HitsOfOne& hits, const Lanes& lanes) {
  if (hits.process->kind == Kind::cluster) return burst(hits, lanes);
  int n = n_, i = 0;
  for (const Hit& hit : hits) at_[i++] = static_cast<uint16_t>(place(hit.cell(), n));
  n_ = n;
}

// Which of the n struck words a word is, or becomes.
int Blocks::place(uint16_t cell, int& n) {
  // an index of an earlier call does not matter: it is checked against what was struck in this one
  const int index = found_->index[cell];
  const bool known = (index < n) & (found_->cell[index] == cell);
  found_->cell[n] = cell, delta_[n] = 0;  // no branch: of a known one this is written behind all others, and not counted
  const int at = known ? index : n;
  found_->index[cell] = static_cast<uint16_t>(at);
  n += !known;
  return at;
}

void Blocks::flip(const HitsOfOne& hits) {
  const Process& process = *hits.process;
  switch (process.kind) {
    case Kind::bit: return flip_bits(hits);
    case Kind::cluster: return;  // which does not depend on what is stored
    case Kind::mask: return replace(hits, [&](uint32_t code, uint32_t) { return process.flips(code); });
    case Kind::late:
      return replace(hits, [&](uint32_t code, uint32_t earlier) { return (code ^ earlier) & process.mask; });
    case Kind::random: {
      const uint32_t mask = program_.code_mask();
      return replace(hits, [&](uint32_t code, uint32_t v) {
        const auto other = code + 1 + static_cast<uint32_t>(uint64_t{v} * mask >> 32);
        return code ^ (other & mask);
      });
    }
  }
}

void Blocks::flip_bits(const HitsOfOne& hits) {
  const Plane* const planes = hits.process->planes.data();
  int i = 0;
  for (const Hit hit : hits) {
    const Plane& plane = planes[hit.plane()];
    // no branch: which bit is stored could not be foretold
    const uint32_t one = now_[at_[i]] >> hit.plane() & 1u;
    const uint32_t of_one = hit.aux() >= kAcceptAll - plane.accept10, of_zero = hit.aux() < plane.accept01;
    delta_[at_[i++]] |= ((one & of_one) | (~one & of_zero)) << hit.plane();
  }
}

// The last of several hits on a word stands: each sees what the processes before have left.
template <class FlipsOf>
void Blocks::replace(const HitsOfOne& hits, FlipsOf flips_of) {
  int i = 0;
  for (const Hit& hit : hits) {
    const uint16_t at = at_[i++];
    delta_[at] = flips_of(now_[at], hit.aux());
  }
}

void Blocks::burst(const HitsOfOne& hits, const Lanes& lanes) {
  const Process& process = *hits.process;
  int n = n_;
  for (const Hit& hit : hits) {
    const uint32_t size = size_of(process, hit.aux());
    const uint32_t plane = hit.plane(), left = lanes.size[lane_of(hit.cell())] - word_of(hit.cell());
    const uint32_t words = process.along_words ? std::min(size, left) : 1;
    const uint32_t bits = process.along_words ? 1 : std::min<uint32_t>(size, program_.bit_width - plane);
    const auto flips = static_cast<uint32_t>(((uint64_t{1} << bits) - 1) << plane);
    for (uint32_t i = 0; i < words; ++i) delta_[place(static_cast<uint16_t>(hit.cell() + i), n)] |= flips;
  }
  n_ = n;
}

void Blocks::sort() {
  uint16_t order[kStruck];
  std::iota(order, order + n_, uint16_t{0});
  std::sort(order, order + n_, [&](uint16_t a, uint16_t b) { return found_->cell[a] < found_->cell[b]; });
  const auto arrange = [&](auto* values) {
    std::remove_reference_t<decltype(*values)> sorted[kStruck];
    std::transform(order, order + n_, sorted, [&](uint16_t at) { return values[at]; });
    std::copy_n(sorted, n_, values);
  };
  arrange(found_->cell), arrange(before_), arrange(now_), arrange(delta_);
}

}  // namespace hwfault
