"""Launching the Triton kernels on torch tensors."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from hwfault.errors import PlanError
from hwfault.stream.check import batch_and_words, words_sharing
from hwfault.stream.cuda.map import map_kernel
from hwfault.stream.cuda.strike import strike_kernel
from hwfault.stream.mechanism import MapOperands, StreamOperands
from hwfault.stream.tables import ALWAYS, BLOCK, SAMPLED

STRIKE: dict[str, Any] = {"LANES": 32, "WIDE": 256, "num_warps": 1, "num_stages": 1, "maxnreg": 128}
"""How the kernel of transient faults is compiled: hits that lanes take, words at a time where there are more."""
MAP: dict[str, Any] = {"LANES": 32, "num_warps": 1, "num_stages": 1}
"""The same for the kernel of fault maps."""

Operands = StreamOperands[Tensor] | MapOperands[Tensor]


def strike(x: Tensor, operands: Operands) -> Tensor:
    """x with faults, contiguous; words that no fault changed keep their bits.

    Raises PlanError for a scale or zero point that has more than one axis, or a value for each element of the batch,
    and for tensors of other types or on other devices.
    """
    x = x.contiguous()
    return _LAUNCH[type(operands)](x, x, operands, ZERO=False)


def zero(gradient: Tensor, stored: Tensor | None, operands: Operands) -> Tensor:
    """The gradient with zeros at the words that are changed, contiguous.

    `stored`, the values before, must be given where these decide which words that are.
    """
    return _LAUNCH[type(operands)](gradient, stored, operands, ZERO=True)


def _stream(source: Tensor, stored: Tensor | None, o: StreamOperands[Tensor], **how: Any) -> Tensor:
    placed = Placed(source, o.samples, o)
    return _launch(strike_kernel, placed, source, stored, placed.drawn(o) | STRIKE | how)


def _map(source: Tensor, stored: Tensor | None, o: MapOperands[Tensor], **how: Any) -> Tensor:
    placed = Placed(source, o.period, o)
    period, seed, word = placed.check(torch.int64, period=o.period, seed=o.seed, word=o.word)
    and_mask, xor_mask = placed.check(torch.int32, and_mask=o.and_mask, xor_mask=o.xor_mask)
    for name, mask in (("and_mask", and_mask), ("xor_mask", xor_mask)):
        if mask.shape != word.shape:
            raise PlanError(f"{name} of shape {tuple(mask.shape)} for {word.numel()} rows, expected ({word.numel()},)")
    own = {"period": period, "seed": seed, "word": word, "and_mask": and_mask, "xor_mask": xor_mask}
    numbers = {"rows": word.numel(), "threshold": o.threshold, "site": o.site}
    when = {"DRAWN": o.threshold < ALWAYS, "SAMPLED": o.threshold == SAMPLED}
    return _launch(map_kernel, placed, source, stored, own | numbers | when | MAP | how)


_LAUNCH: dict[type, Callable[..., Tensor]] = {StreamOperands: _stream, MapOperands: _map}


class Placed:
    """How the words of a tensor lie in samples and blocks, and how they stand for codes."""

    def __init__(self, x: Tensor, numbers: Tensor, o: Operands) -> None:
        self.batch, words = batch_and_words(x.shape, numbers.numel())
        self.blocks = -(-words // BLOCK)
        self._device = x.device
        scale, n_scale, scale_inner = self._along_axis(x, o.scale, "scale")
        zero_point, n_zero_point, zero_point_inner = self._along_axis(x, o.zero_point, "zero point")
        self.arguments: dict[str, Any] = {
            "scale": scale,
            "n_scale": n_scale,
            "scale_inner": scale_inner,
            "zero_point": zero_point,
            "n_zero_point": n_zero_point,
            "zero_point_inner": zero_point_inner,
            "words": words,
            "blocks": self.blocks,
            "bit_width": o.bit_width,
            "signed": int(o.signed),
            "representation": o.representation,
            "NUMBER": tl.float64 if x.dtype == torch.float64 else tl.float32,
        }

    def drawn(self, o: StreamOperands[Tensor]) -> dict[str, Any]:
        """What says which faults the stream draws; raises PlanError as `check` does."""
        samples, seed, program = self.check(torch.int64, samples=o.samples, seed=o.seed, program=o.program)
        return {"samples": samples, "seed": seed, "program": program, "program_length": program.numel()}

    def check(self, dtype: torch.dtype, **tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors, contiguous; raises PlanError for those of another type or on another device than x."""
        for name, tensor in tensors.items():
            if tensor.dtype != dtype or tensor.device != self._device:
                raise PlanError(
                    f"{name} is {tensor.dtype} on {tensor.device}, expected {dtype} on {self._device}, where the "
                    "values are"
                )
        return tuple(tensor.contiguous() for tensor in tensors.values())

    def _along_axis(self, x: Tensor, t: Tensor, what: str) -> tuple[Tensor, int, int]:
        """The values, how many there are, and how many words of x share one before the next comes."""
        inner = words_sharing(x.shape, t.shape, self.batch, what)
        t = t.detach().to(x.device, t.dtype if t.is_floating_point() else torch.float64).contiguous()
        return t, t.numel(), inner


def _launch(kernel: Any, placed: Placed, source: Tensor, stored: Tensor | None, arguments: dict[str, Any]) -> Tensor:
    """What a kernel writes: one program for each block of each sample."""
    if stored is not None:
        _check_alike(source, stored)
        stored = stored.contiguous()
    source = source.contiguous()
    out = torch.empty_like(source)
    if source.numel() > 0:
        with on_device_of(source):
            kernel[(placed.batch * placed.blocks,)](
                source=_bits(source),
                out=_bits(out),
                stored=_bits(source if stored is None else stored),
                KNOWN=stored is not None,
                enable_fp_fusion=False,
                **placed.arguments,
                **arguments,
            )
    return out


def on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whatever its arguments' is."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _check_alike(gradient: Tensor, x: Tensor) -> None:
    if (gradient.shape, gradient.dtype, gradient.device) != (x.shape, x.dtype, x.device):
        raise PlanError(
            f"a gradient {tuple(gradient.shape)} of {gradient.dtype} on {gradient.device} for values "
            f"{tuple(x.shape)} of {x.dtype} on {x.device}, expected the same"
        )


def _bits(values: Tensor) -> Tensor:
    """bfloat16 as the integers that the kernels take it for."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values
