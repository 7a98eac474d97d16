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

// Where words lie in a tensor whose axes lie in another order than C's.
class Strided {
 public:
  Strided(const hwfault_strides& given, const InTurns& numbers)
      : numbers_(numbers), axes_(given.axes), lengths_(given.lengths), strides_(given.strides) {}
  int64_t operator()(int64_t at, int64_t word) const {
    int64_t number = numbers_(at, word), place = 0;
    for (int32_t axis = axes_; axis-- > 0; number /= lengths_[axis]) place += number % lengths_[axis] * strides_[axis];
    return place;
  }
  template <class T>
  Copy<T> copy(const T*, T* to) const {
    return {to, to};
  }

 private:
  const InTurns numbers_;  // in C order
  const int32_t axes_;
  const int64_t *const lengths_, *const strides_;
};

// Throws Error unless the values of a tensor, one or more, lie within as many.
void check_strides(const hwfault_strides& given, int64_t values) {
  if (given.axes < 0 || (given.axes && !(given.lengths && given.strides)))
    throw Error(std::to_string(given.axes) + " axes of a tensor, expected 0 or more with lengths and strides");
  int64_t indices = 1, farthest = 0;
  for (int32_t axis = 0; axis < given.axes; ++axis) {
    const int64_t length = given.lengths[axis], stride = given.strides[axis];
    if (length < 1 || length > values / indices || stride < 0 || (length > 1 && stride > (values - 1 - farthest) / (length - 1)))
      throw Error("axis " + std::to_string(axis) + " of a tensor has " + std::to_string(length) + " indices " +
                  std::to_string(stride) + " values apart, which do not lie within " + std::to_string(values) + " values");
    indices *= length, farthest += (length - 1) * stride;
  }
  if (indices != values)
    throw Error("the axes of a tensor have " + std::to_string(indices) + " indices for " + std::to_string(values) +
                " values");
}

// Calls f(where), where the words of a tensor's samples lie.
template <class F>
int64_t with_places(const hwfault_shape& shape, const hwfault_strides* strides, const Units& units, F f) {
  if (shape.run && (shape.run < 0 || shape.words % shape.run))
    throw Error("samples of " + std::to_string(shape.words) + " words take turns every " + std::to_string(shape.run) +
                " words, expected a divisor");
  if (units.count() == 0 || !(shape.run || strides)) return f(InOrder{});
  const InTurns turns(units, shape.run ? shape.run : units.words);
  if (!strides) return f(turns);
  check_strides(*strides, units.batch * units.words);
  return f(Strided(*strides, turns));
}

// Copies the values of samples that take turns, or lie in another order, which cannot be copied sample by sample.
void copy_whole(const hwfault_shape& shape, const hwfault_strides* strides, const void* from, void* to) {
  if (!(shape.run || strides) || from == to || shape.batch * shape.words == 0) return;
  with_type(shape.dtype, [&](auto type) {
    std::memcpy(to, from, static_cast<size_t>(shape.batch * shape.words) * sizeof type);
    return int64_t{0};
  });
}

int64_t strike(const hwfault_site& site, const hwfault_shape& shape, const hwfault_strides* strides, const void* x,
               void* out, const void* scale, const void* zero_point, uint64_t seed, const int64_t* sample,
               int32_t threads, int64_t* no_numbers) {
  const hwfault_draw draw = site_draw(site, shape, seed, sample);
  const SiteFormat format(site, shape, scale, zero_point);
  const Units units{draw.batch, draw.words};
  check_present(units, x, out, draw.sample);
  if (x == out && site.reads_others) throw Error("late bits need the values of other words: out must not be x");
  return with_type(shape.dtype, [&](auto type) {
    using T = decltype(type);
    const Codec<T> codec(format.get());
    return with_places(shape, strides, units, [&](const auto& where) {
      copy_whole(shape, strides, x, out);
      return share_out_changes(units.count(), threads, no_numbers, [&](int64_t first, int64_t last) {
        return inject_units(static_cast<const T*>(x), static_cast<T*>(out), site.program, draw, codec, units, first,
                            last, where);
      });
    });
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
    return strike(*site, *shape, nullptr, x, out, scale, zero_point, seed, sample, threads, no_numbers);
  });
}

int64_t hwfault_site_strike_strided(const hwfault_site* site, const hwfault_shape* shape,
                                    const hwfault_strides* strides, const void* x, void* out, const void* scale,
                                    const void* zero_point, uint64_t seed, const int64_t* sample, int32_t threads,
                                    int64_t* no_numbers) {
  return guarded([&] {
    if (!strides) throw Error("the pointer to the strides is null");
    return strike(*site, *shape, strides, x, out, scale, zero_point, seed, sample, threads, no_numbers);
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
        return with_places(*shape, nullptr, units, [&](const auto& where) {
          copy_whole(*shape, nullptr, gradient, out);
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
