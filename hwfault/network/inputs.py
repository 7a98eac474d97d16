"""The inputs of a network: which tensors they hold, how many samples, and batches of other sizes made from them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from brevitas.quant_tensor import QuantTensor
from torch import Tensor, nn

from hwfault.errors import PlanError, describe_kind

Example = Tensor | Sequence[Any] | Mapping[str, Any]
"""Inputs of a network: a tensor, positional arguments as a tuple, or keyword arguments as a dict."""
Axes = int | None | Sequence[int | None]
"""The batch axis of all input tensors, or of each in its turn (None: it holds no batch)."""


def check_axes(axes: Axes) -> None:
    """Raises PlanError for a batch axis that is neither an integer nor a list of them and of None."""
    several = axes if isinstance(axes, list | tuple) else [axes]
    wrong = [axis for axis in several if not (axis is None or (isinstance(axis, int) and not isinstance(axis, bool)))]
    if wrong:
        raise PlanError(
            f"the batch axis is {describe_kind(wrong[0])}, expected an integer, or one for each input tensor (None: it "
            "holds no batch)"
        )


def tensors_in(given: Any) -> Iterator[Tensor]:
    """The tensors in tuples, lists and dicts, one after the other."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, QuantTensor):
        yield given.value
    elif isinstance(given, Mapping):
        for part in given.values():
            yield from tensors_in(part)
    elif isinstance(given, tuple | list):
        for part in given:
            yield from tensors_in(part)


