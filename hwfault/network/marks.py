"""One sample of a network's inputs marked or changed, and what is seen of it behind.

A mark is NaN, which no rounding or clipping hides. Integers cannot hold one: it goes into the first floating tensors
that are made of them (an embedding, a conversion), at the elements that other integers of that sample change.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hwfault.network.accumulators import Notes
from hwfault.network.inputs import Inputs, tensors_in
from hwfault.network.mode import evaluation
from hwfault.torch_ops.arranged import unnamed

T = TypeVar("T")
See = Callable[[str, int, Tensor], T]
"""What is kept of a value: of the site's name, the number of its run, and the value."""
Watch = Callable[[Callable[[str, Tensor], None]], AbstractContextManager[object]]
"""Shows the name and the values of each site that runs, for as long as it is entered."""
Change = Callable[[Tensor, Tensor], Tensor]
"""Another content (of the same shape) for one sample; the whole tensor tells which numbers there are."""


class Runs:
    """Forwards of a model in evaluation mode, without gradients, all with the same random numbers."""

    def __init__(self, model: nn.Module, watch: Watch) -> None:
        self._model, self._watch = model, watch

    def see(self, inputs: Inputs, see: See[T], marks: TorchFunctionMode | None = None) -> dict[str, list[T]]:
        """What `see` keeps of each run of each site."""
        seen: dict[str, list[T]] = defaultdict(list)

        def note(name: str, value: Tensor) -> None:
            seen[name].append(see(name, len(seen[name]), unnamed(value.detach())))

        with (
            torch.inference_mode(False),
            torch.no_grad(),
            evaluation(self._model),
            same_random_numbers(inputs),
            self._watch(note),
            marks or nullcontext(),
        ):
            inputs.run(self._model)
        return dict(seen)

    def see_marked(self, inputs: Inputs, sample: int, see: See[T]) -> dict[str, list[T]]:
        """The same of inputs of which one sample is marked."""
        marked = inputs.changed(sample, _nan)
        floats = self._floats_of(inputs, sample)
        # following every function costs more than a small network; inputs that bear the mark need it not
        return self.see(marked, see, _FirstFloats(marked, floats.__getitem__) if floats else None)

    def _floats_of(self, inputs: Inputs, sample: int) -> list[Callable[[Tensor], Tensor]]:
        """What marks one sample in each of the first floating tensors made of integers."""
        if not any(map(_is_integers, tensors_in((inputs.args, inputs.kwargs)))):
            return []
        before = self._first_floats(inputs)
        touched = [torch.zeros_like(t, dtype=torch.bool) for t in before]
        for change in CHANGES:
            for mask, old, new in zip(touched, before, self._first_floats(inputs.changed(sample, change)), strict=True):
                mask |= differ(old, new)
        return [functools.partial(_marked_at, mask) for mask in touched]

    def _first_floats(self, inputs: Inputs) -> list[Tensor]:
        noted = _FirstFloats(inputs, None)
        self.see(inputs, lambda *_: None, noted)
        return noted.found


class _FirstFloats(TorchFunctionMode):
    """Follows integers to the first floating tensors made of them, and puts others in the place of these."""

    def __init__(self, inputs: Inputs, instead: Callable[[int], Callable[[Tensor], Tensor]] | None) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self._instead, self._notes = instead, Notes[bool]()
        for tensor, axis in zip(tensors_in((inputs.args, inputs.kwargs)), inputs.axes, strict=True):
            self._notes.note(tensor, True if axis is not None and _is_integers(tensor) else None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        followed = any(self._notes.of(t) for t in tensors_in((args, kwargs)))
        out = func(*args, **kwargs)
        if not followed:
            return out
        if isinstance(out, Tensor) and out.is_floating_point():
            self.found.append(out)
            return out if self._instead is None else self._instead(len(self.found) - 1)(out)
        for part in tensors_in(out):
            self._notes.note(part, True if _is_integers(part) else None)
        return out


def _marked_at(mask: Tensor, out: Tensor) -> Tensor:
    return out.masked_fill(mask, torch.nan)


def _is_integers(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def _nan(sample: Tensor, _whole: Tensor) -> Tensor:
    return torch.full_like(sample, torch.nan) if sample.is_floating_point() else sample


def _random(sample: Tensor, whole: Tensor) -> Tensor:
    """Numbers of the whole tensor's range; booleans stay."""
    low, high = whole.min(), whole.max()
    if sample.is_floating_point():
        return low + (high - low + (low == high)) * torch.rand_like(sample)
    if _is_integers(sample):
        # equal integers say nothing of others that there may be, but 0 is among them wherever they count
        least = torch.where(low == high, torch.zeros_like(low), low)
        drawn: Tensor = least + (torch.rand(sample.shape, device=sample.device) * (high - least + 1)).to(sample.dtype)
        return drawn.clamp(least, high)
    return sample


def _mirrored(sample: Tensor, whole: Tensor) -> Tensor:
    return whole.min() + whole.max() - sample if sample.dtype != torch.bool else sample


def _larger(sample: Tensor, whole: Tensor) -> Tensor:
    """Far beyond the numbers that there are, to either side; integers within their range."""
    if not sample.is_floating_point():
        return _random(sample, whole)
    return 8 * whole.abs().max() * torch.randn_like(sample)


CHANGES: Sequence[Change] = (_random, _mirrored, _larger, _random)


def differ(old: Tensor, new: Tensor) -> Tensor:
    """Where two tensors of one shape hold other numbers; NaN is like NaN."""
    return (old != new) & ~(old.isnan() & new.isnan())


@contextmanager
def same_random_numbers(inputs: Inputs) -> Iterator[None]:
    """The same random numbers inside each time; afterwards those that would have come."""
    devices = {t.device.index or 0 for t in tensors_in((inputs.args, inputs.kwargs)) if t.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices)):
        torch.default_generator.manual_seed(0)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(0)
        yield
