// Whether a tensor is but its memory, who holds it, and whether somebody follows what is computed: as
// hwfault/torch_ops/inside_torch.py asks in Python. A wrong answer of "no" only takes the longer way.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "hwfault.h"

namespace hwfault_torch {

constexpr int64_t kWorthTheLock = 1 << 14;  // values from which on other threads of Python may run meanwhile

// Notes what plain tensors look like; to be called outside of all modes, when the extension is loaded.
void note_plain_keys();

// No subclass, wrapper or lazy negation on the CPU.
bool is_plain(const at::Tensor& x);

// Whether dispatch modes, transforms, a tracer or forward derivatives see the operators that this thread calls.
bool followed();

// The number of a floating type in the C functions, -1 for any other.
int32_t dtype_number(at::ScalarType type);

// Whether only its holder can reach a tensor's memory, which is torch's own.
bool owns_memory(const at::Tensor& x);

}  // namespace hwfault_torch
