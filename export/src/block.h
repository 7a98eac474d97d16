// Striking the words of one block: only words that are hit are ever decoded.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "program.h"

namespace hwfault {

// A set of words of a block, kept in the order in which they came.
class WordSet {
 public:
  void clear() {
    std::memset(member_, 0, sizeof member_);
    size_ = 0;
  }
  bool insert(uint32_t word) {
    const uint64_t bit = uint64_t{1} << (word & 63);
    if (member_[word >> 6] & bit) return false;
    member_[word >> 6] |= bit;
    order_[size_++] = static_cast<uint16_t>(word);
    return true;
  }
  bool empty() const { return size_ == 0; }
  const uint16_t* begin() const { return order_; }
  const uint16_t* end() const { return order_ + size_; }
  void sort() { std::sort(order_, order_ + size_); }

 private:
  uint64_t member_[kBlock / 64] = {};
  uint16_t order_[kBlock];
  uint32_t size_ = 0;
};

// The codes of one block while the processes of a program change them, one after the other.
class Block {
 public:
  // Calls change(word, code before, code after) for each word whose code differs after all processes, where
  // encode(word) is the code stored before, also for words outside of the block (negative ones lie before it). `n` is
  // the number of words in this block.
  template <class Encode, class Change>
  void strike(const Program& program, uint64_t seed, uint32_t sample, uint32_t block, uint32_t n, Encode encode,
              Change change, bool ascending = false) {
    n_ = n;
    for (const Process& process : program.processes) {
      run(program, process, BlockKey{seed, process.site, sample, block}, encode);
      for (const uint16_t word : struck_) now_[word] ^= delta_[word];
      if (!struck_.empty()) struck_.clear();
    }
    if (touched_.empty()) return;
    if (ascending) touched_.sort();
    for (const uint16_t word : touched_)
      if (now_[word] != before_[word]) change(word, before_[word], now_[word]);
    touched_.clear();
  }

 private:
  template <class Encode>
  void run(const Program& program, const Process& process, const BlockKey& key, Encode encode) {
    if (process.kind == Kind::bit || process.kind == Kind::cluster)
      run_planes(program.bit_width, process, key, encode);
    else
      run_words(program.code_mask(), process, key, encode);
  }

  template <class Encode>
  void run_planes(int bit_width, const Process& process, const BlockKey& key, Encode encode) {
    for (int first = 0; first < bit_width; first += 4) {
      const Quad counts = key.counts(first >> 2);
      for (int plane = first; plane < std::min(first + 4, bit_width); ++plane) {
        const Plane& p = process.planes[plane];
        const uint32_t n = p.table.count(counts[plane & 3]);
        if (n == 0) continue;
        if (process.kind == Kind::bit)
          bit_hits(key, plane, p.table, n, [&](uint32_t at, uint32_t aux) { flip(p, plane, at, aux, encode); });
        else
          bit_hits(key, plane, p.table, n,
                   [&](uint32_t at, uint32_t aux) { burst(process, bit_width, plane, at, aux, encode); });
      }
    }
  }

  template <class Encode>
  void flip(const Plane& p, int plane, uint32_t at, uint32_t aux, Encode encode) {
    if (at >= n_) return;
    touch(at, encode);
    const bool one = now_[at] >> plane & 1u;
    if (one ? aux >= kAcceptAll - p.accept10 : aux < p.accept01) delta_[at] |= 1u << plane;
  }

  template <class Encode>
  void burst(const Process& process, int bit_width, int plane, uint32_t at, uint32_t aux, Encode encode) {
    if (at >= n_) return;
    const int64_t* sizes = process.sizes;
    const auto size = static_cast<uint32_t>(1 + (std::upper_bound(sizes, sizes + process.n_sizes, int64_t{aux}) - sizes));
    const uint32_t words = process.along_words ? std::min(size, n_ - at) : 1;
    const uint32_t bits = process.along_words ? 1 : std::min<uint32_t>(size, bit_width - plane);
    const auto flips = static_cast<uint32_t>(((uint64_t{1} << bits) - 1) << plane);
    for (uint32_t word = at; word < at + words; ++word) {
      touch(word, encode);
      delta_[word] |= flips;
    }
  }

  template <class Encode>
  void run_words(uint32_t code_mask, const Process& process, const BlockKey& key, Encode encode) {
    const Table& table = process.planes[0].table;
    const uint32_t n = table.count(key.counts(kWordPlane >> 2)[kWordPlane & 3]);
    if (n == 0) return;
    word_hits(key, table, n, [&](uint32_t at, uint32_t v) {
      if (at >= n_) return;
      touch(at, encode);
      switch (process.kind) {
        case Kind::mask: delta_[at] = process.flips(now_[at]); break;
        case Kind::late: delta_[at] = (now_[at] ^ before(process, key, at, encode)) & process.mask; break;
        default: delta_[at] = now_[at] ^ other(now_[at], v, code_mask);
      }
    });
  }

  // The code that the processing element of a word produced before.
  template <class Encode>
  static uint32_t before(const Process& process, const BlockKey& key, uint32_t at, Encode encode) {
    const int64_t first = int64_t{key.block} * kBlock, word = process.previous(first + at);
    return word < 0 ? 0u : encode(word - first);
  }

  static uint32_t other(uint32_t code, uint32_t v, uint32_t code_mask) {
    return (code + 1 + static_cast<uint32_t>(uint64_t{v} * code_mask >> 32)) & code_mask;
  }

  template <class Encode>
  void touch(uint32_t word, Encode encode) {
    if (touched_.insert(word)) before_[word] = now_[word] = encode(word);
    if (struck_.insert(word)) delta_[word] = 0;
  }

  uint32_t n_ = 0;
  WordSet touched_, struck_;  // by any process; by the present one
  uint32_t before_[kBlock], now_[kBlock], delta_[kBlock];
};

}  // namespace hwfault
