// Integers kept within a range (export/SPEC.md, ClippedRange).
#pragma once

#include "inject.h"

namespace hwfault {

// Throws Error for a range that is none of words of these bits.
void check_range(const hwfault_range& range, const hwfault_format& format);

// Copies units [first, last) and calls change(place, word, integer after) for words whose integer lies beyond the range.
template <class T, class Where, class Change>
void clip_units(const T* x, Copy<T> copy, const hwfault_range& range, const Codec<T>& codec, const Units& units,
                int64_t first, int64_t last, const Where& where, Change change) {
  for (int64_t u = first; u < last; ++u) {
    const Unit unit = units.at(u);
    copy(unit);
    for (int64_t i = 0; i < unit.size; ++i) {
      const int64_t word = unit.first_word + i, place = where(unit.offset + i, word);
      const T value = x[place];
      if (!codec.is_number(value)) continue;
      const int64_t q = codec.read(value, word);
      if (q < range.low)
        change(place, word, range.below);
      else if (q > range.high)
        change(place, word, range.above);
    }
  }
}

// out = x within the range, units [first, last); the words that it changed.
template <class T, class Where = InOrder>
int64_t write_clipped(const T* x, T* out, const hwfault_range& range, const Codec<T>& codec, const Units& units,
                      int64_t first, int64_t last, const Where& where = {}) {
  int64_t changed = 0;
  clip_units(x, where.copy(x, out), range, codec, units, first, last, where,
             [&](int64_t place, int64_t word, int64_t q) { codec.write(q, word, out + place), ++changed; });
  return changed;
}

// out = gradient with zeros at the words that the range changes in x.
template <class T>
int64_t zero_clipped(const T* gradient, T* out, const T* x, const hwfault_range& range, const Codec<T>& codec,
                     const Units& units, int64_t first, int64_t last) {
  int64_t changed = 0;
  clip_units(x, Copy<T>{gradient, out}, range, codec, units, first, last, InOrder{},
             [&](int64_t place, int64_t, int64_t) { out[place] = T{}, ++changed; });
  return changed;
}

}  // namespace hwfault
