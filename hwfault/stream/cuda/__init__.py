"""The fault stream on CUDA devices, in Triton: equal to the reference and to the native library, bit for bit.

`strike(x, operands)` and `zero(gradient, stored, operands)` take the operands of the mechanisms `stream` and `map` by
name (hwfault.stream.mechanism), with all tensors on one device. Each function launches one kernel, which reads seed,
numbers, program and rows from the device: nothing waits for the host, and nothing is compiled anew for another program.
So programs and maps must be sound already, as plans make them: the kernels do not check what the native library checks.
Importing this module takes Triton; with TRITON_INTERPRET=1 set before Triton is first imported, everything runs on CPU
tensors, slowly.
"""

from hwfault.stream.cuda.launch import strike, zero

__all__ = ["strike", "zero"]
