#include "plain.h"

#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/forward_grad.h>

namespace hwfault_torch {
namespace {

uint64_t plain_keys[2];  // of tensors made outside of inference mode, and in it

bool is_included(c10::DispatchKey key) { return c10::impl::tls_is_dispatch_key_included(key); }

}  // namespace

void note_plain_keys() {
  for (const bool inference : {false, true}) {
    const c10::InferenceMode mode(inference);
    plain_keys[inference] = at::empty({0}, at::kFloat).key_set().raw_repr();
  }
}

bool is_plain(const at::Tensor& x) {
  const uint64_t keys = x.key_set().raw_repr();
  return keys == plain_keys[0] || keys == plain_keys[1];
}

bool followed() {
  return c10::impl::TorchDispatchModeTLS::any_modes_set() ||
         is_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode) ||
         is_included(c10::DispatchKey::FuncTorchDynamicLayerBackMode) || is_included(c10::DispatchKey::Tracer) ||
         torch::autograd::ForwardADLevel::try_get_by_idx(0) != nullptr;
}

int32_t dtype_number(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return HWFAULT_FLOAT32;
    case at::kDouble: return HWFAULT_FLOAT64;
    case at::kHalf: return HWFAULT_FLOAT16;
    case at::kBFloat16: return HWFAULT_BFLOAT16;
    default: return -1;
  }
}

bool owns_memory(const at::Tensor& x) {
  const c10::Storage& storage = x.storage();
  // NumPy's memory, and what is shared with other processes, is freed by others
  return storage.use_count() == 1 && storage.resizable() &&
         storage.data_ptr().get_deleter() == c10::GetCPUAllocator()->raw_deleter();
}

}  // namespace hwfault_torch
