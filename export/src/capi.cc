// The C functions of hwfault.h.
#include <algorithm>
#include <vector>

#include "accumulate.h"
#include "calls.h"
#include "inject.h"
#include "protect.h"

namespace {

using namespace hwfault;

Program checked_program(const hwfault_draw& draw, int bit_width) {
  check_draw(draw);
  Program program = parse_program(draw.program, draw.program_length, bit_width);
  program.check_words(draw.words);
  return program;
}

// How many parts of a protected memory are worth a thread; all of them where a table is, whose work allocates memory.
int64_t parts_per_thread(const ProtectedMemory& memory) {
  return memory.linear() ? std::max<int64_t>(1, kUnitsPerThread * kBlock / memory.words_of_part()) : INT64_MAX;
}

}  // namespace

extern "C" {

int64_t hwfault_abi_version(void) { return 4; }

const char* hwfault_error_text(int64_t) { return last_error().c_str(); }

void hwfault_philox(const uint32_t counter[4], uint64_t key, uint32_t out[4]) {
  const Quad r = philox({counter[0], counter[1], counter[2], counter[3]}, key);
  std::copy(r.begin(), r.end(), out);
}

int64_t hwfault_hits(uint64_t seed, uint32_t site, uint32_t sample, int64_t words, int32_t plane, const int64_t* table,
                     int64_t table_length, int64_t capacity, int64_t* word, uint32_t* aux) {
  return guarded([&] {
    if (!(0 <= plane && plane < 32) && plane != int32_t{kWordPlane})
      throw Error("plane is " + std::to_string(plane) + ", expected 0 to 31 or 63");
    check_draw({seed, nullptr, 0, words, nullptr, 0});
    const Table parsed = parse_table(table, table_length);
    int64_t n = 0;
    const Units units{1, parsed.empty() ? 0 : words};
    for (int64_t block = 0; block < units.count(); ++block) {
      const BlockKey key{seed, site, sample, static_cast<uint32_t>(block)};
      const uint32_t hits = parsed.count(key.counts(plane >> 2)[plane & 3]);
      const auto note = [&](uint32_t at, uint32_t extra) {
        if (block * kBlock + at >= words) return;
        if (n < capacity) word[n] = block * kBlock + at, aux[n] = extra;
        ++n;
      };
      if (plane == int32_t{kWordPlane})
        word_hits(key, parsed, hits, note);
      else
        bit_hits(key, plane, parsed, hits, note);
    }
    return n;
  });
}

int64_t hwfault_inject(int32_t dtype, const void* x, void* out, const hwfault_draw* draw, const hwfault_format* format,
                       int32_t threads, int64_t* no_numbers) {
  return guarded([&] {
    check_format(*format);
    const Program program = checked_program(*draw, format->bit_width);
    const Units units{draw->batch, draw->words};
    check_present(units, x, out, draw->sample);
    if (x == out && program.reads_others()) throw Error("late bits need the values of other words: out must not be x");
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      return share_out_changes(units.count(), threads, no_numbers, [&](int64_t first, int64_t last) {
        return inject_units(static_cast<const T*>(x), static_cast<T*>(out), program, *draw, codec, units, first, last);
      });
    });
  });
}

int64_t hwfault_zero_faulty(int32_t dtype, const void* gradient, void* out, const void* x, const hwfault_draw* draw,
                            const hwfault_format* format, int32_t threads) {
  return guarded([&] {
    check_format(*format);
    const Program program = checked_program(*draw, format->bit_width);
    if (!x && program.reads_stored())
      throw Error("which words are faulty depends on the stored codes here, so the values before injection are needed");
    const Units units{draw->batch, draw->words};
    check_present(units, gradient, out, draw->sample);
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      return share_out(units.count(), threads, [&](int64_t first, int64_t last) {
        return zero_units(static_cast<const T*>(gradient), static_cast<T*>(out), static_cast<const T*>(x), program,
                          *draw, codec, units, first, last);
      });
    });
  });
}

int64_t hwfault_faulty_words(int32_t dtype, const void* x, const hwfault_draw* draw, const hwfault_format* format,
                             int64_t capacity, int64_t* position, uint32_t* before, uint32_t* after) {
  return guarded([&] {
    check_format(*format);
    const Program program = checked_program(*draw, format->bit_width);
    const Units units{draw->batch, draw->words};
    check_present(units, x, draw->sample);
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      int64_t n = 0;
      strike_units(
          program, *draw, units, 0, units.count(), [](int64_t, int64_t) {}, [](const Unit&) {},
          [&](int64_t at, int64_t w) { return codec.encode(static_cast<const T*>(x)[at], w); },
          [&](int64_t at, int64_t, uint32_t was, uint32_t is) {
            if (!codec.is_number(static_cast<const T*>(x)[at])) return;
            if (n < capacity) {
              position[n] = at;
              if (before) before[n] = was;
              if (after) after[n] = is;
            }
            ++n;
          },
          true);
      return n;
    });
  });
}

