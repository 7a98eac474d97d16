"""The Triton kernels behind the tests' signatures: on a GPU, or under Triton's interpreter on CPU tensors.

The interpreter combines elements one by one where it does not know a reduction's function; ours is an OR, which NumPy
has.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from triton import knobs
from triton.runtime import interpreter

from hwfault.codes import Codes
from hwfault.stream import cuda
from hwfault.stream.check import signed64
from hwfault.stream.cuda.strike import either
from hwfault.stream.mechanism import MapOperands, StreamOperands
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.programs import Bit, Cluster, Process, program
from tests.helpers.torch_ops import operators

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BITS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.float16: torch.int16, torch.bfloat16: torch.int16}
STRANGE = (float("nan"), float("inf"), -float("inf"), -0.0, 0.3, -1.5, 2.5, 6e4, 1e30, -4.7e18, 1e-40)
INTERPRETED = bool(knobs.runtime.interpret)
DEVICE = "cpu" if INTERPRETED else "cuda"


@contextmanager
def fast_or() -> Iterator[None]:
    """Reductions by OR as one call of NumPy."""
    plain = interpreter.ReduceOps.apply_impl

    def apply(self: Any, input: Any) -> Any:
        if self.combine_fn is not either:
            return plain(self, input)
        return self.to_tensor(np.bitwise_or.reduce(input[0].handle.data, axis=self.axis), input[0].dtype)

    interpreter.ReduceOps.apply_impl = apply
    try:
        with np.errstate(all="ignore"):  # it works on what is infinite or not a number with NumPy
            yield
    finally:
        interpreter.ReduceOps.apply_impl = plain


def by_triton(codes: Codes, faults: Sequence[int], seed: int, sample: int, bit_width: int) -> Codes:
    """The codes of one sample after a program, as float64, which holds every code of 32 bits."""
    x = on_device(torch.from_numpy(codes.astype(np.float64))[None])
    numbers = (torch.tensor([sample]), torch.tensor(signed64(seed)), torch.tensor(faults, dtype=torch.int64))
    grid = torch.tensor(1.0), torch.tensor(0.0)
    return inject(x, *on_device(*numbers, *grid), bit_width, False)[0].cpu().numpy().astype(np.uint32)


def inject(x, *draw):
    """What the kernel of transient faults makes of x; `draw` are samples to signed, perhaps the representation."""
    return cuda.strike(x, _drawn(*draw))


def zero_faulty(gradient, x, *draw):
    return cuda.zero(gradient, x, _drawn(*draw))


def _drawn(samples, seed, program, scale, zero_point, bit_width, signed, representation=0):
    return StreamOperands(samples, seed, program, scale, zero_point, bit_width, signed, representation)


def fault_map(x, *rows):
    """What the kernel of fault maps makes of x; `rows` are period to site, both masks in one tensor."""
    return cuda.strike(x, _rows(*rows))


def zero_map(gradient, x, *rows):
    return cuda.zero(gradient, x, _rows(*rows))


def _rows(period, seed, word, masks, *rest):
    return MapOperands(period, seed, word, masks[0], masks[1], *rest)


def on_device(*given: Any) -> Any:
    """Arguments with their tensors on the kernels' device; one argument comes back by itself."""
    moved = tuple(a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in given)
    return moved[0] if len(moved) == 1 else moved


def hits(processes: Sequence[Process], words: int) -> float:
    """About how many hits there are, whether on the sample's words or behind them."""
    rates = [rate for p in processes for rate in rates_of(p)]
    blocks = -(-words // 1024)
    return 1024 * blocks * sum(-np.log1p(-rate) if rate < 1 else 1 for rate in rates)


def rates_of(process: Process) -> Sequence[float]:
    if isinstance(process, Bit):
        return [h for h, _, _ in process.planes]
    return process.rates if isinstance(process, Cluster) else (process.rate,)


def tensors(
    draw: Draw, dtype, shape, per_channel: bool, bits: int, signed: bool, zero_point: bool, representation: int = 0
) -> tuple:
    """Arguments of `operators.inject` for random values, most of them on a grid."""
    channels = shape[1] if per_channel else 1
    axes = (channels,) + (1,) * (len(shape) - 2)
    rng = draw.rng
    scale = torch.from_numpy(np.exp2(rng.uniform(-6, 2, axes))).float()
    zero = torch.from_numpy(rng.integers(0, min(2**bits, 200), axes)).float() if zero_point else torch.tensor(0.0)
    q = torch.from_numpy(rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)).double()
    if not signed:
        q += 2 ** (bits - 1)
    x = ((q - zero.double()) * scale.double()).to(dtype)
    strange = torch.from_numpy(rng.choice(np.array(STRANGE), shape)).to(dtype)
    x = torch.where(torch.from_numpy(rng.random(shape) < 0.05), strange, x)
    samples = torch.tensor([draw.sample() for _ in range(shape[0])], dtype=torch.int64)
    while not 3 < hits(processes := draw.processes(bits, 300), 300) < 40:
        pass
    faults = torch.tensor(program(processes), dtype=torch.int64)
    seed = torch.tensor(signed64(draw.seed()))
    return x, samples, seed, faults, scale, zero, bits, signed, representation


def rows_of(draw: Draw, words: int, bits: int, share: float, flips_only: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A map's rows: words and masks."""
    word = np.flatnonzero(draw.rng.random(words) < share)
    top = 2**bits
    xor_mask = draw.rng.integers(0, top, word.size, dtype=np.uint64).astype(np.uint32)
    and_mask = draw.rng.integers(0, 2**32, word.size, dtype=np.uint64).astype(np.uint32)
    and_mask[draw.rng.random(word.size) < 0.5] = 2**32 - 1
    if flips_only:
        and_mask[:] = 2**32 - 1
    return torch.from_numpy(word), torch.from_numpy(np.stack([and_mask, xor_mask]).view(np.int32))


def native_inject(x, samples, seed, faults, scale, zero_point, bits, signed, representation):
    return operators.inject(x, samples, seed, faults, scale, zero_point, bits, signed, False, True, representation)


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(BITS[a.dtype]), b.contiguous().view(BITS[b.dtype]))