def mapped(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tuples, lists and dicts with what `change` makes of each tensor, called in their order."""
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, QuantTensor):
        return given._replace(value=change(given.value))  # each kind is a named tuple
    if isinstance(given, Mapping):
        return {key: mapped(part, change) for key, part in given.items()}
    if isinstance(given, tuple | list):
        parts = [mapped(part, change) for part in given]
        return type(given)(*parts) if hasattr(given, "_fields") else type(given)(parts)
    return given


def samples_of(example: Example, chosen: slice) -> Example:
    """The same tuples, lists and dicts with some samples, along axis 0, of each tensor."""
    part: Example = mapped(example, lambda tensor: tensor[chosen])
    return part


def samples_in(given: Any, axes: Axes) -> int | None:
    """How many samples inputs hold: the extent of the first tensor that has the batch axis; None if none has."""
    for tensor, axis in zip(tensors_in(given), _endless(axes), strict=False):
        if axis is not None and -tensor.dim() <= axis < tensor.dim():
            return tensor.shape[axis]
    return None


def _endless(axes: Axes) -> Iterator[int | None]:
    if isinstance(axes, Sequence):
        yield from axes
        return
    while True:
        yield axes


def _named(name: str, given: Any) -> Iterator[str]:
    """What the tensors in an argument are called, in the order of `tensors_in`."""
    if isinstance(given, Tensor | QuantTensor):
        yield name
    elif isinstance(given, Mapping):
        for key, part in given.items():
            yield from _named(f"{name}.{key}", part)
    elif isinstance(given, tuple | list):
        for i, part in enumerate(given):
            yield from _named(f"{name}.{i}", part)


def _positions(forward: Callable[..., Any], count: int) -> list[str]:
    """What so many arguments by position are called."""
    names = []
    rest = "input"
    for parameter in inspect.signature(forward).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            rest = parameter.name
    names += [f"{rest}.{i}" for i in range(count - len(names))]
    return names[:count]


class Inputs(NamedTuple):
    """An example of a network's inputs: arguments by position and by name, and the batch axis of each tensor."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    axes: tuple[int | None, ...]

    @classmethod
    def of(cls, example: Example, axes: Axes = 0) -> Self:
        """An example as users give it.

        With one axis for all, tensors that have another extent along it than the first hold no batch. Raises PlanError
        where no tensor has a batch, or `axes` does not fit the tensors.
        """
        check_axes(axes)
        args = (
            () if isinstance(example, Mapping) else tuple(example) if isinstance(example, tuple | list) else (example,)
        )
        kwargs = dict(example) if isinstance(example, Mapping) else {}
        tensors = list(tensors_in((args, kwargs)))
        if isinstance(axes, Sequence) and len(axes) != len(tensors):
            raise PlanError(
                f"batch_axis names {len(axes)} axes, but the example has {len(tensors)} tensors; expected one axis for "
                "all, or one for each (None for a tensor without a batch)"
            )
        samples = samples_in((args, kwargs), axes)
        if not samples:
            shapes = ", ".join(str(tuple(t.shape)) for t in tensors) or "none"
            raise PlanError(
                f"the example has tensors of the shapes {shapes}, none with samples along axis {axes}; expected at "
                "least one sample: give a batch of inputs, and their batch_axis if it is not 0"
            )
        named = list(axes) if isinstance(axes, Sequence) else [axes] * len(tensors)
        own = [_own_axis(t, axis, samples) for t, axis in zip(tensors, named, strict=True)]
        for tensor, axis, said in zip(tensors, own, named, strict=True):
            if isinstance(axes, Sequence) and said is not None and axis is None:
                raise PlanError(
                    f"an input of the shape {tuple(tensor.shape)} does not have {samples} samples along axis {said}, "
                    "as batch_axis says"
                )
        return cls(args, kwargs, tuple(own))

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, those by position first."""
        return list(tensors_in((self.args, self.kwargs)))

    @property
    def samples(self) -> int:
        """How many samples they hold."""
        return samples_in((self.args, self.kwargs), self.axes) or 0

    def names(self, model: nn.Module) -> list[str]:
        """What each of the tensors is called: after the argument of the model's forward that it is.

        A single one by position is the `input`. Those of an argument that holds several are NAME.0, NAME.1, ... or
        NAME.KEY.
        """
        if not self.kwargs and len(self.tensors) == 1:
            return ["input"]
        arguments = list(zip(_positions(model.forward, len(self.args)), self.args, strict=True))
        arguments += self.kwargs.items()
        return [own for name, given in arguments for own in _named(name, given)]

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self._with(lambda tensor, _axis: tensor.to(device))

    def batch(self, samples: int) -> Self:
        """A batch of so many samples made of these: repeated, each time moved along within itself."""
        return self._with(lambda tensor, axis: tensor if axis is None else _batch(tensor, axis, samples))

    def changed(self, sample: int, change: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """The same with `change(one sample, whole tensor)` in place of one sample of each tensor that has a batch."""

        def put(tensor: Tensor, axis: int | None) -> Tensor:
            if axis is None:
                return tensor
            new = tensor.clone()
            new.select(axis, sample).copy_(change(new.select(axis, sample), tensor))
            return new

        return self._with(put)

    def run(self, model: nn.Module) -> Any:
        """What the model makes of them."""
        return model(*self.args, **self.kwargs)

    def _with(self, change: Callable[[Tensor, int | None], Tensor]) -> Self:
        axes = iter(self.axes)
        args, kwargs = mapped((self.args, self.kwargs), lambda tensor: change(tensor, next(axes)))
        return self._replace(args=args, kwargs=kwargs)


def _own_axis(tensor: Tensor, axis: int | None, samples: int) -> int | None:
    """The batch axis of a tensor, counted from the front; None where it holds no batch."""
    if axis is None or not -tensor.dim() <= axis < tensor.dim() or tensor.shape[axis] != samples:
        return None
    return axis % tensor.dim()


def _batch(tensor: Tensor, axis: int, samples: int) -> Tensor:
    given = tensor.shape[axis]
    parts = [_moved(tensor.select(axis, i % given), i // given) for i in range(samples)]
    return torch.stack(parts, axis)


def _moved(sample: Tensor, by: int) -> Tensor:
    """A sample whose elements are moved along by some places, so that a repeated one differs from the first."""
    return sample.flatten().roll(by).reshape(sample.shape)