int64_t hwfault_inject_codes(uint32_t* codes, const hwfault_draw* draw, int32_t bit_width) {
  return guarded([&] {
    const Program program = checked_program(*draw, bit_width);
    const Units units{draw->batch, draw->words};
    check_present(units, codes, draw->sample);
    const int64_t copied = program.reads_others() ? draw->batch * draw->words : 0;
    const std::vector<uint32_t> copy(codes, codes + copied);
    const uint32_t* stored = copied ? copy.data() : codes;
    int64_t changed = 0;
    strike_units(
        program, *draw, units, 0, units.count(), [](int64_t, int64_t) {}, [](const Unit&) {},
        [&](int64_t at, int64_t) { return stored[at] & program.code_mask(); },
        [&](int64_t at, int64_t, uint32_t, uint32_t is) { codes[at] = is, ++changed; });
    return changed;
  });
}

int64_t hwfault_apply_map(int32_t dtype, const void* x, void* out, const hwfault_map* map, const hwfault_format* format,
                          int32_t threads, int64_t* no_numbers) {
  return guarded([&] {
    check_format(*format);
    check_map(*map, format->bit_width);
    const Units units{map->batch, map->words};
    check_present(units, x, out);
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      return share_out_changes(units.count(), threads, no_numbers, [&](int64_t first, int64_t last) {
        return apply_map_units(static_cast<const T*>(x), static_cast<T*>(out), *map, codec, units, first, last);
      });
    });
  });
}

int64_t hwfault_zero_map(int32_t dtype, const void* gradient, void* out, const void* x, const hwfault_map* map,
                         const hwfault_format* format, int32_t threads) {
  return guarded([&] {
    check_format(*format);
    check_map(*map, format->bit_width);
    if (!x && !keeps_all_bits(*map, format->bit_width))
      throw Error("which words the map changes depends on the stored codes, so the values before are needed");
    const Units units{map->batch, map->words};
    check_present(units, gradient, out);
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      return share_out(units.count(), threads, [&](int64_t first, int64_t last) {
        return zero_map_units(static_cast<const T*>(gradient), static_cast<T*>(out), static_cast<const T*>(x), *map,
                              codec, units, first, last);
      });
    });
  });
}

int64_t hwfault_protected(int32_t dtype, const void* x, void* out, const hwfault_draw* draw, const hwfault_map* map,
                          const hwfault_format* format, const hwfault_protection* protection, int64_t counts[3],
                          int32_t threads) {
  return guarded([&] {
    check_format(*format);
    const ProtectedMemory memory(*protection, *draw, *map, *format);
    check_present(Units{draw->batch, draw->words}, x, out, draw->sample);
    Counts total;
    const int64_t changed = with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      const auto work = [&](int64_t first, int64_t last) {
        return protect_parts(static_cast<const T*>(x), static_cast<T*>(out), memory, codec, first, last, total);
      };
      return share_out(memory.parts(), threads, work, parts_per_thread(memory));
    });
    counts[0] = total.corrected, counts[1] = total.detected, counts[2] = total.miscorrected;
    return changed;
  });
}

int64_t hwfault_zero_protected(int32_t dtype, const void* gradient, void* out, const void* x, const hwfault_draw* draw,
                               const hwfault_map* map, const hwfault_format* format,
                               const hwfault_protection* protection, int32_t threads) {
  return guarded([&] {
    check_format(*format);
    const ProtectedMemory memory(*protection, *draw, *map, *format);
    check_present(Units{draw->batch, draw->words}, gradient, out, x, draw->sample);
    return with_type(dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(*format);
      const auto work = [&](int64_t first, int64_t last) {
        return zero_protected_parts(static_cast<const T*>(gradient), static_cast<T*>(out), static_cast<const T*>(x),
                                    memory, codec, first, last);
      };
      return share_out(memory.parts(), threads, work, parts_per_thread(memory));
    });
  });
}

int64_t hwfault_accumulate(int32_t dtype, const void* acc, const float* x, const float* w, void* out,
                           const hwfault_layer* layer, const hwfault_array* array, int32_t threads) {
  return guarded([&] {
    Accumulation sums(*layer, *array);
    if (sums.words() > 0 && !(acc && x && w && out)) throw Error("a pointer to values is null");
    sums.choose(x, w);
    const auto as = [&](auto type) {
      using T = decltype(type);
      share_out(sums.words(), threads, [&](int64_t first, int64_t last) {
        return sums.keep(static_cast<const T*>(acc), static_cast<T*>(out), first, last), int64_t{0};
      }, kBlock * kUnitsPerThread);
      if (!sums.any_chosen()) return int64_t{0};
      const int64_t part = sums.items_per_part();
      return share_out((sums.items() + part - 1) / part, threads, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
          sums.add_up(x, w, static_cast<T*>(out), i * part, std::min((i + 1) * part, sums.items()));
        return int64_t{0};
      }, 1);
    };
    if (dtype == HWFAULT_FLOAT32) return as(float{});
    if (dtype == HWFAULT_FLOAT64) return as(double{});
    throw Error("dtype is " + std::to_string(dtype) + ", expected 0 or 1 for accumulators");
  });
}

}  // extern "C"
