"""Launching the kernels of the fake quantizer on torch tensors, which are contiguous, float32 and on one device.

Those that strike as well take values of which none has a scale of its own, and programs without late bits.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwfault.stream.cuda.launch import STRIKE, Placed, on_device_of
from hwfault.stream.cuda.quantize import columns_kernel, quantize_kernel, rows_kernel
from hwfault.stream.cuda.quantize_struck import differentiate_struck_kernel, quantize_struck_kernel
from hwfault.stream.mechanism import StreamOperands

PIECE = 4096
"""Values whose gradients are added up before those of others."""
BLOCK = 1024
"""As many at a time."""
_HOW: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}
Lie = tuple[int, int, int, int]


class Grid(NamedTuple):
    """Scales, as many zero points, the least and the largest integer, whether gradients pass beyond them, and whether
    values are rectified before."""

    scale: Tensor
    zero_point: Tensor
    least: Tensor
    most: Tensor
    passes: bool
    rectifies: bool = False

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"scale": self.scale, "zero_point": self.zero_point, "least": self.least, "most": self.most}


def quantize(x: Tensor, grid: Grid, lie: Lie) -> Tensor:
    """The quantized values; `lie` are repeats, outer, shared and inner of hwfault_quantizer."""
    out, n = torch.empty_like(x), x.numel()
    _, outer, shared, inner = lie
    if n:
        with on_device_of(x):
            quantize_kernel[(_parts(n, BLOCK),)](
                x=x,
                out=out,
                n=n,
                outer=outer,
                shared=shared,
                inner=inner,
                ONE=grid.scale.numel() == 1,
                RECTIFIES=grid.rectifies,
                BLOCK=BLOCK,
                **grid.tensors,
                **_HOW,
            )
    return out


def differentiate(
    x: Tensor, gradient: Tensor, grid: Grid, lie: Lie, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of values and (float64) scales, as far as they are wanted."""
    of_x = torch.empty_like(x) if wanted[0] else None
    given: dict[str, Any] = {"x": x, "gradient": gradient, "x_gradient": x if of_x is None else of_x, **grid.tensors}
    given |= {
        "PASSES": grid.passes,
        "RECTIFIES": grid.rectifies,
        "WANTS_X": wanted[0],
        "WANTS_SCALE": wanted[1],
        **_HOW,
    }
    by = _by_rows if lie[3] == 1 else _by_columns
    of_scale = by(x, given, lie)
    return of_x, of_scale.reshape(grid.scale.shape) if wanted[1] else None


def quantize_struck(x: Tensor, grid: Grid, faults: StreamOperands[Tensor]) -> Tensor:
    """The quantized values with their faults; raises PlanError as hwfault.stream.cuda.strike does."""
    placed, out = Placed(x, faults.samples, faults), torch.empty_like(x)
    if x.numel():
        with on_device_of(x):
            quantize_struck_kernel[(placed.batch * placed.blocks,)](x=x, out=out, **_given(placed, grid, faults))
    return out


def differentiate_struck(
    x: Tensor, gradient: Tensor, grid: Grid, lie: Lie, faults: StreamOperands[Tensor], wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of values and (float64) scales, as far as they are wanted, from one that passes no faulty word."""
    placed, of_x = Placed(x, faults.samples, faults), torch.empty_like(x)
    _, outer, shared, _ = lie
    # one scale is that of all words of a sample
    length = shared if outer > 1 else placed.arguments["words"]
    parts = max(length - 1, 0) // BLOCK + 2
    rows = x.numel() // max(length, 1)
    sums = torch.zeros((rows // outer, outer, parts), dtype=torch.float64, device=x.device)
    if x.numel():
        own = {"sums": sums, "length": length, "parts": parts, "PASSES": grid.passes, "WANTS_SCALE": wanted[1]}
        with on_device_of(x):
            differentiate_struck_kernel[(placed.batch * placed.blocks,)](
                x=x, gradient=gradient, x_gradient=of_x, **own, **_given(placed, grid, faults)
            )
    of_scale = sums.sum((0, 2)).reshape(grid.scale.shape) if wanted[1] else None
    return of_x if wanted[0] else None, of_scale


def _given(placed: Placed, grid: Grid, faults: StreamOperands[Tensor]) -> dict[str, Any]:
    """What both kernels take."""
    how = {name: value for name, value in STRIKE.items() if name != "maxnreg"}  # they need more of them
    ends = {"least": grid.least, "most": grid.most, "RECTIFIES": grid.rectifies}
    return {**placed.arguments, **placed.drawn(faults), **ends, **how, "enable_fp_fusion": False}


def _by_rows(x: Tensor, given: dict[str, Any], lie: Lie) -> Tensor:
    repeats, outer, length, _ = lie
    per_row = _parts(length, PIECE)
    sums = torch.zeros((repeats, outer, per_row), dtype=torch.float64, device=x.device)
    if x.numel():
        block = min(BLOCK, 1 << max(length - 1, 0).bit_length())
        numbers = {"outer": outer, "length": length, "per_row": per_row}
        with on_device_of(x):
            rows_kernel[(sums.numel(),)](
                sums=sums, PIECE=PIECE if length > block else block, BLOCK=block, **numbers, **given
            )
    return sums.sum((0, 2))


def _by_columns(x: Tensor, given: dict[str, Any], lie: Lie) -> Tensor:
    repeats, outer, shared, inner = lie
    sums = torch.zeros(outer * inner, dtype=torch.float64, device=x.device)
    if x.numel():
        columns = _parts(inner, BLOCK)
        numbers = {"repeats": repeats, "outer": outer, "shared": shared, "inner": inner, "columns": columns}
        with on_device_of(x):
            columns_kernel[(outer * columns,)](
                sums=sums, BLOCK=min(BLOCK, 1 << (inner - 1).bit_length()), **numbers, **given
            )
    return sums


def _parts(length: int, part: int) -> int:
    return -(-length // part)
