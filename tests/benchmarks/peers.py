"""Other ways to inject faults in training, in plain torch, to compare with: sparse draws, dense draws, random masks.

Each strikes what a quantizer returns, a tensor of values on a grid, and lets no gradient pass where it did.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from hwfault.network.sites import quantizers, sites
from hwfault.program.processes import Site
from hwfault.torch_ops.function import FaultInjectionFunction

KINDS = ("input", "activation", "weight", "bias")


class Grid(NamedTuple):
    """Which codes the values of a tensor stand for."""

    scale: Tensor
    zero_point: Tensor
    bits: int
    signed: bool

    def codes(self, values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        return torch.round(values / scale + zero_point).to(torch.int32)

    def wrapped(self, codes: Tensor) -> Tensor:
        """The integers that the lowest bits of codes say."""
        least, mask = self.least, (1 << self.bits) - 1
        return ((codes - least) & mask) + least

    @property
    def least(self) -> int:
        return -(1 << self.bits - 1) if self.signed else 0


Way = Callable[[Tensor, Grid, float], Tensor]
"""Values with faults, from the values, their grid and the probability of a bit."""


def draw_sparsely(values: Tensor, grid: Grid, probability: float) -> Tensor:
    """Sparse: a binomial number of hits at random cells, and only the words that are hit are read and written.

    Two hits of one word, of which one is lost here, are as rare as the square of the probability.
    """
    with torch.no_grad():
        cells = values.numel() * grid.bits
        hits = torch.binomial(torch.tensor(float(cells)), torch.tensor(probability))
        cell = torch.randint(max(cells, 1), (int(hits),), device=values.device)
        word, bit = cell // grid.bits, cell % grid.bits
        scale, zero_point = (_at(word, t, values.shape) for t in (grid.scale, grid.zero_point))
        codes = grid.codes(values.reshape(-1)[word], scale, zero_point)
        flipped = grid.wrapped(codes ^ (1 << bit).to(torch.int32))
        faulty = (flipped - zero_point) * scale
    out: Tensor = _Sparse.apply(values, word, faulty)  # type: ignore[no-untyped-call]
    return out


def _at(word: Tensor, t: Tensor, shape: torch.Size) -> Tensor:
    """The scales or zero points of words."""
    return t.reshape(()) if t.numel() == 1 else t.expand(shape)[torch.unravel_index(word, shape)]


class _Sparse(torch.autograd.Function):
    """Keeps the numbers of the words that were hit."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, word: Tensor, faulty: Tensor) -> Tensor:
        ctx.save_for_backward(word)
        out = values.clone(memory_format=torch.contiguous_format)
        out.view(-1)[word] = faulty
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (word,) = ctx.saved_tensors
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        gradient.view(-1)[word] = 0
        return gradient, None, None


def draw_densely(values: Tensor, grid: Grid, probability: float) -> Tensor:
    """Dense: a random number for each bit of each word, as most tools draw; which words were hit is kept."""
    with torch.no_grad():
        flips = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
        for bit in range(grid.bits):
            flips |= (torch.rand(values.shape, device=values.device) < probability).to(torch.int32) << bit
        codes = grid.codes(values, grid.scale, grid.zero_point) ^ flips
        faulty = (grid.wrapped(codes) - grid.zero_point) * grid.scale
    out: Tensor = FaultInjectionFunction.apply(values, faulty, flips != 0)
    return out


def pick_random_words(values: Tensor, grid: Grid, probability: float) -> Tensor:
    """The way of the framework that hwfault began with, imitated by its description in own code.

    An exact share of the words, as many as have a faulty bit, is picked with `randperm`; these get random integers of
    the quantizer's range, which become values outside of `no_grad`, so that autograd keeps them (8 bytes a word) beside
    the mask (1 byte), where `torch.where` puts them in, and the backward pass zeroes the gradient by the mask. There
    it is weights in the model's own parameters that are overwritten; here it is the quantized weights, at the same
    cost, so that the network remains the one that is measured.
    """
    words = values.numel()
    share = 1 - (1 - probability) ** grid.bits
    mask = torch.zeros(words, dtype=torch.bool, device=values.device)
    mask[torch.randperm(words, device=values.device)[: int(share * words)]] = True
    mask = mask.view(values.shape)
    own = torch.round(values.detach() / grid.scale.detach() + grid.zero_point).to(torch.int64)
    others = torch.randint(grid.least, grid.least + (1 << grid.bits), values.shape, device=values.device)
    faulty = (torch.where(mask, others, own) - grid.zero_point.to(torch.int64)) * grid.scale
    out: Tensor = FaultInjectionFunction.apply(values, faulty.to(values.dtype), mask)
    return out


@contextmanager
def struck(model: nn.Module, way: Way, probability: float, kinds: tuple[str, ...] = KINDS) -> Iterator[None]:
    """Faults in every bit of what the quantizers of the given kinds return, for as long as the block lasts."""
    listed = {site.name: site for site in sites(model) if site.kind in kinds}
    known = [(listed[name], proxy) for name, proxy in quantizers(model) if name in listed]
    handles = [proxy.register_forward_hook(_Hook(site, way, probability)) for site, proxy in known]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Hook:
    def __init__(self, site: Site, way: Way, probability: float) -> None:
        self._site, self._way, self._probability = site, way, probability

    def __call__(self, _proxy: nn.Module, _args: tuple[Any, ...], output: IntQuantTensor) -> IntQuantTensor:
        if output.value.dim() == 0:  # Brevitas probes quantizers with a scalar to learn their scale
            return output
        grid = Grid(output.scale, output.zero_point, self._site.bit_width, self._site.signed)
        return output._replace(value=self._way(output.value, grid, self._probability))
