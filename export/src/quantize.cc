#include "quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "clones.h"
#include "program.h"
#include "rounding.h"

namespace hwfault {
namespace {

constexpr int64_t kPiece = 4096;     // values whose gradients are added up before those of others
constexpr int64_t kPart = 1024;      // as many at a time, so that all they need stays in the first cache
constexpr int64_t kColumn = 256;     // scales of a row of scales that are done together
constexpr int64_t kLanes = 16;
constexpr int64_t kPerThread = 32768;  // values that are worth a thread

// The integers that there are, those whose gradient passes, and what lower values are rectified to: NaN, to which none
// compares, if they are not.
struct Ends {
  float least, most, pass_least, pass_most, floor;
};

// As torch's relu has it: what is no number stays none.
HWFAULT_INLINE float rectified(float x, const Ends& ends) { return x < ends.floor ? ends.floor : x; }

// Takes the gradient of values that were rectified away. A loop of its own, without which the one before it is not
// vectorized.
HWFAULT_INLINE void cut_off_all(const float* x, float* dx, int64_t n, const Ends& ends) {
  if (std::isnan(ends.floor)) return;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) dx[i] = x[i] <= ends.floor ? 0.0f : dx[i];
}

HWFAULT_INLINE float clamped(float k, const Ends& ends) {
  k = k > ends.most ? ends.most : k;
  return k < ends.least ? ends.least : k;
}

HWFAULT_INLINE float quantized(float x, float s, float z, const Ends& ends) {
  return (clamped(std::rint(rectified(x, ends) / s + z), ends) - z) * s;
}

HWFAULT_INLINE bool stopped(float k, const Ends& ends) { return (k > ends.pass_most) | (k < ends.pass_least); }

HWFAULT_INLINE float passed(float x, float g, float s, float z, const Ends& ends) {
  return (stopped(std::rint(rectified(x, ends) / s + z), ends) ? 0.0f : g * s) / s;
}

HWFAULT_CLONES void quantize_row(const float* x, float* out, int64_t n, float s, float z, const Ends& given) {
  const Ends ends = given;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) out[i] = quantized(x[i], s, z, ends);
}

HWFAULT_CLONES void quantize_each(const float* x, float* out, int64_t n, const float* s, const float* z,
                                  const Ends& given) {
  const Ends ends = given;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) out[i] = quantized(x[i], s[i], z[i], ends);
}

HWFAULT_CLONES void pass_row(const float* x, const float* g, float* dx, int64_t n, float s, float z,
                             const Ends& given) {
  const Ends ends = given;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) dx[i] = passed(x[i], g[i], s, z, ends);
  cut_off_all(x, dx, n, ends);
}

HWFAULT_CLONES void pass_each(const float* x, const float* g, float* dx, int64_t n, const float* s, const float* z,
                              const Ends& given) {
  const Ends ends = given;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) dx[i] = passed(x[i], g[i], s[i], z[i], ends);
  cut_off_all(x, dx, n, ends);
}

// What the terms of a scale's gradient are made of: g * whole - through * ratio. A gradient that the clamp stops is 0
// times the ratio, which is no number where the ratio is infinite, as in Brevitas.
struct Terms {
  float whole[kPart], through[kPart], ratio[kPart];
};

HWFAULT_CLONES void differentiate_row(const float* x, const float* g, float* dx, int64_t n, float s, float z,
                                      const Ends& given, Terms& terms) {
  const Ends ends = given;
  float *whole = terms.whole, *through = terms.through, *ratio = terms.ratio;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) {
    const float value = x[i], gradient = g[i], q = rectified(value, ends) / s, k = std::rint(q + z);
    const bool stop = stopped(k, ends);
    dx[i] = (stop ? 0.0f : gradient * s) / s;
    whole[i] = clamped(k, ends) - z;
    through[i] = stop ? 0.0f : gradient;
    ratio[i] = q;
  }
  cut_off_all(x, dx, n, ends);
}

HWFAULT_CLONES double sum_of_terms(const float* g, const Terms& terms, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    HWFAULT_EACH_ALONE
    for (int64_t l = 0; l < kLanes; ++l) {
      const double g_ = g[i + l], through = terms.through[i + l];
      lanes[l] += g_ * terms.whole[i + l] - through * terms.ratio[i + l];
    }
  }
  for (int64_t l = 0; i < n; ++i, ++l) lanes[l] += double{g[i]} * terms.whole[i] - double{terms.through[i]} * terms.ratio[i];
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

