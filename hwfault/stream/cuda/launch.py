"""Launching the Triton kernels on torch tensors."""

from contextlib import nullcontext
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream.check import batch_and_words, words_sharing
from hwfault.stream.cuda.map import map_kernel
from hwfault.stream.cuda.strike import strike_kernel
from hwfault.stream.tables import ALWAYS, BLOCK

STRIKE: dict[str, Any] = {"LANES": 32, "WIDE": 256, "num_warps": 1, "num_stages": 1, "maxnreg": 128}
"""How the kernel of transient faults is compiled: hits that lanes take, words at a time where there are more."""
MAP: dict[str, Any] = {"LANES": 32, "num_warps": 1, "num_stages": 1}
"""The same for the kernel of fault maps."""


def inject(x: Tensor, *draw: Any) -> Tensor:
    """x with the faults of a site's program, contiguous; words that no fault changed keep their bits.

    `draw` is samples, seed, program, scale, zero_point, bit_width, signed and representation (default 0). Raises
    PlanError for a scale or zero point that has more than one axis, or a value for each element of the batch, and for
    tensors of other types or on other devices.
    """
    x = x.contiguous()
    return _strike(x, x, False, *draw)


def zero_faulty(gradient: Tensor, x: Tensor | None, *draw: Any) -> Tensor:
    """The gradient with zeros at faulty words, contiguous; x must be given where the program reads stored codes."""
    return _strike(gradient, x, True, *draw)


def fault_map(x: Tensor, *rows: Any) -> Tensor:
    """x with `code' = (code & and_mask) ^ xor_mask` at the map's words, contiguous; other words keep their bits.

    `rows` is period, seed, word, masks, scale, zero_point, bit_width, signed, representation, threshold and site.
    Raises PlanError as `inject` does.
    """
    x = x.contiguous()
    return _map(x, x, False, *rows)


def zero_map(gradient: Tensor, x: Tensor | None, *rows: Any) -> Tensor:
    """The gradient with zeros at the words that the map changes; x must be given unless the map only flips."""
    return _map(gradient, x, True, *rows)


def _strike(
    source: Tensor,
    stored: Tensor | None,
    zero: bool,
    samples: Tensor,
    seed: Tensor,
    program: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    representation: int = 0,
) -> Tensor:
    grid = _Grid(source, samples, scale, zero_point, (bit_width, signed, representation))
    samples, seed, program = grid.check(torch.int64, samples=samples, seed=seed, program=program)
    data = (samples, seed, program, program.numel())
    return _launch(strike_kernel, grid, source, stored, data, STRIKE | {"ZERO": zero})


def _map(
    source: Tensor,
    stored: Tensor | None,
    zero: bool,
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
    grid = _Grid(source, period, scale, zero_point, (bit_width, signed, representation))
    period, seed, word = grid.check(torch.int64, period=period, seed=seed, word=word)
    (masks,) = grid.check(torch.int32, masks=masks)
    if tuple(masks.shape) != (2, word.numel()):
        raise PlanError(f"masks of shape {tuple(masks.shape)} for {word.numel()} rows, expected (2, {word.numel()})")
    data = (period, seed, word, masks, word.numel(), threshold, site)
    return _launch(map_kernel, grid, source, stored, data, MAP | {"ZERO": zero, "ALWAYS": threshold >= ALWAYS})


class _Grid:
    """How the words of a tensor lie in samples and blocks, and how they stand for codes."""

    def __init__(
        self, x: Tensor, samples: Tensor, scale: Tensor, zero_point: Tensor, form: tuple[int, bool, int]
    ) -> None:
        self.batch, self.words = batch_and_words(x.shape, samples.numel())
        self.blocks = -(-self.words // BLOCK)
        self.device, self.form = x.device, (form[0], int(form[1]), form[2])
        self.number = tl.float64 if x.dtype == torch.float64 else tl.float32
        self.steps = (*self._along_axis(x, scale, "scale"), *self._along_axis(x, zero_point, "zero point"))

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
        inner = words_sharing(x.shape, t.shape, self.batch, what)
        t = t.detach().to(x.device, t.dtype if t.is_floating_point() else torch.float64).contiguous()
        return t, t.numel(), inner


def _launch(
    kernel: Any, grid: _Grid, source: Tensor, stored: Tensor | None, data: tuple[Any, ...], options: dict[str, Any]
) -> Tensor:
    """What a kernel writes: one program for each block of each sample."""
    if stored is not None:
        _check_alike(source, stored)
        stored = stored.contiguous()
    source = source.contiguous()
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


def _check_alike(gradient: Tensor, x: Tensor) -> None:
    one, other = ((t.shape, t.dtype, t.device) for t in (gradient, x))
    if one != other:
        raise PlanError(
            f"a gradient {tuple(gradient.shape)} of {gradient.dtype} on {gradient.device} for values "
            f"{tuple(x.shape)} of {x.dtype} on {x.device}, expected the same"
        )


def _bits(values: Tensor) -> Tensor:
    """bfloat16 as the integers that the kernels take it for."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values
