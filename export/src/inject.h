// Injection into whole tensors, in ranges of blocks that any thread pool can share out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "blocks.h"
#include "codec.h"
#include "copy.h"
#include "rounding.h"

namespace hwfault {

// One block of one sample of a batch.
struct Unit {
  int64_t element, block;
  int64_t first_word;  // its first word, counted in the sample
  int64_t offset;      // the same, counted in the tensor
  uint32_t size;       // its words
};

// A batch of samples, cut into blocks: unit u is block u % blocks of element u / blocks.
struct Units {
  int64_t batch, words;

  int64_t blocks() const { return (words + kBlock - 1) / kBlock; }
  int64_t count() const { return batch * blocks(); }
  Unit at(int64_t unit) const {
    const int64_t element = unit / blocks(), block = unit % blocks(), first = block * kBlock;
    return {element, block, first, element * words + first, static_cast<uint32_t>(std::min(words - first, kBlock))};
  }
  // the unit behind one, which at() finds by two divisions
  Unit behind(const Unit& unit) const {
    const int64_t first = unit.first_word + kBlock, left = words - first;
    if (left <= 0) return {unit.element + 1, 0, 0, (unit.element + 1) * words, static_cast<uint32_t>(std::min(words, kBlock))};
    return {unit.element, unit.block + 1, first, unit.offset + kBlock, static_cast<uint32_t>(std::min(left, kBlock))};
  }
};

#if defined(__GNUC__)
#define HWFAULT_PREFETCH(address, write) __builtin_prefetch(reinterpret_cast<const void*>(address), write, 2)
#else
#define HWFAULT_PREFETCH(address, write) (void)(address)
#endif

// Copies a tensor unit by unit, each just before it is struck; nothing to do if that happens in place.
template <class T>
struct Copy {
  const T* from;
  T* to;
  bool past_caches = false;  // of a tensor that is larger than they are

  void operator()(const Unit& unit) const {
    if (from == to) return;
    const auto copy = past_caches ? copy_past_caches : copy_lines;
    copy(to + unit.offset, from + unit.offset, unit.size * sizeof(T));
  }
};

// Where a word of a sample lies in the tensor: at its number, counted from where the sample begins.
struct InOrder {
  int64_t operator()(int64_t at, int64_t) const { return at; }
  template <class T>
  Copy<T> copy(const T* from, T* to) const {
    return {from, to};
  }
};

// The same where the samples take turns: `run` words of the first, as many of the next, and so on until it is the
// first one's turn again. Such a tensor has to be copied as a whole before any of it is struck, as a block's words lie
// all over it.
class InTurns {
 public:
  InTurns(const Units& units, int64_t run) : words_(units.words), run_(run), round_(units.batch * run) {}
  int64_t operator()(int64_t at, int64_t word) const {
    return word / run_ * round_ + (at - word) / words_ * run_ + word % run_;
  }
  template <class T>
  Copy<T> copy(const T*, T* to) const {
    return {to, to};
  }

 private:
  int64_t words_, run_, round_;
};

// The same where the axes lie in another order than the words are numbered in.
class Permuted {
 public:
  // lengths of a sample's axes in the order of the numbers, how far apart the indices of each lie, and the samples
  Permuted(std::vector<int64_t> lengths, std::vector<int64_t> strides, const Units& units, int64_t step)
      : lengths_(std::move(lengths)), strides_(std::move(strides)), words_(units.words), step_(step) {}
  int64_t operator()(int64_t at, int64_t word) const {
    int64_t place = (at - word) / words_ * step_;
    for (size_t axis = lengths_.size(); axis-- > 0; word /= lengths_[axis])
      place += word % lengths_[axis] * strides_[axis];
    return place;
  }
  template <class T>
  Copy<T> copy(const T*, T* to) const {
    return {to, to};
  }

