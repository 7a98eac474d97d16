// Counters of samples and steps, without torch's dispatcher: hwfault/torch_ops/counting.py, whose rules these are.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>

#include "module.h"
#include "plain.h"

namespace hwfault_torch {
namespace {

constexpr int64_t kSamples = int64_t{1} << 32;  // that the stream has

bool is_counter(const at::Tensor& t) {
  return is_plain(t) && t.dim() == 0 && t.scalar_type() == at::kLong && !followed();
}

// The number of a counter, which is then advanced; nothing for what is no plain one.
std::optional<at::Tensor> advance(const at::Tensor& counter, int64_t by) {
  if (!is_counter(counter)) return {};
  at::Tensor before = at::empty({}, at::kLong);
  int64_t* const number = counter.mutable_data_ptr<int64_t>();
  *before.mutable_data_ptr<int64_t>() = *number;
  *number += by;
  if (!counter.is_inference()) torch::autograd::impl::bump_version(counter);
  return before;
}

// Ascending numbers, `step` apart; nothing where one is not of the stream. Autograd may keep them, if asked for.
std::optional<at::Tensor> count_from(const at::Tensor& first, int64_t n, int64_t step, int64_t rank, bool kept) {
  if (!is_counter(first)) return {};
  const int64_t begin = *first.const_data_ptr<int64_t>();
  if (begin < 0 || begin >= kSamples || n > kSamples || step > kSamples) return {};
  if (n > 0 && (begin + n - 1 >= kSamples || (begin + n - 1) * step + rank >= kSamples)) return {};
  const c10::InferenceMode mode(!kept && c10::InferenceMode::is_enabled());
  at::Tensor numbers = at::empty({n}, at::kLong);
  int64_t* const to = numbers.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < n; ++i) to[i] = (begin + i) * step + rank;
  return numbers;
}

}  // namespace

void add_counting(pybind11::module_& m) {
  m.def("advance", &advance);
  m.def("count_from", &count_from);
}

}  // namespace hwfault_torch
