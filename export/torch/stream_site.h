// A site of the stream as hooks and autograd nodes strike it: the native library's parsed site, and how tensors lie.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "library.h"

namespace hwfault_torch {

// Where the samples of a batch lie (hwfault/program/batch_axes.py).
struct Axis {
  int64_t axis = 0, inner = 1, rows = 1;
};

class StreamSite {
 public:
  // `most_bits` of each floating type, by its number: in wider words values may not tell their codes; those of integers
  // of so many `sure_bits` do
  StreamSite(std::vector<int64_t> program, int32_t bit_width, bool is_signed, int32_t representation, bool batched,
             Axis axis, bool reads_stored, std::array<int32_t, 4> most_bits, std::array<int32_t, 4> sure_bits);

  const std::vector<int64_t> program;
  const int32_t bit_width;
  const bool is_signed;
  const int32_t representation;
  const bool batched;
  const Axis axis;
  const bool reads_stored;

  // How x lies, if it has so many samples (1: all of it is one) and can be struck with this scale and zero point;
  // nothing where the longer way has to say what becomes of it.
  std::optional<hwfault_shape> shape_of(const at::Tensor& x, int64_t samples, const at::Tensor& scale,
                                        const at::Tensor& zero_point) const;
  // Whether values of a type tell their codes, whatever they are.
  bool always_tells_codes(at::ScalarType type) const;
  // Whether these do; "no" where it takes more than a glance.
  bool tells_codes(const hwfault_shape& shape, const at::Tensor& x, const at::Tensor& scale,
                   const at::Tensor& zero_point) const;
  // whether the samples lie one behind the other
  bool in_front() const { return axis.axis == 0 && axis.rows == 1; }
  const hwfault_site* get() const { return site_.get(); }
  // how many samples a tensor holds, -1 where its shape does not tell
  int64_t samples_in(const at::Tensor& x) const;

  // out = x with faults; both lie alike, without gaps, and may be one. Returns how many words hold no number.
  int64_t strike(const hwfault_shape& shape, const at::Tensor& x, const at::Tensor& out, const at::Tensor& scale,
                 const at::Tensor& zero_point, uint64_t seed, const at::Tensor& samples) const;
  // out = gradient with zeros where faults change words, whatever is stored
  void zero(const hwfault_shape& shape, const void* gradient, void* out, uint64_t seed,
            const at::Tensor& samples) const;

 private:
  std::array<int32_t, 4> most_bits_, sure_bits_;
  std::shared_ptr<hwfault_site> site_;
};

}  // namespace hwfault_torch
