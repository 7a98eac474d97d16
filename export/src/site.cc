// Sites whose programs were parsed once, and their C functions.
#include "site.h"

#include <cstring>

#include "calls.h"

using namespace hwfault;

namespace {

// n numbers of any type as double, which holds them all.
void read_numbers(int32_t dtype, const void* from, int64_t n, double* to) {
  with_type(dtype, [&](auto type) {
    const auto* values = static_cast<const decltype(type)*>(from);
    for (int64_t i = 0; i < n; ++i) to[i] = load(values[i]);
    return int64_t{0};
  });
}

// The same in `room` where it is one number, in `many` otherwise; null, or no number, is left for check_format to see.
const double* numbers_of(int32_t dtype, const void* from, int64_t n, double* room, std::vector<double>& many) {
  if (!from || n < 1) return nullptr;
  if (n > 1) many.resize(static_cast<size_t>(n)), room = many.data();
  read_numbers(dtype, from, n, room);
  return room;
}

// Calls f(where), where the words of a tensor's samples lie.
template <class F>
int64_t with_places(const hwfault_shape& shape, const Units& units, F f) {
  if (!shape.run) return f(InOrder{});
  if (shape.run < 0 || shape.words % shape.run)
    throw Error("samples of " + std::to_string(shape.words) + " words take turns every " + std::to_string(shape.run) +
                " words, expected a divisor");
  return f(InTurns(units, shape.run));
}

// Copies the values of samples that take turns, which cannot be copied sample by sample.
void copy_turns(const hwfault_shape& shape, const void* from, void* to) {
  if (!shape.run || from == to || shape.batch * shape.words == 0) return;
  with_type(shape.dtype, [&](auto type) {
    std::memcpy(to, from, static_cast<size_t>(shape.batch * shape.words) * sizeof type);
    return int64_t{0};
  });
}

}  // namespace

hwfault_site::hwfault_site(const int64_t* given, int64_t length, int32_t width, int32_t sign, int32_t stored_as)
    : bit_width(width),
      is_signed(sign),
      representation(stored_as),
      numbers(given, given + length),
      program(parse_program(numbers.data(), length, width)),
      reads_stored(program.reads_stored()),
      reads_others(program.reads_others()) {
  SiteFormat checked(*this);
}

namespace hwfault {

SiteFormat::SiteFormat(const hwfault_site& site, const hwfault_shape& shape, const void* scale,
                       const void* zero_point) {
  const double* scales = numbers_of(shape.scale_dtype, scale, shape.n_scale, &one_[0], scales_);
  const double* zeros = numbers_of(shape.zero_point_dtype, zero_point, shape.n_zero_point, &one_[1], zero_points_);
  format_ = {scales, shape.n_scale, shape.scale_inner, zeros, shape.n_zero_point, shape.zero_point_inner,
             site.bit_width, site.is_signed, site.representation};
  check_format(format_);
}

SiteFormat::SiteFormat(const hwfault_site& site) {
  format_ = {&one_[0], 1, 1, &one_[1], 1, 1, site.bit_width, site.is_signed, site.representation};
  check_format(format_);
}

hwfault_draw site_draw(const hwfault_site& site, const hwfault_shape& shape, uint64_t seed, const int64_t* sample) {
  const hwfault_draw draw{seed, sample, shape.batch, shape.words, site.numbers.data(),
                          static_cast<int64_t>(site.numbers.size())};
  check_draw(draw);
  site.program.check_words(shape.words);
  return draw;
}

}  // namespace hwfault

extern "C" {

int64_t hwfault_site_new(const int64_t* program, int64_t length, int32_t bit_width, int32_t is_signed,
                         int32_t representation, hwfault_site** site) {
  return guarded([&] {
    if (length < 0 || (!program && length))
      throw Error("a fault program of " + std::to_string(length) + " numbers" + (program ? "" : " at a null pointer"));
    if (!site) throw Error("the pointer to the site's place is null");
    *site = new hwfault_site(program, length, bit_width, is_signed, representation);
    return int64_t{0};
  });
}

void hwfault_site_free(hwfault_site* site) { delete site; }

int64_t hwfault_site_strike(const hwfault_site* site, const hwfault_shape* shape, const void* x, void* out,
                            const void* scale, const void* zero_point, uint64_t seed, const int64_t* sample,
                            int32_t threads, int64_t* no_numbers) {
  return guarded([&] {
    const hwfault_draw draw = site_draw(*site, *shape, seed, sample);
    const SiteFormat format(*site, *shape, scale, zero_point);
    const Units units{draw.batch, draw.words};
    check_present(units, x, out, draw.sample);
    if (x == out && site->reads_others) throw Error("late bits need the values of other words: out must not be x");
    return with_type(shape->dtype, [&](auto type) {
      using T = decltype(type);
      const Codec<T> codec(format.get());
      return with_places(*shape, units, [&](const auto& where) {
        copy_turns(*shape, x, out);
        return share_out_changes(units.count(), threads, no_numbers, [&](int64_t first, int64_t last) {
          return inject_units(static_cast<const T*>(x), static_cast<T*>(out), site->program, draw, codec, units, first,
                              last, where);
        });
      });
    });
  });
}

int64_t hwfault_site_zero(const hwfault_site* site, const hwfault_shape* shape, const void* gradient, void* out,
                          const void* x, const void* scale, const void* zero_point, uint64_t seed,
                          const int64_t* sample, int32_t threads) {
  return guarded([&] {
    if (!x && site->reads_stored)
      throw Error("which words are faulty depends on the stored codes here, so the values before injection are needed");
    const hwfault_draw draw = site_draw(*site, *shape, seed, sample);
    const Units units{draw.batch, draw.words};
    check_present(units, gradient, out, draw.sample);
    const auto zero = [&](const hwfault_format& format) {
      return with_type(shape->dtype, [&](auto type) {
        using T = decltype(type);
        const Codec<T> codec(format);
        return with_places(*shape, units, [&](const auto& where) {
          copy_turns(*shape, gradient, out);
          return share_out(units.count(), threads, [&](int64_t first, int64_t last) {
            return zero_units(static_cast<const T*>(gradient), static_cast<T*>(out), static_cast<const T*>(x),
                              site->program, draw, codec, units, first, last, where);
          });
        });
      });
    };
    if (!x) return zero(SiteFormat(*site).get());
    return zero(SiteFormat(*site, *shape, scale, zero_point).get());
  });
}

}  // extern "C"