 private:
  std::vector<int64_t> lengths_, strides_;
  int64_t words_, step_;
};

// Strikes units [first, last): for each calls copy(unit), then change(word of the tensor, word of the sample, code
// before, code after) for words whose code changes, where encode(both words) is the code stored before and ask(both words)
// fetches it into the cache. The words are ascending, if asked for, else in any order.
template <class Ask, class Prepare, class Encode, class Change>
void strike_units(const Program& program, const hwfault_draw& draw, const Units& units, int64_t first, int64_t last,
                  Ask ask, Prepare copy, Encode encode, Change change, bool ascending = false) {
  if (first >= last) return;
  Blocks blocks(program, draw.seed, last - first);
  Unit unit[kLanes];
  Lanes lanes;
  Unit next = units.at(first);
  for (int64_t left = last - first; left > 0; left -= lanes.n) {
    lanes.n = static_cast<int>(std::min<int64_t>(left, blocks.most()));
    for (int lane = 0; lane < lanes.n; ++lane, next = units.behind(next)) {
      unit[lane] = next;
      lanes.sample[lane] = static_cast<uint32_t>(draw.sample[next.element]);
      lanes.block[lane] = static_cast<uint32_t>(next.block);
      lanes.size[lane] = next.size;
      copy(next);
    }
    blocks.strike(
        lanes, [&](int lane, int64_t w) HWFAULT_INLINE_CALL { ask(unit[lane].offset + w, unit[lane].first_word + w); },
        [&](int lane, int64_t w) { return encode(unit[lane].offset + w, unit[lane].first_word + w); },
        [&](int lane, uint32_t w, uint32_t was, uint32_t is) {
          change(unit[lane].offset + w, unit[lane].first_word + w, was, is);
        },
        ascending);
  }
}

// Strikes units of a tensor that is copied on the way; x is read as well unless it is null.
template <class T, class Encode, class Change, class Where = InOrder>
void strike_copy(const Program& program, const hwfault_draw& draw, const Units& units, int64_t first, int64_t last,
                 Copy<T> copy, const T* x, Encode encode, Change change, const Where& where = {}) {
  copy.past_caches = copy.from != copy.to && units.batch * units.words > kPastCaches / static_cast<int64_t>(sizeof(T));
  // compilers take a function that only fetches for one without effect, and drop its calls unless they are inlined
  const auto ask = [&, copy, x](int64_t at, int64_t word) HWFAULT_INLINE_CALL {
    const int64_t place = where(at, word);
    if (copy.from == copy.to || copy.past_caches) HWFAULT_PREFETCH(copy.to + place, 1);
    if (x && x != copy.from) HWFAULT_PREFETCH(x + place, 0);
  };
  strike_units(program, draw, units, first, last, ask, copy, encode, change);
  if (copy.past_caches) end_copies_past_caches();
}

// How many words a call changed, and how many of those that were struck hold no number and stay what they are.
struct Changes {
  int64_t changed = 0, no_numbers = 0;

