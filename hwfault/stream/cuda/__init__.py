"""The fault stream on CUDA devices, in Triton, equal to the reference and to the native library bit for bit."""
from typing import Any
import torch
from torch import Tensor
import triton.language as tl
from hwfault.stream.cuda.strike import strike_kernel
LANES, WIDE, WARPS = 32, 512, 1

def strike(source, out, stored, samples, seed, program, scale, scale_inner, zero_point, zero_point_inner, bit_width, signed, representation, words, lanes=LANES, wide=WIDE):
    batch = samples.numel()
    blocks = -(-words // 1024)
    if batch * blocks == 0:
        return
    bits = lambda t: t.view(torch.int16) if t.dtype == torch.bfloat16 else t
    known = stored is not None
    number = tl.float64 if source.dtype == torch.float64 else tl.float32
    strike_kernel[(batch * blocks,)](bits(source), bits(out), bits(stored) if known else bits(source), samples, seed, program, program.numel(),
        scale, scale.numel(), scale_inner, zero_point, zero_point.numel(), zero_point_inner, words, blocks, bit_width, int(signed), representation,
        ZERO=not known or stored is not source, KNOWN=known, NUMBER=number, LANES=lanes, WIDE=wide, num_warps=WARPS, num_stages=1, enable_fp_fusion=False)
