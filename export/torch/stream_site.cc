#include "stream_site.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "plain.h"

namespace hwfault_torch {
namespace {

std::shared_ptr<hwfault_site> parsed(const std::vector<int64_t>& program, int32_t bit_width, bool is_signed,
                                     int32_t representation) {
  hwfault_site* site = nullptr;
  checked(library.hwfault_site_new(program.data(), static_cast<int64_t>(program.size()), bit_width, is_signed,
                                   representation, &site));
  return {site, library.hwfault_site_free};
}

// How many words of x share one value of t before the next one comes, as words_sharing of hwfault/stream/check.py;
// 0 where it has no place there.
int64_t words_sharing(const at::Tensor& x, const at::Tensor& t, int64_t samples, bool plain_axis) {
  const int64_t missing = x.dim() - t.dim();
  if (missing < 0) return 0;
  if (t.numel() == 1) return 1;
  if (!plain_axis) return 0;
  int64_t inner = 0;
  for (int64_t axis = 0; axis < t.dim(); ++axis) {
    if (t.size(axis) == 1) continue;
    const int64_t of_x = axis + missing;
    if (inner || t.size(axis) != x.size(of_x) || (samples > 1 && of_x == 0)) return 0;
    inner = 1;
    for (int64_t behind = of_x + 1; behind < x.dim(); ++behind) inner *= x.size(behind);
  }
  return inner;
}

bool readable(const at::Tensor& t) {
  return is_plain(t) && t.is_contiguous() && t.numel() > 0 && dtype_number(t.scalar_type()) >= 0;
}

}  // namespace

StreamSite::StreamSite(std::vector<int64_t> given, int32_t width, bool sign, int32_t stored_as, bool has_samples,
                       Axis of_samples, bool reads, std::array<int32_t, 4> most_bits,
                       std::array<int32_t, 4> sure_bits)
    : program(std::move(given)),
      bit_width(width),
      is_signed(sign),
      representation(stored_as),
      batched(has_samples),
      axis(of_samples),
      reads_stored(reads),
      most_bits_(most_bits),
      sure_bits_(sure_bits),
      site_(parsed(program, width, sign, stored_as)) {}

int64_t StreamSite::samples_in(const at::Tensor& x) const {
  if (axis.axis >= x.dim() || x.size(axis.axis) % axis.rows) return -1;
  return x.size(axis.axis) / axis.rows;
}

std::optional<hwfault_shape> StreamSite::shape_of(const at::Tensor& x, int64_t samples, const at::Tensor& scale,
                                                  const at::Tensor& zero_point) const {
  const int32_t dtype = dtype_number(x.scalar_type());
  if (dtype < 0 || samples < 1 || !readable(scale) || !readable(zero_point)) return {};
  const bool plain_axis = in_front();
  const int64_t scale_inner = words_sharing(x, scale, samples, plain_axis);
  const int64_t zero_point_inner = words_sharing(x, zero_point, samples, plain_axis);
  if (scale_inner < 1 || zero_point_inner < 1) return {};
  const int64_t words = x.numel() / samples;
  int64_t run = 0;
  if (batched && !plain_axis && samples > 1) {
    run = axis.inner;
    for (int64_t behind = axis.axis + 1; behind < x.dim(); ++behind) run *= x.size(behind);
    if (run == words) run = 0;
  }
  return hwfault_shape{samples, words, scale.numel(), scale_inner, zero_point.numel(), zero_point_inner,
                       dtype, dtype_number(scale.scalar_type()), dtype_number(zero_point.scalar_type()), run};
}

bool StreamSite::always_tells_codes(at::ScalarType type) const {
  const int32_t dtype = dtype_number(type);
  return dtype >= 0 && bit_width <= most_bits_[dtype];
}

// As check_codes_known of hwfault/torch_ops/codec.py, as long as no integer is so large that it has to be looked at.
bool StreamSite::tells_codes(const hwfault_shape& shape, const at::Tensor& x, const at::Tensor& scale,
                             const at::Tensor& zero_point) const {
  if (always_tells_codes(x.scalar_type())) return true;
  for (const at::Tensor* t : {&x, &scale, &zero_point})
    if (t->scalar_type() != at::kFloat) return false;
  if (!x.is_contiguous()) return false;
  const float *const values = x.const_data_ptr<float>(), *const scales = scale.const_data_ptr<float>(),
              *const zeros = zero_point.const_data_ptr<float>();
  const float most = std::ldexp(1.0f, sure_bits_[HWFAULT_FLOAT32]);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const float step = scales[i / shape.scale_inner % shape.n_scale];
    const float zero = zeros[i / shape.zero_point_inner % shape.n_zero_point];
    if (std::isfinite(values[i]) && !(std::fabs(values[i] / step) + std::fabs(zero) <= most)) return false;
  }
  return true;
}

int64_t StreamSite::strike(const hwfault_shape& shape, const at::Tensor& x, const at::Tensor& out,
                           const at::Tensor& scale, const at::Tensor& zero_point, uint64_t seed,
                           const at::Tensor& samples) const {
  int64_t no_numbers = 0;
  const void *const from = x.const_data_ptr(), *const scales = scale.const_data_ptr(),
             *const zeros = zero_point.const_data_ptr();
  void* const to = const_cast<void*>(out.const_data_ptr());
  const int64_t* const numbers = samples.const_data_ptr<int64_t>();
  const int threads = at::get_num_threads();
  if (x.is_contiguous()) {
    checked(library.hwfault_site_strike(site_.get(), &shape, from, to, scales, zeros, seed, numbers, threads, &no_numbers));
  } else {
    const hwfault_strides strides{static_cast<int32_t>(x.dim()), x.sizes().data(), x.strides().data()};
    checked(library.hwfault_site_strike_strided(site_.get(), &shape, &strides, from, to, scales, zeros, seed, numbers,
                                                threads, &no_numbers));
  }
  return no_numbers;
}

void StreamSite::zero(const hwfault_shape& shape, const void* gradient, void* out, uint64_t seed,
                      const at::Tensor& samples) const {
  checked(library.hwfault_site_zero(site_.get(), &shape, gradient, out, nullptr, nullptr, nullptr, seed,
                                    samples.const_data_ptr<int64_t>(), at::get_num_threads()));
}

}  // namespace hwfault_torch
