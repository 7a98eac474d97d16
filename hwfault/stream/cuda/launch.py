"""Launching the Triton kernels on torch tensors."""

from contextlib import nullcontext
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream.cuda.map import map_kernel
from hwfault.stream.cuda.strike import strike_kernel
from hwfault.stream.tables import ALWAYS, BLOCK

STRIKE: dict[str, Any] = {"LANES": 32, "WIDE": 256, "num_warps": 1, "num_stages": 1, "maxnreg": 128}
"""How the kernel of transient faults is compiled: hits that lanes take, words at a time where there are more."""
MAP: dict[str, Any] = {"LANES": 32, "num_warps": 1, "num_stages": 1}
"""The same for the kernel of fault maps."""

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def inject(
    x: Tensor,
    samples: Tensor,
    seed: Tensor,
    program: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int = 0,
) -> Tensor:
    """x with the faults of a site's program, contiguous; words that no fault changed keep their bits.

    Raises PlanError for a scale or zero point that has more than one axis, or a value for each element of the batch,
    and for tensors of other types or on other devices.
    """
    x = x.contiguous()
    grid = _Grid(x, samples, scale, zero_point, (bit_width, signed, representation))
    return _strike(grid, x, x, False, samples, seed, program)


def zero_faulty(
    gradient: Tensor,
    x: Tensor | None,
    samples: Tensor,
    seed: Tensor,
    program: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int = 0,
) -> Tensor:
    """The gradient with zeros at faulty words, contiguous; x must be given where the program reads stored codes."""
    gradient = gradient.contiguous()
    grid = _Grid(gradient, samples, scale, zero_point, (bit_width, signed, representation))
    return _strike(grid, gradient, _like(gradient, x), True, samples, seed, program)


def fault_map(
    x: Tensor,
    period: Tensor,
    seed: Tensor,
    word: Tensor,
    masks: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int,
    threshold: int,
    site: int,
) -> Tensor:
    """x with `code' = (code & and_mask) ^ xor_mask` at the map's words, contiguous; other words keep their bits.

    Raises PlanError as `inject` does.
    """
    x = x.contiguous()
    grid = _Grid(x, period, scale, zero_point, (bit_width, signed, representation))
    return _map(grid, x, x, False, period, seed, word, masks, threshold, site)


def zero_map(
    gradient: Tensor,
    x: Tensor | None,
    period: Tensor,
    seed: Tensor,
    word: Tensor,
    masks: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int,
    threshold: int,
    site: int,
) -> Tensor:
    """The gradient with zeros at the words that the map changes; x must be given unless the map only flips."""
    gradient = gradient.contiguous()
    grid = _Grid(gradient, period, scale, zero_point, (bit_width, signed, representation))
    return _map(grid, gradient, _like(gradient, x), True, period, seed, word, masks, threshold, site)


