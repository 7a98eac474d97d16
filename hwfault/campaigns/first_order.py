"""Where single flips of parameters are expected to do harm, by first order: before any trial, from a few gradients."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwfault.codes import CodeFormat, decode, encode
from hwfault.network.accumulators import Quantizer
from hwfault.network.mode import evaluation
from hwfault.network.sites import known_quantizers
from hwfault.program.processes import Site

SAMPLES = 32
"""Gradients are those of so many samples, spread evenly; each takes a forward and a backward pass of its own."""
_LEAST_CLASSES = 2


class _Seen(NamedTuple):
    """What a quantizer yields: its values, on which grid, and the zeros added to them whose gradient is asked."""

    probe: Tensor
    values: Tensor
    scale: Tensor
    zero_point: Tensor


def score_flips(
    model: nn.Module, inputs: Callable[[int], Tensor], samples: int, sites: Sequence[Site]
) -> NDArray[np.float64] | str:
    """For each bit of each site (by sites, then bits from the lowest) how much harm its flips are expected to do.

    That is the mean over words and samples of (gradient x step)^2: what a flip changes of the loss, to first order, for
    each sample alone, as changes of opposite signs do harm, too. The loss is the cross entropy of the class that the
    network answers with, so that no label is needed. `inputs(i)` is sample i as a batch of one. Deterministic: one
    thread. It is a text where there is no such score: why.
    """
    known = known_quantizers(model)
    for site in sites:
        why = _why_none(site, known)
        if why is not None:
            return why
    seen: dict[str, _Seen] = {}
    chosen = np.unique(np.linspace(0, samples - 1, min(SAMPLES, samples)).round().astype(int))
    squares: dict[str, NDArray[np.float64]] = {}
    try:
        with _probing(model, {site.name: known[site.name] for site in sites}, seen):
            for number in chosen.tolist():
                _add_gradients(model, inputs(number), seen, squares)
    except RuntimeError as error:  # as autograd says of what has no gradient
        return f"the network has no gradients to score flips by ({str(error).splitlines()[0][:120]})"
    if len(squares) < len(sites):
        return "the network's outputs are no classes, so that no loss scores its flips"
    parts = [_score(site, seen[site.name], squares[site.name] / len(chosen)) for site in sites]
    scores = np.concatenate(parts)
    if not np.isfinite(scores).all() or not scores.max() > 0:
        return "the gradients are all 0, or no numbers"
    return scores


def _why_none(site: Site, known: Mapping[str, Quantizer]) -> str | None:
    """Why the flips of a site have no score."""
    if site.batched or site.name not in known:
        return f"{site.name} is no parameter of the network, and only those are scored"
    sharing = [name for name, one in known.items() if one.proxy is known[site.name].proxy]
    return f"layers share the quantizer {site.name}" if len(sharing) > 1 else None


@contextmanager
def _probing(model: nn.Module, quantizers: Mapping[str, Quantizer], seen: dict[str, _Seen]) -> Iterator[None]:
    """Inside, what the quantizers yield has a gradient of its own; one thread, so that it is the same every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ExitStack() as stack:
            stack.enter_context(evaluation(model))
            stack.enter_context(torch.enable_grad())
            for name, quantizer in quantizers.items():
                handle = quantizer.proxy.register_forward_hook(partial(_probe, seen, name))
                stack.callback(handle.remove)
            yield
    finally:
        torch.set_num_threads(threads)


def _probe(seen: dict[str, _Seen], name: str, _proxy: nn.Module, _args: Any, output: Any) -> Any:
    value = output.value
    probe = torch.zeros_like(value, requires_grad=True)
    seen[name] = _Seen(probe, value.detach(), output.scale.detach(), output.zero_point.detach())
    return output.set(value=value + probe)


def _add_gradients(
    model: nn.Module, x: Tensor, seen: dict[str, _Seen], squares: dict[str, NDArray[np.float64]]
) -> None:
    """Adds the squares of one sample's gradients, word by word; nothing where outputs are no classes."""
    out = model(x)
    out = getattr(out, "value", out)
    if not isinstance(out, Tensor) or out.dim() != _LEAST_CLASSES or out.shape[1] < _LEAST_CLASSES:
        return
    loss = nn.functional.cross_entropy(out, out.argmax(1))
    names = list(seen)
    gradients = torch.autograd.grad(loss, [seen[name].probe for name in names], allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        found = torch.zeros_like(seen[name].probe) if gradient is None else gradient
        square = found.detach().double().square().flatten().cpu().numpy()
        squares[name] = squares.get(name, 0.0) + square


def _score(site: Site, seen: _Seen, squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of each bit of a site."""
    fmt = CodeFormat(site.bit_width, site.signed)
    values, scale, zero_point = (tensor.float().cpu().numpy() for tensor in (seen.values, seen.scale, seen.zero_point))
    codes = encode(values, scale, zero_point, fmt)
    before = decode(codes, scale, zero_point, fmt)
    found = []
    for bit in range(site.bit_width):
        step = decode(codes ^ np.uint32(1 << bit), scale, zero_point, fmt) - before
        found.append(float((squares * np.square(step.astype(np.float64)).ravel()).mean()))
    return np.array(found)
