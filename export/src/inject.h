// Injection into whole tensors, in ranges of blocks that any thread pool can share out.
#pragma once

#include <cstdint>
#include <cstring>

#include "block.h"
#include "codec.h"

namespace hwfault {

// A batch of samples, cut into blocks: unit u is block u % blocks of sample u / blocks.
struct Units {
  int64_t batch, words;

  int64_t blocks() const { return (words + kBlock - 1) / kBlock; }
  int64_t count() const { return batch * blocks(); }
  int64_t element(int64_t unit) const { return unit / blocks(); }
  int64_t block(int64_t unit) const { return unit % blocks(); }
  int64_t first_word(int64_t unit) const { return block(unit) * kBlock; }
  int64_t offset(int64_t unit) const { return element(unit) * words + first_word(unit); }
  uint32_t size(int64_t unit) const {
    const int64_t left = words - first_word(unit);
    return static_cast<uint32_t>(left < kBlock ? left : kBlock);
  }
};

template <class T>
void copy_unit(const T* x, T* out, const Units& units, int64_t unit) {
  if (x != out) std::memcpy(out + units.offset(unit), x + units.offset(unit), units.size(unit) * sizeof(T));
}

// The words that change in units [first, last): calls change(unit, word of the sample, before, after).
template <class Encode, class Change>
void strike_unit(Block& block, const Program& program, const hwfault_draw& draw, const Units& units, int64_t unit,
                 Encode encode, Change change, bool ascending = false) {
  const int64_t at = units.first_word(unit);
  block.strike(
      program, draw.seed, static_cast<uint32_t>(draw.sample[units.element(unit)]),
      static_cast<uint32_t>(units.block(unit)), units.size(unit), [&](uint32_t w) { return encode(at + w); },
      [&](uint32_t w, uint32_t before, uint32_t after) { change(at + w, before, after); }, ascending);
}

// out = x with the faults of units [first, last); returns the number of words changed.
template <class T>
int64_t inject_units(const T* x, T* out, const Program& program, const hwfault_draw& draw, const Codec<T>& codec,
                     const Units& units, int64_t first, int64_t last) {
  Block block;
  int64_t changed = 0;
  for (int64_t unit = first; unit < last; ++unit) {
    copy_unit(x, out, units, unit);
    const T* from = x + units.element(unit) * units.words;
    T* to = out + units.element(unit) * units.words;
    strike_unit(
        block, program, draw, units, unit, [&](int64_t w) { return codec.encode(from[w], w); },
        [&](int64_t w, uint32_t, uint32_t after) {
          codec.decode(after, w, to + w);
          ++changed;
        });
  }
  return changed;
}

// out = gradient with zeros at the faulty words of units [first, last); x may be null (see Program::reads_stored).
template <class T>
int64_t zero_units(const T* gradient, T* out, const T* x, const Program& program, const hwfault_draw& draw,
                   const Codec<T>& codec, const Units& units, int64_t first, int64_t last) {
  Block block;
  int64_t changed = 0;
  for (int64_t unit = first; unit < last; ++unit) {
    copy_unit(gradient, out, units, unit);
    const int64_t start = units.element(unit) * units.words;
    strike_unit(
        block, program, draw, units, unit, [&](int64_t w) { return x ? codec.encode(x[start + w], w) : 0u; },
        [&](int64_t w, uint32_t, uint32_t) {
          out[start + w] = T{};
          ++changed;
        });
  }
  return changed;
}

// out = x with the map's rows applied to elements [first, last) of the batch; returns the number of words changed.
template <class T>
int64_t map_elements(const T* x, T* out, int64_t words, const int64_t* word, const uint32_t* and_mask,
                     const uint32_t* xor_mask, int64_t rows, const Codec<T>& codec, int64_t first, int64_t last) {
  int64_t changed = 0;
  for (int64_t element = first; element < last; ++element) {
    const T* from = x + element * words;
    T* to = out + element * words;
    if (x != out) std::memcpy(to, from, static_cast<size_t>(words) * sizeof(T));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t w = word[row];
      const uint32_t before = codec.encode(from[w], w), after = (before & and_mask[row]) ^ xor_mask[row];
      if (after == before) continue;
      codec.decode(after, w, to + w);
      ++changed;
    }
  }
  return changed;
}

// Throws Error unless rows are strictly ascending within the words and their masks within the bit width.
void check_map(const int64_t* word, const uint32_t* xor_mask, int64_t rows, int64_t words,
               uint32_t code_mask);
// Throws Error for a format or draw with impossible numbers.
void check_format(const hwfault_format& format);
void check_draw(const hwfault_draw& draw);

}  // namespace hwfault
