"""The fault stream on CUDA devices, in Triton: equal to the reference and to the native library, bit for bit.

| argument          | type, shape              | meaning                                                         |
|-------------------|--------------------------|-----------------------------------------------------------------|
| x, gradient       | floating, any            | values on the quantizer's grid; gradient of the faulty values   |
| samples, period   | int64 (batch,)           | number of each element of axis 0; one: x is one sample          |
| seed              | int64 ()                 | the bits of the unsigned 64 bit seed                            |
| program           | int64 (n,)               | the site's fault program (hwfault.stream.reference)             |
| word              | int64 (rows,)            | a fault map's words within a sample, strictly ascending         |
| masks             | int32 (2, rows)          | their and_mask and xor_mask, the bits of unsigned numbers       |
| threshold, site   | int                      | activity threshold, 0 to 2^32 (always); its draws' site number  |
| scale, zero_point | floating, one axis not 1 | the quantizer's, aligned to x's last axes                       |
| representation    | int                      | index into hwfault.codes.REPRESENTATIONS                        |

All tensors are on one device. Each function launches one kernel, which reads seed, numbers, program and rows from the
device: nothing waits for the host, and nothing is compiled anew for another program. So programs and maps must be
sound already, as plans make them: the kernels do not check what the native library checks. Importing this module
takes Triton; with TRITON_INTERPRET=1 set before Triton is first imported, everything runs on CPU tensors, slowly.
"""

from hwfault.stream.cuda.launch import fault_map, inject, zero_faulty, zero_map

__all__ = ["fault_map", "inject", "zero_faulty", "zero_map"]