  Changes& operator+=(const Changes& other) {
    changed += other.changed, no_numbers += other.no_numbers;
    return *this;
  }
};

// out = x with the faults of units [first, last).
template <class T, class Where = InOrder>
Changes inject_units(const T* x, T* out, const Program& program, const hwfault_draw& draw, const Codec<T>& codec,
                     const Units& units, int64_t first, int64_t last, const Where& where = {}) {
  Changes found;
  strike_copy(
      program, draw, units, first, last, where.copy(x, out), x,
      [&](int64_t at, int64_t w) { return codec.encode(x[where(at, w)], w); },
      [&](int64_t at, int64_t w, uint32_t, uint32_t after) {
        const int64_t place = where(at, w);
        if (!codec.is_number(x[place])) {
          ++found.no_numbers;
          return;
        }
        codec.decode(after, w, out + place);
        ++found.changed;
      },
      where);
  return found;
}

// out = gradient with zeros at the faulty words of units [first, last); x may be null (see Program::reads_stored).
template <class T, class Where = InOrder>
int64_t zero_units(const T* gradient, T* out, const T* x, const Program& program, const hwfault_draw& draw,
                   const Codec<T>& codec, const Units& units, int64_t first, int64_t last, const Where& where = {}) {
  int64_t changed = 0;
  strike_copy(
      program, draw, units, first, last, where.copy(gradient, out), x,
      [&](int64_t at, int64_t w) { return x ? codec.encode(x[where(at, w)], w) : 0u; },
      [&](int64_t at, int64_t w, uint32_t, uint32_t) {
        const int64_t place = where(at, w);
        if (x && !codec.is_number(x[place])) return;
        out[place] = T{};
        ++changed;
      },
      where);
  return changed;
}

// A row of a fault map, as much of it as is active in one sample's period.
struct Masks {
  uint32_t and_mask, xor_mask;
};
inline Masks active_masks(const hwfault_map& map, int64_t row, int64_t element) {
  Masks masks{map.and_mask[row], map.xor_mask[row]};
  if (map.threshold >= kAlways) return masks;
  const uint32_t faulty = ~masks.and_mask | masks.xor_mask;
  for (uint32_t bit = 0; bit < 32 && faulty >> bit; ++bit) {
    if (!(faulty >> bit & 1u)) continue;
    const auto period = static_cast<uint32_t>(map.period[element]);
    if (activity(map.seed, map.site, period, map.word[row], bit) < map.threshold) continue;
    masks.and_mask |= 1u << bit;
    masks.xor_mask &= ~(1u << bit);
  }
  return masks;
}

// What the rows of a sample have for its word 0.
inline int64_t first_key(const hwfault_map& map, int64_t element) {
  if (map.threshold != kSampled) return 0;
  return int64_t{static_cast<uint32_t>(map.period[element])} << kSampledWordBits;
}

// Calls copy(unit) for units [first, last), and then change(word of the tensor, word of the sample, code before, code
// after) for those words of the unit that the map changes, where encode(both words) is the code stored before.
template <class Prepare, class Encode, class Change>
void map_units(const hwfault_map& map, const Units& units, int64_t first, int64_t last, Prepare copy, Encode encode,
               Change change) {
  int64_t row = 0;
  for (int64_t u = first; u < last; ++u) {
    const Unit unit = units.at(u);
    copy(unit);
    const int64_t origin = first_key(map, unit.element), begin = origin + unit.first_word;
    if (u == first || unit.block == 0) row = std::lower_bound(map.word, map.word + map.rows, begin) - map.word;
    for (; row < map.rows && map.word[row] < begin + unit.size; ++row) {
      const int64_t w = map.word[row] - origin, at = unit.offset + w - unit.first_word;
      const Masks masks = active_masks(map, row, unit.element);
      const uint32_t before = encode(at, w), after = (before & masks.and_mask) ^ masks.xor_mask;
      if (after != before) change(at, w, before, after);
    }
  }
}

// out = x with the map's faults in units [first, last).
template <class T, class Where = InOrder>
Changes apply_map_units(const T* x, T* out, const hwfault_map& map, const Codec<T>& codec, const Units& units,
                        int64_t first, int64_t last, const Where& where = {}) {
  Changes found;
  map_units(
      map, units, first, last, where.copy(x, out),
      [&](int64_t at, int64_t w) { return codec.encode(x[where(at, w)], w); },
      [&](int64_t at, int64_t w, uint32_t, uint32_t after) {
        const int64_t place = where(at, w);
        if (!codec.is_number(x[place])) {
          ++found.no_numbers;
          return;
        }
        codec.decode(after, w, out + place);
        ++found.changed;
      });
  return found;
}

// out = gradient with zeros at the words that the map changes; x may be null where that does not depend on the codes.
template <class T>
int64_t zero_map_units(const T* gradient, T* out, const T* x, const hwfault_map& map, const Codec<T>& codec,
                       const Units& units, int64_t first, int64_t last) {
  int64_t changed = 0;
  map_units(
      map, units, first, last, Copy<T>{gradient, out},
      [&](int64_t at, int64_t w) { return x ? codec.encode(x[at], w) : 0u; },
      [&](int64_t at, int64_t, uint32_t, uint32_t) {
        if (x && !codec.is_number(x[at])) return;
        out[at] = T{};
        ++changed;
      });
  return changed;
}

// Throws Error unless the rows are strictly ascending within the words and their flips within the bit width.
void check_map(const hwfault_map& map, int bit_width);
// Whether a map only flips: then the words that it changes do not depend on the codes stored.
bool keeps_all_bits(const hwfault_map& map, int bit_width);
// Throws Error for a format or draw with impossible numbers.
void check_format(const hwfault_format& format);
void check_draw(const hwfault_draw& draw);

}  // namespace hwfault
