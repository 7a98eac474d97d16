"""Launching the kernels of the fake quantizer on torch tensors, which are contiguous, float32 and on one device."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hwfault.stream.cuda.quantize import columns_kernel, quantize_kernel, rows_kernel

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
        with _on(x):
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


def _by_rows(x: Tensor, given: dict[str, Any], lie: Lie) -> Tensor:
    repeats, outer, length, _ = lie
    per_row = _parts(length, PIECE)
    sums = torch.zeros((repeats, outer, per_row), dtype=torch.float64, device=x.device)
    if x.numel():
        block = min(BLOCK, 1 << max(length - 1, 0).bit_length())
        numbers = {"outer": outer, "length": length, "per_row": per_row}
        with _on(x):
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
        with _on(x):
            columns_kernel[(outer * columns,)](
                sums=sums, BLOCK=min(BLOCK, 1 << (inner - 1).bit_length()), **numbers, **given
            )
    return sums


def _parts(length: int, part: int) -> int:
    return -(-length // part)


def _on(x: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