class _Grid:
    """How the words of a tensor lie in samples and blocks, and how they stand for codes."""

    def __init__(
        self, x: Tensor, samples: Tensor, scale: Tensor, zero_point: Tensor, form: tuple[int, bool, int]
    ) -> None:
        if x.dtype not in _DTYPES:
            raise PlanError(f"values of type {x.dtype}, expected one of {', '.join(map(str, _DTYPES))}")
        self.batch = batch = samples.numel()
        if batch != 1 and tuple(x.shape[:1]) != (batch,):
            raise PlanError(f"{batch} sample numbers for a tensor of shape {tuple(x.shape)}, expected one an element")
        self.words = x.numel() if batch == 1 else x.shape[1:].numel()
        self.blocks = -(-self.words // BLOCK)
        self.device, self.form = x.device, (form[0], int(form[1]), form[2])
        self.number = tl.float64 if x.dtype == torch.float64 else tl.float32
        along = self._along_axis(x, scale, "scale"), self._along_axis(x, zero_point, "zero point")
        self.steps = tuple(number for one in along for number in one)

    def check(self, dtype: torch.dtype, **tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors, contiguous; raises PlanError for those of another type or on another device than x."""
        for name, tensor in tensors.items():
            if tensor.dtype != dtype or tensor.device != self.device:
                raise PlanError(
                    f"{name} is {tensor.dtype} on {tensor.device}, expected {dtype} on {self.device}, where the values "
                    "are"
                )
        return tuple(tensor.contiguous() for tensor in tensors.values())

    def _along_axis(self, x: Tensor, t: Tensor, what: str) -> tuple[Tensor, int, int]:
        """The values, how many there are, and how many words of x share one before the next comes."""
        shape = (1,) * (x.dim() - t.dim()) + tuple(t.shape)
        axes = [axis for axis, length in enumerate(shape) if length > 1]
        per_element = self.batch > 1 and axes == [0] and x.dim() > 1
        if t.dim() > x.dim() or len(axes) > 1 or per_element or any(shape[a] != x.shape[a] for a in axes):
            raise PlanError(
                f"a {what} of shape {tuple(t.shape)} for values of shape {tuple(x.shape)}, expected one for the tensor "
                "or one for each channel"
            )
        if not t.is_floating_point():
            t = t.to(torch.float64)
        (t,) = self.check(t.dtype, **{what: t.detach()})
        return t, t.numel(), x.shape[axes[0] + 1 :].numel() if axes else 1


def _like(gradient: Tensor, x: Tensor | None) -> Tensor | None:
    if x is not None and (gradient.shape, gradient.dtype, gradient.device) != (x.shape, x.dtype, x.device):
        raise PlanError(
            f"a gradient {tuple(gradient.shape)} of {gradient.dtype} on {gradient.device} for values "
            f"{tuple(x.shape)} of {x.dtype} on {x.device}, expected the same"
        )
    return None if x is None else x.contiguous()


def _strike(
    grid: _Grid, source: Tensor, stored: Tensor | None, zero: bool, samples: Tensor, seed: Tensor, program: Tensor
) -> Tensor:
    samples, seed, program = grid.check(torch.int64, samples=samples, seed=seed, program=program)
    data = (samples, seed, program, program.numel())
    return _launch(strike_kernel, grid, source, stored, data, STRIKE | {"ZERO": zero})


def _map(
    grid: _Grid,
    source: Tensor,
    stored: Tensor | None,
    zero: bool,
    period: Tensor,
    seed: Tensor,
    word: Tensor,
    masks: Tensor,
    threshold: int,
    site: int,
) -> Tensor:
    period, seed, word = grid.check(torch.int64, period=period, seed=seed, word=word)
    (masks,) = grid.check(torch.int32, masks=masks)
    if tuple(masks.shape) != (2, word.numel()):
        raise PlanError(f"masks of shape {tuple(masks.shape)} for {word.numel()} rows, expected (2, {word.numel()})")
    data = (period, seed, word, masks, word.numel(), threshold, site)
    return _launch(map_kernel, grid, source, stored, data, MAP | {"ZERO": zero, "ALWAYS": threshold >= ALWAYS})


def _launch(
    kernel: Any, grid: _Grid, source: Tensor, stored: Tensor | None, data: tuple[Any, ...], options: dict[str, Any]
) -> Tensor:
    """What a kernel writes: one program for each block of each sample."""
    out = torch.empty_like(source)
    values = tuple(_bits(t) for t in (source, out, source if stored is None else stored))
    if source.numel() > 0:
        with torch.cuda.device(source.device) if source.is_cuda else nullcontext():
            kernel[(grid.batch * grid.blocks,)](
                *values,
                *data,
                *grid.steps,
                grid.words,
                grid.blocks,
                *grid.form,
                KNOWN=stored is not None,
                NUMBER=grid.number,
                enable_fp_fusion=False,
                **options,
            )
    return out


def _bits(values: Tensor) -> Tensor:
    """bfloat16 as the integers that the kernels take it for."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values