HWFAULT_CLONES void differentiate_each(const float* x, const float* g, float* dx, double* ds, int64_t n, const float* s,
                                       const float* z, const Ends& given) {
  const Ends ends = given;
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) {
    const float q = rectified(x[i], ends) / s[i], k = std::rint(q + z[i]);
    const bool stop = stopped(k, ends);
    dx[i] = (stop ? 0.0f : g[i] * s[i]) / s[i];
    const double gradient = g[i], through = stop ? 0.0f : g[i];
    ds[i] += gradient * (clamped(k, ends) - z[i]) - through * q;
  }
  cut_off_all(x, dx, n, ends);
}

int64_t times(int64_t a, int64_t b) {
  if (a < 0 || b < 0 || (a && b > INT64_MAX / a))
    throw Error("a quantizer's values lie as " + std::to_string(a) + " times " + std::to_string(b) +
                ", expected lengths of 0 or more whose product can be counted");
  return a * b;
}

int64_t parts_of(int64_t length, int64_t part) { return length / part + (length % part != 0); }

}  // namespace

Quantizer::Quantizer(const hwfault_quantizer& given)
    : scale_(given.scale), zero_point_(given.zero_point), least_(given.least), most_(given.most) {
  constexpr float everything = std::numeric_limits<float>::infinity();
  pass_least_ = given.passes ? -everything : least_;
  pass_most_ = given.passes ? everything : most_;
  floor_ = given.rectifies ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  outer_ = given.outer, shared_ = given.shared, inner_ = given.inner;
  each_ = inner_ != 1;
  const int64_t scales = times(outer_, inner_), groups = times(given.repeats, outer_);
  rows_ = each_ ? times(groups, shared_) : groups;
  length_ = each_ ? inner_ : shared_;
  const int64_t values = times(rows_, length_);
  if (values && !(scale_ && zero_point_)) throw Error("a pointer to scales or zero points is null");
  if (given.zero_points != 1 && given.zero_points != scales)
    throw Error(std::to_string(given.zero_points) + " zero points for " + std::to_string(scales) +
                " scales, expected 1 or as many");
  if (given.zero_points == 1 && values && scales > 1) {
    zero_points_.assign(scales, zero_point_[0]);
    zero_point_ = zero_points_.data();
  }
  per_row_ = parts_of(length_, kPiece), columns_ = parts_of(length_, kColumn);
}

int64_t Quantizer::pieces_per_thread() const {
  return std::max<int64_t>(1, kPerThread / std::max<int64_t>(1, std::min(length_, kPiece)));
}

int64_t Quantizer::sums_per_thread() const {
  if (!each_) return pieces_per_thread();
  const int64_t values = sums() ? count() / sums() : 0;
  return std::max<int64_t>(1, kPerThread / std::max<int64_t>(1, values));
}

Quantizer::Piece Quantizer::piece(int64_t number) const {
  const int64_t row = number / per_row_, begin = number % per_row_ * kPiece;
  const int64_t scale = each_ ? row / shared_ % outer_ * inner_ + begin : row % outer_;
  return {row * length_ + begin, scale, std::min(kPiece, length_ - begin)};
}

void Quantizer::quantize(const float* x, float* out, int64_t first, int64_t last) const {
  const Ends ends{least_, most_, pass_least_, pass_most_, floor_};
  for (int64_t number = first; number < last; ++number) {
    const auto [at, scale, n] = piece(number);
    if (each_)
      quantize_each(x + at, out + at, n, scale_ + scale, zero_point_ + scale, ends);
    else
      quantize_row(x + at, out + at, n, scale_[scale], zero_point_[scale], ends);
  }
}

void Quantizer::pass(const float* x, const float* gradient, float* x_gradient, int64_t first, int64_t last) const {
  const Ends ends{least_, most_, pass_least_, pass_most_, floor_};
  for (int64_t number = first; number < last; ++number) {
    const auto [at, scale, n] = piece(number);
    if (each_)
      pass_each(x + at, gradient + at, x_gradient + at, n, scale_ + scale, zero_point_ + scale, ends);
    else
      pass_row(x + at, gradient + at, x_gradient + at, n, scale_[scale], zero_point_[scale], ends);
  }
}

void Quantizer::differentiate(const float* x, const float* gradient, float* x_gradient, double* scale_gradient,
                              double* sums, int64_t first, int64_t last) const {
  for (int64_t number = first; number < last; ++number)
    if (each_)
      differentiate_column(x, gradient, x_gradient, scale_gradient, number);
    else
      differentiate_piece(x, gradient, x_gradient, sums, number);
}

double Quantizer::differentiate_run(const float* x, const float* gradient, float* x_gradient, const Piece& run) const {
  const Ends ends{least_, most_, pass_least_, pass_most_, floor_};
  Terms terms;
  float given[kPart], unwanted[kPart];
  double sum = 0;
  for (int64_t done = 0; done < run.length; done += kPart) {
    const int64_t i = run.at + done, part = std::min(kPart, run.length - done);
    const float* g = gradient + i;
    if (gradient == x_gradient) g = static_cast<float*>(std::memcpy(given, g, part * sizeof(float)));
    float* dx = x_gradient ? x_gradient + i : unwanted;
    differentiate_row(x + i, g, dx, part, scale_[run.scale], zero_point_[run.scale], ends, terms);
    sum += sum_of_terms(g, terms, part);
  }
  return sum;
}

