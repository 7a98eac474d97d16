// Faults in a protected memory: what its decoder lets through (docs/fault-stream.md, "Protected memories").
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "ecc.h"
#include "inject.h"

namespace hwfault {

// Memory words by what their decoder said, and whether it was right.
struct Tally {
  int64_t corrected = 0, detected = 0, miscorrected = 0;
};

// The same for all threads of a call.
struct Counts {
  std::atomic<int64_t> corrected{0}, detected{0}, miscorrected{0};

  void add(const Tally& tally) {
    corrected += tally.corrected, detected += tally.detected, miscorrected += tally.miscorrected;
  }
};

// A protected memory and the faults of one call in it; points into all that it is made of. Throws Error for what does
// not fit. The work is shared out in parts: an element as a whole if there is a table, otherwise as many blocks of it as
// begin and end with a code word.
class ProtectedMemory {
 public:
  ProtectedMemory(const hwfault_protection& protection, const hwfault_draw& draw, const hwfault_map& map,
                  const hwfault_format& format);
  ProtectedMemory(const ProtectedMemory&) = delete;

  bool linear() const { return protection_.rows == 0; }
  int64_t parts() const { return draw_.batch * parts_of_element_; }
  int64_t words_of_part() const { return part_words_; }
  int64_t parts_of_element() const { return parts_of_element_; }

  // Calls copy(unit) for parts [first, last), and then change(word of the tensor, word of the sample, code before,
  // code after) for those of their words that change, where encode(both words) is the code stored before. A word is
  // changed only after encode was asked for all that it has to do with.
  template <class Prepare, class Encode, class Change>
  Tally strike(int64_t first, int64_t last, Prepare copy, Encode encode, Change change) const;

 private:
  // Bits of a word, be it a code word or a sub-word, that change.
  struct Flips {
    int64_t word;
    uint32_t bits;
  };
  struct Part {
    int64_t element, index;
    int64_t first_word, words;  // code words in the sample
    int64_t offset;             // where the sample begins in the tensor
  };
  Part part_at(int64_t part) const {
    const int64_t index = part % parts_of_element_, element = part / parts_of_element_, first = index * part_words_;
    return {element, index, first, std::min(part_words_, draw_.words - first), element * draw_.words};
  }

  // where the map's rows of a memory word begin, if it has any
  int64_t first_row(int64_t memory_word) const {
    return std::lower_bound(map_.word, map_.word + map_.rows, memory_word * sub_words_) - map_.word;
  }
  // the memory word of a row, beyond all of them behind the last
  int64_t word_of_row(int64_t row) const { return row < map_.rows ? map_.word[row] / sub_words_ : INT64_MAX; }
  // strikes the cells of a memory word with the rows that it has from `row` on; returns the row behind them
  int64_t strike_rows(Cells& cells, int64_t memory_word, int64_t row, int64_t element) const;
  // the data bits that the decoder makes of cells, as differences from those stored
  uint64_t read(const Cells& cells, uint64_t stored, Tally& tally) const;
  void check_layout() const;

  // Calls take(code word, its lowest bit here, the data bit that this is) for the code words in a memory word.
  template <class Take>
  void for_code_words(int64_t memory_word, Take take) const {
    const int64_t from = memory_word * protection_.data_bits;
    for (int at = 0; at < protection_.data_bits;) {
      const int64_t word = (from + at) / protection_.slot;
      const int bit = static_cast<int>((from + at) % protection_.slot);
      if (word >= draw_.words) return;
      take(word, bit, at);
      at += protection_.slot - bit;
    }
  }
  template <class Code>
  uint64_t data_of(int64_t memory_word, Code code) const {
    uint64_t data = 0;
    for_code_words(memory_word, [&](int64_t word, int bit, int at) { data |= uint64_t{code(word)} >> bit << at; });
    return data & low_bits(protection_.data_bits);
  }

  template <class Code>
  int64_t strike_transient(Blocks& struck, int64_t element, int64_t block, Code code, Flips* flips) const;
  template <class Code, class Flip>
  void strike_block(Blocks& struck, int64_t element, int64_t block, Code code, Flip flip, Tally& tally) const;
  template <class Code, class Flip>
  void strike_table(int64_t element, Code code, Flip flip, Tally& tally) const;

