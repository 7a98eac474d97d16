"""Injection against a copy of the same tensor on one device, and the ways that are written first beside it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hwfault.laws.models import BitFlips, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from hwfault.stream import cuda
from hwfault.stream.cuda import launch
from hwfault.stream.mechanism import MapOperands, StreamOperands
from hwfault.stream.tables import ALWAYS
from tests.benchmarks.device_time import measured, medians
from tests.benchmarks.gpu import Report

_FORM = {"bit_width": 4, "signed": 0, "representation": 0}
_TARGET = 0.90  # of the copy's bandwidth, up to a word rate of 1e-3


def bandwidth(report: Report, elements: int, dtype: torch.dtype, rounds: int, device: str = "cuda") -> None:
    """Injection, its backward pass and fault maps against a copy of the same tensor."""
    x = torch.randint(0, 16, (elements,), device=device, dtype=torch.int8).to(dtype) * 0.5
    report.line(f"{elements} values of {dtype}, 4 bits; bandwidth against a device-to-device copy (median of {rounds})")
    (copy, fastest), *rest = medians(measured(variants(x), rounds)).items()
    moved = 2 * elements * x.element_size()
    report.line(f"    {copy:<44} {moved / fastest / 1e6:8.0f} GB/s")
    for name, time in rest:
        target = f"   (to reach: {_TARGET:.0%})" if name in _TO_REACH else ""
        report.line(f"    {name:<44} {moved / time / 1e6:8.0f} GB/s {fastest / time:8.1%} of the copy{target}")


_TO_REACH = {f"inject, word rate {rate:g}" for rate in (0, 1e-4, 1e-3)}


def variants(x: Tensor) -> dict[str, Callable[[], object]]:
    out = torch.empty_like(x)
    runs: dict[str, Callable[[], object]] = {"copy": lambda: out.copy_(x)}
    for rate in (0.0, 1e-4, 1e-3, 1e-2, 1e-1):
        runs[f"inject, word rate {rate:g}"] = injector(x, WordFaults(probability=rate, effect="msb"))
    for rate in (1e-4, 1e-3, 1e-2, 1e-1):
        runs[f"inject, bit error rate {rate:g}"] = injector(x, BitFlips(probability=rate))
    program, numbers, grid = arguments(BitFlips(probability=1e-3), x.device)
    drawn = StreamOperands(*numbers, program, *grid, **_FORM)
    runs["gradient, bit error rate 0.001"] = lambda: cuda.zero(x, None, drawn)
    permanent = MapOperands(*numbers, *cells(x.numel(), 1e-3, x.device), *grid, **_FORM, threshold=ALWAYS, site=1)
    intermittent = permanent._replace(threshold=ALWAYS // 2)
    runs["permanent map, 0.001 of the words"] = lambda: cuda.strike(x, permanent)
    runs["intermittent map, 0.001 of the words, p = 0.5"] = lambda: cuda.strike(x, intermittent)
    runs["a uniform number for each bit, rate 0.001"] = lambda: naive(x, out, 1e-3)
    runs["a random mask of a share of 0.001"] = lambda: masked(x, out, 1e-3)
    return runs


def arguments(faults: object, device: torch.device) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A site's program, sample number and seed, scale and zero point, on the device."""
    site = Site(name="x", kind="activation", bit_width=4, signed=False)
    program = torch.tensor(resolve([site], [faults]).program("x"), dtype=torch.int64, device=device)
    numbers = torch.tensor([0], device=device), torch.tensor(0, device=device)
    return program, numbers, (torch.tensor(0.5, device=device), torch.tensor(0.0, device=device))


def injector(x: Tensor, faults: object) -> Callable[[], object]:
    program, numbers, grid = arguments(faults, x.device)
    operands = StreamOperands(*numbers, program, *grid, **_FORM)
    return lambda: cuda.strike(x, operands)


def cells(words: int, share: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Words of a map that are stuck at 0, and their masks."""
    rng = np.random.default_rng(1)
    word = np.unique(rng.integers(0, words, int(share * words)))
    bit = np.uint32(1) << rng.integers(0, 4, len(word)).astype(np.uint32)
    columns = (word, (~bit).view(np.int32), np.zeros_like(bit).view(np.int32))
    stuck, and_mask, xor_mask = (torch.from_numpy(column).to(device) for column in columns)
    return stuck, and_mask, xor_mask


def naive(x: Tensor, out: Tensor, rate: float) -> None:
    """Bit flips as they are written first: a tensor of uniform numbers for each bit (part by part, for memory)."""
    for part, into in zip(x.split(1 << 26), out.split(1 << 26), strict=True):
        code = (part / 0.5).round().to(torch.int32)
        for bit in range(4):
            code ^= (torch.rand(part.shape, device=part.device) < rate).to(torch.int32) << bit
        into.copy_(code.to(part.dtype) * 0.5)


def masked(x: Tensor, out: Tensor, share: float) -> Tensor:
    """The usual way in training frameworks (see masks.py): an exact share of elements by `randperm`, other integers.

    Returns the mask, which is kept for the backward pass.
    """
    mask = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    mask[torch.randperm(x.numel(), device=x.device)[: int(share * x.numel())]] = True
    faulty = torch.randint(0, 16, x.shape, device=x.device, dtype=torch.int32).to(x.dtype) * 0.5
    torch.where(mask, faulty, x, out=out)
    return mask


def tune(report: Report, elements: int, rounds: int, device: str = "cuda") -> None:
    """The kernel of transient faults under other settings: hits in lanes, words at a time, registers, warps."""
    x = torch.randint(0, 16, (elements,), device=device, dtype=torch.int8).float() * 0.5
    out, usual = torch.empty_like(x), dict(launch.STRIKE)
    copy = medians(measured({"copy": lambda: out.copy_(x)}, rounds))["copy"]
    runs = {f"{rate:g}": injector(x, BitFlips(probability=rate)) for rate in (0.0, 1e-4, 1e-3, 1e-2, 1e-1)}
    report.line(f"settings, bandwidth of the copy's at bit error rates {', '.join(runs)}")
    for lanes, wide, registers, warps in SETTINGS:
        launch.STRIKE.update(LANES=lanes, WIDE=wide, maxnreg=registers, num_warps=warps)
        shares = " ".join(f"{copy / time:7.1%}" for time in medians(measured(runs, rounds)).values())
        report.line(f"    lanes {lanes:>3} wide {wide:>4} registers {registers:>3} warps {warps}   {shares}")
    launch.STRIKE.update(usual)


SETTINGS = (
    (32, 256, 128, 1),
    (32, 256, 96, 1),
    (32, 256, 80, 1),
    (32, 256, 168, 1),
    (32, 256, 255, 1),
    (32, 128, 128, 1),
    (32, 128, 96, 1),
    (32, 512, 255, 1),
    (64, 256, 128, 1),
    (64, 256, 255, 1),
    (64, 512, 128, 2),
    (32, 512, 128, 2),
    (32, 1024, 128, 4),
    (64, 1024, 128, 4),
)