void Quantizer::differentiate_piece(const float* x, const float* gradient, float* x_gradient, double* sums,
                                    int64_t number) const {
  sums[number] = differentiate_run(x, gradient, x_gradient, piece(number));
}

void Quantizer::quantize_range(const float* x, float* out, int64_t from, int64_t to) const {
  const Ends ends{least_, most_, pass_least_, pass_most_, floor_};
  while (from < to) {
    const int64_t row = from / length_, scale = row % outer_, end = std::min(to, (row + 1) * length_);
    quantize_row(x + from, out + from, end - from, scale_[scale], zero_point_[scale], ends);
    from = end;
  }
}

void Quantizer::differentiate_range(const float* x, const float* gradient, float* x_gradient, int64_t from, int64_t to,
                                    Sums& sums) const {
  while (from < to) {
    const int64_t row = from / length_, scale = row % outer_, end = std::min(to, (row + 1) * length_);
    sums.emplace_back(scale, differentiate_run(x, gradient, x_gradient, {from, scale, end - from}));
    from = end;
  }
}

void Quantizer::differentiate_column(const float* x, const float* gradient, float* x_gradient, double* scale_gradient,
                                     int64_t number) const {
  const Ends ends{least_, most_, pass_least_, pass_most_, floor_};
  const int64_t group = number / columns_, begin = number % columns_ * kColumn;
  const int64_t n = std::min(kColumn, inner_ - begin), scale = group * inner_ + begin;
  float unwanted[kColumn];
  double* sum = scale_gradient + scale;
  std::fill(sum, sum + n, 0.0);
  for (int64_t above = group * shared_; above < rows_; above += outer_ * shared_)  // the group's rows in each repeat
    for (int64_t row = above; row < above + shared_; ++row) {
      const int64_t i = row * length_ + begin;
      float* dx = x_gradient ? x_gradient + i : unwanted;
      differentiate_each(x + i, gradient + i, dx, sum, n, scale_ + scale, zero_point_ + scale, ends);
    }
}

void Quantizer::add_up(const std::vector<double>& sums, double* scale_gradient) const {
  if (each_) return;
  std::fill(scale_gradient, scale_gradient + outer_, 0.0);
  for (int64_t row = 0; row < rows_; ++row)
    for (int64_t i = row * per_row_; i < (row + 1) * per_row_; ++i) scale_gradient[row % outer_] += sums[i];
}

namespace {

// The bits of a magnitude, which are ordered as magnitudes are, and behind them all those of NaN.
HWFAULT_INLINE uint32_t magnitude_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits & 0x7FFFFFFFu;
}

HWFAULT_CLONES float largest_of(const float* x, int64_t n) {
  constexpr int64_t kAtOnce = 4 * kLanes;  // so many that none waits for another
  uint32_t lanes[kAtOnce] = {};
  int64_t i = 0;
  for (; i + kAtOnce <= n; i += kAtOnce) {
    HWFAULT_EACH_ALONE
    for (int64_t l = 0; l < kAtOnce; ++l) lanes[l] = std::max(lanes[l], magnitude_bits(x[i + l]));
  }
  for (int64_t l = 0; i < n; ++i, ++l) lanes[l] = std::max(lanes[l], magnitude_bits(x[i]));
  const uint32_t bits = *std::max_element(lanes, lanes + kAtOnce);
  float most;
  std::memcpy(&most, &bits, sizeof(most));
  return most;
}

HWFAULT_INLINE float sign_of(float x) { return static_cast<float>((x > 0) - (x < 0)); }

}  // namespace

void largest_magnitudes(const float* x, int64_t rows, int64_t length, float* largest) {
  for (int64_t row = 0; row < rows; ++row) largest[row] = largest_of(x + row * length, length);
}

void add_to_largest(const float* x, int64_t rows, int64_t length, const float* largest, const float* gradient,
                    bool first_only, float* x_gradient) {
  for (int64_t row = 0; row < rows; ++row) {
    const float *here = x + row * length, most = largest[row];
    int64_t ties = 0;
    for (int64_t i = 0; i < length && !(first_only && ties); ++i) ties += std::fabs(here[i]) == most;
    const float share = gradient[row] / static_cast<float>(ties);
    for (int64_t i = 0, left = ties; left; ++i) {
      if (std::fabs(here[i]) != most) continue;
      x_gradient[row * length + i] += share * sign_of(here[i]);
      --left;
    }
  }
}

}  // namespace hwfault