  hwfault_protection protection_;
  hwfault_draw draw_;
  hwfault_map map_;
  WordCode code_;
  uint32_t code_mask_;
  int sub_words_ = 1;
  int64_t memory_words_ = 0, part_words_ = 1, part_blocks_ = 1, parts_of_element_ = 1;
  Program program_;
};

// Writes the sub-words of a block that transient faults change, in ascending order; returns how many there are.
template <class Code>
int64_t ProtectedMemory::strike_transient(Blocks& struck, int64_t element, int64_t block, Code code,
                                          Flips* flips) const {
  if (program_.processes.empty()) return 0;
  const int64_t first = block * kBlock, size = std::min(kBlock, memory_words_ * sub_words_ - first);
  const auto stored = [&](int, int64_t i) {
    const int64_t m = (first + i) / sub_words_;
    return code_.store(data_of(m, code))[static_cast<int>(first + i - m * sub_words_)];
  };
  Lanes one;
  one.n = 1;
  one.sample[0] = static_cast<uint32_t>(draw_.sample[element]);
  one.block[0] = static_cast<uint32_t>(block);
  one.size[0] = static_cast<uint32_t>(size);
  int64_t n = 0;
  struck.strike(
      one, [](int, int64_t) {}, stored,
      [&](int, uint32_t i, uint32_t before, uint32_t after) { flips[n++] = {first + i, before ^ after}; }, true);
  return n;
}

// Calls flip(code word, bits) with what the decoder lets through of a block; words come in ascending order.
template <class Code, class Flip>
void ProtectedMemory::strike_block(Blocks& struck, int64_t element, int64_t block, Code code, Flip flip,
                                   Tally& tally) const {
  Flips flips[kBlock];
  const int64_t n = strike_transient(struck, element, block, code, flips), end = (block + 1) * (kBlock / sub_words_);
  const auto word_of_flips = [&](int64_t i) { return i < n ? flips[i].word / sub_words_ : INT64_MAX; };
  int64_t row = first_row(end - kBlock / sub_words_), i = 0;
  while (true) {
    const int64_t m = std::min(word_of_flips(i), word_of_row(row));
    if (m >= end) return;
    const uint64_t data = data_of(m, code);
    Cells cells = code_.store(data);
    for (; word_of_flips(i) == m; ++i) cells[static_cast<int>(flips[i].word - m * sub_words_)] ^= flips[i].bits;
    row = strike_rows(cells, m, row, element);
    const uint64_t changed = read(cells, data, tally);
    if (changed == 0) continue;
    for_code_words(m, [&](int64_t word, int bit, int at) {
      flip(word, static_cast<uint32_t>(changed >> at << bit) & code_mask_);
    });
  }
}

// The same for an element under a table, whose memory words and bits may lie in any order.
template <class Code, class Flip>
void ProtectedMemory::strike_table(int64_t element, Code code, Flip flip, Tally& tally) const {
  std::vector<Flips> flips;
  for (int64_t i = 0; i < protection_.rows; ++i) {
    const int64_t m = protection_.number[i], row = first_row(m);
    if (word_of_row(row) != m) continue;
    const int64_t* from = protection_.cells + i * protection_.data_bits;
    uint64_t data = 0;
    for (int d = 0; d < protection_.data_bits; ++d)
      if (from[d] >= 0) data |= uint64_t{code(from[d] >> 5) >> (from[d] & 31) & 1u} << d;
    Cells cells = code_.store(data);
    strike_rows(cells, m, row, element);
    const uint64_t changed = read(cells, data, tally);
    for (int d = 0; d < protection_.data_bits; ++d)
      if (from[d] >= 0 && changed >> d & 1) flips.push_back({from[d] >> 5, 1u << (from[d] & 31)});
  }
  std::sort(flips.begin(), flips.end(), [](const Flips& a, const Flips& b) { return a.word < b.word; });
  for (const Flips& f : flips) flip(f.word, f.bits);
}

template <class Prepare, class Encode, class Change>
Tally ProtectedMemory::strike(int64_t first, int64_t last, Prepare copy, Encode encode, Change change) const {
  Tally tally;
  const int64_t blocks = (memory_words_ * sub_words_ + kBlock - 1) / kBlock;
  Blocks struck(program_, draw_.seed, 1);
  for (int64_t p = first; p < last; ++p) {
    const Part part = part_at(p);
    for (int64_t w = 0; w < part.words; w += kBlock)
      copy(Unit{part.element, 0, part.first_word + w, part.offset + part.first_word + w,
                static_cast<uint32_t>(std::min(kBlock, part.words - w))});
    const auto code = [&](int64_t word) { return encode(part.offset + word, word); };
    Flips open{0, 0};  // neighbouring memory words may share a code word: it changes when the next one comes
    const auto flip = [&](int64_t word, uint32_t bits) {
      if (word != open.word && open.bits)
        change(part.offset + open.word, open.word, code(open.word), code(open.word) ^ open.bits);
      open = {word, word == open.word ? open.bits ^ bits : bits};
    };
    if (linear())
      for (int64_t b = p % parts_of_element_ * part_blocks_, end = std::min(b + part_blocks_, blocks); b < end; ++b)
        strike_block(struck, part.element, b, code, flip, tally);
    else
      strike_table(part.element, code, flip, tally);
    flip(-1, 0);
  }
  return tally;
}

// out = x with what the memory's decoder lets through in parts [first, last); returns the number of words changed.
template <class T, class Where = InOrder>
int64_t protect_parts(const T* x, T* out, const ProtectedMemory& memory, const Codec<T>& codec, int64_t first,
                      int64_t last, Counts& counts, const Where& where = {}) {
  int64_t changed = 0;
  counts.add(memory.strike(
      first, last, where.copy(x, out), [&](int64_t at, int64_t w) { return codec.encode(x[where(at, w)], w); },
      [&](int64_t at, int64_t w, uint32_t, uint32_t after) {
        if (!codec.is_number(x[where(at, w)])) return;
        codec.decode(after, w, out + where(at, w));
        ++changed;
      }));
  return changed;
}

// out = gradient with zeros at the words that protect_parts changes.
template <class T>
int64_t zero_protected_parts(const T* gradient, T* out, const T* x, const ProtectedMemory& memory,
                             const Codec<T>& codec, int64_t first, int64_t last) {
  int64_t changed = 0;
  memory.strike(
      first, last, Copy<T>{gradient, out}, [&](int64_t at, int64_t w) { return codec.encode(x[at], w); },
      [&](int64_t at, int64_t, uint32_t, uint32_t) {
        if (!codec.is_number(x[at])) return;
        out[at] = T{};
        ++changed;
      });
  return changed;
}

}  // namespace hwfault
