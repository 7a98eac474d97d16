"""Words of a site as integers, in torch: what values stand for, and what integers are worth.

The rules are those of hwfault.codes (the fault-stream specification, sections 1 and 6). Integers are float64, which
holds all of 32 bits, so that the kernels that strike values strike them, too; what is not finite has none: NaN.
"""

from typing import Any

import torch
from torch import Tensor

from hwfault.codes import CodeFormat
from hwfault.errors import PlanError
from hwfault.torch_ops.arranged import unnamed
from hwfault.torch_ops.inside_torch import assert_there, traced
from hwfault.torch_ops.on_cpu import DTYPES

_HALVES = (torch.float16, torch.bfloat16)
_BEYOND = 2.0**62
_NAMES = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}

_SURE = {torch.float64: 49, torch.float32: 20, torch.float16: 9, torch.bfloat16: 6}
"""Integers of so many bits come back from their values: four roundings move none of them by half a step."""
_HELD = {torch.float64: 53, torch.float32: 20, torch.float16: 11, torch.bfloat16: 8}
"""In words of so many bits integers lie no closer together than the type's numbers.

(Those of 8 bits in bfloat16 and of 10 and 11 in float16 may share a number with a neighbour, and be read as that.)
"""


def _single(dtype: torch.dtype) -> torch.dtype:
    """The type that a type's arithmetic is done in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def comes_back(dtype: torch.dtype, bit_width: int) -> bool:
    """Whether any code of so many bits, decoded to the type and encoded again, is itself, whatever the scale.

    Not so for 16 bit types, which may hold the range's end as a number beyond it.
    """
    return dtype not in _HALVES and bit_width <= _SURE.get(dtype, 0)


def integers(value: Tensor, scale: Tensor, zero_point: Tensor, fmt: CodeFormat) -> Tensor:
    """The integers of values, within the range of their words; scale and zero point broadcast to the values."""
    value, scale, zero_point = (t.detach() for t in (value, scale, zero_point))
    single = _single(value.dtype)
    rounded = torch.round(value.to(single) / scale.to(single) + zero_point.to(single))
    q = torch.where(rounded.abs() < _BEYOND, rounded, 0.0).to(torch.int64)
    if value.dtype in _HALVES:
        q = q.clamp(fmt.low, fmt.high)
    if fmt.bipolar:
        within = torch.where(q > 0, 1, -1)
    else:
        code = q & fmt.mask
        within = code - ((code & fmt.top) << 1)
    return torch.where(value.isfinite(), within.double(), torch.nan)


def code_words(q: Tensor, fmt: CodeFormat) -> Tensor:
    """The two's complement code words, int64, of integers; those of what has none are 0."""
    whole = torch.where(q.isnan(), 0.0, q).to(torch.int64)
    return (whole > 0).to(torch.int64) if fmt.bipolar else whole & fmt.mask


def values(q: Tensor, scale: Tensor, zero_point: Tensor, dtype: torch.dtype) -> Tensor:
    """What integers are worth: one subtraction and one multiplication, rounded to the type."""
    single = _single(dtype)
    worth = (q.to(single) - zero_point.detach().to(single)) * scale.detach().to(single)
    return worth.to(dtype)


def may_be_unknown(bit_width: int) -> bool:
    """Whether values of so many bits may not tell their codes in one of torch's types."""
    return bit_width > min(_HELD.values())


def known_bits() -> list[int]:
    """Of each floating type, by its number in the C functions: words of so many bits always tell their codes."""
    return [_HELD.get(dtype, 64) for dtype in DTYPES]


def sure_bits() -> list[int]:
    """The same of integers of so many bits, in words of any width."""
    return [_SURE.get(dtype, 0) for dtype in DTYPES]


def check_codes_known(name: str, value: Tensor, scale: Tensor, zero_point: Tensor, fmt: CodeFormat) -> None:
    """Raises PlanError if some value is that of two codes, or is read as another's, so that its code is not known.

    Where the words are so wide that it may be. On devices, and in what is compiled, it is a device-side assertion.
    """
    if fmt.bit_width <= _HELD.get(value.dtype, 64):
        return
    value, scale, zero_point = (t.detach() for t in (unnamed(value), scale, zero_point))
    single = _single(value.dtype)
    reach = (value.to(single) / scale.to(single)).abs() + zero_point.to(single).abs()
    sure = (reach <= 2.0 ** _SURE[value.dtype]) | ~value.isfinite()
    waits = value.device.type == "cpu" and not traced()
    if waits and sure.all():
        return
    q = integers(value, scale, zero_point, fmt)
    known = values(q, scale, zero_point, value.dtype) == value
    for beside in (q - 1, q + 1):
        inside = (beside >= fmt.low) & (beside <= fmt.high)
        known &= ~(inside & (values(beside, scale, zero_point, value.dtype) == value))
    known |= sure
    told = (
        f"the values of {name!r} do not tell their codes: {_NAMES[value.dtype]} has one number for several of the "
        f"integers that are stored in its {fmt.bit_width} bit words, so that nobody knows what a flipped bit makes of "
        "them; expected smaller integers (a larger scale, fewer bits) or a type with more digits, or leave the site out"
    )
    if not waits:
        assert_there(known.all(), told)
    elif not known.all():
        raise PlanError(told)


def replaced(x: Tensor, faulty: Tensor, changed: Tensor, straight_through: bool) -> Tensor:
    """`faulty`, which nobody else holds, in place of x: its gradient goes to x, zero at `changed` (bool) words.

    With `straight_through` it goes to all of x.
    """
    out = faulty
    if traced():
        out = replace(x, faulty, changed, straight_through)
    elif x.requires_grad and torch.is_grad_enabled():
        out = _Replaced.apply(x, faulty, None if straight_through else changed)  # type: ignore[no-untyped-call]
    return out


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, faulty: Tensor, changed: Tensor | None) -> Tensor:
        ctx.save_for_backward(changed)
        ctx.mark_dirty(faulty)  # it is the result itself: a view of it could not be written to by whoever comes next
        return faulty

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (changed,) = ctx.saved_tensors
        gradient = gradients[0]
        return gradient if changed is None else gradient.masked_fill(changed, 0), None, None


@torch.library.custom_op("hwfault::replace", mutates_args=())
def replace(x: Tensor, faulty: Tensor, changed: Tensor, straight_through: bool) -> Tensor:
    """The operator behind `replaced`, for whatever traces a network."""
    return faulty.clone()


@replace.register_fake
def _(x: Tensor, faulty: Tensor, _changed: Tensor, _straight_through: bool) -> Tensor:
    return torch.empty_like(faulty)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.straight_through = inputs[3]
    if not ctx.straight_through:
        ctx.save_for_backward(inputs[2])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return gradient if ctx.straight_through else gradient.masked_fill(ctx.saved_tensors[0], 0), None, None, None


replace.register_autograd(_backward, setup_context=_keep)
