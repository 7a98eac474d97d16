"""Faults that strike quantized values in the pass that makes them, as the hook of their quantizer would afterwards."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from hwfault.stream.mechanism import StreamOperands
from hwfault.stream.native import Strike
from hwfault.torch_ops.eager import Faults, zeroed


class Inside(NamedTuple):
    """Faults of the stream; `samples` and `seed` are those of the present forward, `word` tells the words' bits,
    whether they are signed, and their representation."""

    faults: Faults
    samples: Tensor
    seed: Tensor
    program: Tensor
    word: tuple[int, int, int]
    straight_through: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a backward pass finds the faulty words by."""
        return self.samples, self.seed, self.program

    def operands(self, scale: Tensor, zero_point: Tensor) -> StreamOperands[Tensor]:
        """The same of values on a grid."""
        return StreamOperands(*self.tensors, scale, zero_point, *self.word)

    def here(self) -> Strike:
        """The same for the native library."""
        site = self.faults.site
        assert site is not None
        return site.faults(self.samples.numel(), self.seed, self.samples)


class Struck(NamedTuple):
    """What a backward pass finds the faulty words by, and whether some of them may have held no number."""

    inside: Inside
    no_numbers: bool


def stopping(inside: Inside | None) -> Inside | None:
    """The faults that gradients are not to pass, if there are any."""
    return None if inside is None or inside.straight_through else inside


def kept_of(inside: Inside | None) -> tuple[Tensor, ...]:
    """What autograd keeps of faults: to write to it before the backward pass is an error."""
    return () if inside is None else inside.tensors


def passing(gradient: Tensor, scale: Tensor, zero_point: Tensor, inside: Inside | None, left: Tensor | None) -> Tensor:
    """A gradient with zeros at faulty words but those at the places `left`, which can be differentiated again."""
    if inside is None:
        return gradient
    listed = inside.faults.mechanism.listed(inside.operands(scale, zero_point))
    return zeroed(gradient, None, left, inside.faults, listed)


class Asked(NamedTuple):
    """What is known of values before they are made: they have the shape of `x`, and lie in memory as it does."""

    x: Tensor
    scale_shape: tuple[int, ...]
    zero_point: Tensor
    bit_width: Tensor
    followed: bool
    """Whether autograd follows them."""


class StrikesInside:
    """What a forward hook is whose faults can strike in the pass that makes a quantizer's values."""

    def plan_inside(self, proxy: nn.Module, asked: Asked) -> Inside | None:
        """What the values are to be struck with, which then has to be done: the site has run. None: by the hook."""
        raise NotImplementedError

    def note_struck(self, values: Tensor) -> None:
        """Notes values that are struck, which the hook leaves alone when it is called with them."""
        raise NotImplementedError


def first_inside(hooks: Mapping[int, Any]) -> StrikesInside | None:
    """The hook that strikes a module's output before any other hook sees it, None if there is none of this kind."""
    first = next(iter(hooks.values()), None)
    return first if isinstance(first, StrikesInside) else None
