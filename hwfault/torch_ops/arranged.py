"""Tensors with the samples of their batch in front, and back again: hwfault.program.batch_axes for torch."""

from typing import Any, NamedTuple

from torch import Tensor

from hwfault.program.batch_axes import BatchAxis, arrangement, grid_shape


class Arranged(NamedTuple):
    """Values with their samples in front, as (B, *shape of a sample), and the scale and zero point along them."""

    values: Tensor
    scale: Tensor
    zero_point: Tensor


def samples_of(value: Tensor, batch: BatchAxis | None, name: str) -> int:
    """How many samples a tensor of the site `name` holds; raises PlanError for a shape that `batch` does not fit."""
    return value.shape[0] if batch is None else batch.samples_in(value.shape, name)


def arrange(value: Tensor, batch: BatchAxis, name: str = "a site") -> Tensor:
    """The tensor with its samples in front, contiguous: a copy, but where they lie so already. Gradients flow."""
    how = arrangement(value.shape, batch, name)
    return unnamed(value).reshape(how.split).permute(how.order).reshape(how.arranged).contiguous()


def arrange_on_grid(value: Tensor, scale: Tensor, zero_point: Tensor, batch: BatchAxis, name: str) -> Arranged:
    """Values, scale and zero point arranged; raises PlanError for a scale along the axis of the samples."""
    lying = [_along(t, value, batch, what, name) for t, what in ((scale, "scale"), (zero_point, "zero point"))]
    return Arranged(arrange(value, batch, name), *lying)


def restore(arranged: Tensor, like: Tensor, batch: BatchAxis) -> Tensor:
    """The tensor of the shape, and with the names, of `like` whose samples `arrange` brought in front."""
    how = arrangement(like.shape, batch)
    value = arranged.reshape(how.swapped).permute(how.back).reshape(how.shape).contiguous()
    named: Any = like
    return named_as(value, named.names) if has_names(like) else value


def unnamed(value: Tensor) -> Tensor:
    """The tensor without names of its axes, which Brevitas' attention gives and most operators do not take."""
    return named_as(value, None) if has_names(value) else value


def named_as(value: Any, names: tuple[str | None, ...] | None) -> Tensor:
    """The tensor with other names of its axes; None: without any."""
    out: Tensor = value.rename(None) if names is None else value.refine_names(*names)
    return out


def has_names(value: Tensor) -> bool:
    """Whether any axis has a name."""
    return any(name is not None for name in getattr(value, "names", ()))


def _along(given: Tensor, value: Tensor, batch: BatchAxis, what: str, name: str) -> Tensor:
    if given.numel() == 1 and given.dim() <= value.dim():
        return given
    return given.reshape(grid_shape(given.shape, value.shape, batch, what, name))
