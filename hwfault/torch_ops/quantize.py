"""Brevitas' integer fake quantizer as one operator with one backward pass: from its scale on, or with its scale.

Every step rounds as Brevitas' own tensors do, so that values and their gradients are equal to the bit; the gradients of
scales, which are sums, are added up in float64 in an order of their own. Kept for the backward pass are the values and
the scale, and no masks. Second derivatives, and gradients that somebody follows, take the steps one by one. On the CPU
the native library does it, on CUDA devices Triton's kernels do (hwfault.stream.cuda.launch_quantize).
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from brevitas.function.ops import tensor_clamp
from brevitas.function.ops_ste import round_ste, tensor_clamp_ste
from torch import Tensor

from hwfault.stream import native
from hwfault.torch_ops import on_devices
from hwfault.torch_ops.eager import no_numbers
from hwfault.torch_ops.inside import Inside, Struck, kept_of, passing, stopping
from hwfault.torch_ops.inside_torch import is_memory, traced
from hwfault.torch_ops.lying import is_dense, lie_alike
from hwfault.torch_ops.on_cpu import Left


class Lie(NamedTuple):
    """Values as `repeats` * `outer` * `shared` * `inner` of them, with scale number o * inner + i at (r, o, s, i)."""

    repeats: int
    outer: int
    shared: int
    inner: int


class Ends(NamedTuple):
    """The integers there are, and whether gradients pass where they were clamped.

    The least and the most are numbers, for a device also tensors there, which nobody has to wait for.
    """

    least: float | Tensor
    most: float | Tensor
    passes: bool
    rectifies: bool = False
    """Whether values are rectified before, as by torch's relu."""


@lru_cache(maxsize=4096)
def lie_of(shape: tuple[int, ...], scale_shape: tuple[int, ...]) -> Lie | None:
    """How values lie on scales of a shape; None where the operator has no such way, or the scales are the longer."""
    lengths = (1,) * (len(shape) - len(scale_shape)) + tuple(scale_shape)
    if len(lengths) != len(shape) or any(n not in (1, m) for n, m in zip(lengths, shape, strict=True)):
        return None
    # axes of length 1 belong to either side
    runs: list[list[int]] = [[0, 1]]
    for length, scales in zip(shape, lengths, strict=True):
        if length == 1:
            continue
        own = int(scales != 1)
        if runs[-1][0] == own:
            runs[-1][1] *= length
        else:
            runs.append([own, length])
    return _lie([length for _, length in runs])


def _lie(runs: list[int]) -> Lie | None:
    """From the lengths of runs of axes without scales, with, without, and so on."""
    if len(runs) == 1:
        return Lie(1, 1, runs[0], 1)
    if len(runs) == 2:
        return Lie(1, 1, runs[0], runs[1])  # a scale for each value of a row
    if len(runs) > 4:
        return None
    repeats, outer, shared, inner = (*runs, 1)[:4]
    return Lie(repeats, outer, shared, inner)


def why_not(x: Tensor, scale: Tensor, zero_point: Tensor) -> str | None:
    """Why the operator does not take these tensors; None if it does."""
    return why_not_tensors(x, scale, zero_point, scale.shape)


def why_not_tensors(
    x: Tensor, source: Tensor, zero_point: Tensor, scale_shape: tuple[int, ...], reads_rows: bool = False
) -> str | None:
    """The same for what a scale of a shape is made of; `reads_rows` says that its rule reads rows of the values."""
    if not x.dtype == source.dtype == zero_point.dtype == torch.float32:
        return f"values, scale and zero point are {x.dtype}, {source.dtype} and {zero_point.dtype}, expected float32"
    if not (is_memory(x) and is_memory(source) and is_memory(zero_point)):
        return "its tensors are no plain ones on the CPU or a CUDA device"
    if not x.device == source.device == zero_point.device:
        return f"its values are on {x.device}, its scale on {source.device}, its zero point on {zero_point.device}"
    if on_device(x) and (lacking := on_devices.lacking_triton(x.device)):
        return lacking
    if zero_point.requires_grad and torch.is_grad_enabled():
        return "its zero point is learned"
    return _why_not_placed(x, scale_shape, zero_point, reads_rows)


def _why_not_placed(x: Tensor, scale_shape: tuple[int, ...], zero_point: Tensor, reads_rows: bool) -> str | None:
    lie = lie_of(x.shape, scale_shape)
    if lie is None:
        return f"its scales of shape {tuple(scale_shape)} lie in no known way on values of shape {tuple(x.shape)}"
    if zero_point.shape != scale_shape and (zero_point.numel() != 1 or zero_point.dim() > x.dim()):
        return f"its zero points have the shape {tuple(zero_point.shape)}, expected one, or that of the scales"
    one = lie.outer * lie.inner == 1 and not reads_rows
    if not (x.is_contiguous() or (one and is_dense(x))):
        return "its values do not lie one behind the other in memory"
    return None


def may_strike_inside(x: Tensor, scale_shape: tuple[int, ...]) -> bool:
    """Whether values of tensors that the operator takes can be struck in the pass that makes them."""
    lie = lie_of(x.shape, scale_shape)
    return lie is not None and lie.inner == 1 and x.numel() > 0 and x.is_contiguous()


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, ends: Ends, inside: Inside | None = None) -> Tensor:
    """The quantized values, of tensors for which `why_not` has no reason; with faults, where some strike inside.

    Those need values that `may_strike_inside` takes.
    """
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        out: Tensor = _Quantized.apply(x, scale, zero_point, ends, inside)  # type: ignore[no-untyped-call]
        return out
    return quantized(x, scale, zero_point, ends, inside)[0]


def on_device(x: Tensor) -> bool:
    """Whether Triton's kernels take a tensor."""
    return x.is_cuda


def _there(x: Tensor, scale: Tensor, zero_point: Tensor, ends: Ends) -> tuple[Any, Any, Lie]:
    """The launcher of kernels, the grid as it takes it, and how the values lie."""
    from hwfault.stream.cuda import launch_quantize  # takes Triton

    lie = lie_of(x.shape, scale.shape)
    assert lie is not None
    least, most = (torch.as_tensor(end, dtype=torch.float32, device=x.device) for end in (ends.least, ends.most))
    zero_point = zero_point.expand(scale.shape) if zero_point.dim() <= scale.dim() else zero_point.reshape(scale.shape)
    scale, zero_point = scale.contiguous(), zero_point.contiguous()
    return launch_quantize, launch_quantize.Grid(scale, zero_point, least, most, ends.passes, ends.rectifies), lie


def quantized(
    x: Tensor, scale: Tensor, zero_point: Tensor, ends: Ends, inside: Inside | None = None
) -> tuple[Tensor, Tensor | None]:
    """The values, and the places of those that are no numbers if faults would have struck such ones."""
    if on_device(x):
        kernels, grid, lie = _there(x, scale, zero_point, ends)
        if inside is None:
            return kernels.quantize(x.detach(), grid, lie), None
        faults = inside.operands(grid.scale, grid.zero_point)
        return kernels.quantize_struck(x.detach(), grid, faults), None
    out = torch.empty_like(x)
    scale, zero_point = scale.contiguous(), zero_point.contiguous()
    here, threads = _grid(x, scale, zero_point, ends), torch.get_num_threads()
    if inside is None:
        native.quantize(x.data_ptr(), out.data_ptr(), here, threads)
        return out, None
    left = Left(0)
    native.quantize_struck(x.data_ptr(), out.data_ptr(), here, inside.here(), threads, left)
    return out, no_numbers(out) if left.value and not inside.straight_through else None


def _grid(x: Tensor, scale: Tensor, zero_point: Tensor, ends: Ends) -> native.Quantizer:
    lie = lie_of(x.shape, scale.shape)
    assert lie is not None
    return native.Quantizer(scale.data_ptr(), zero_point.data_ptr(), *lie, zero_point.numel(), *ends)


class _Quantized(torch.autograd.Function):
    """Values, their gradient and that of the scale, each in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, ends: Ends, inside: Inside | None) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.ends, ctx.inside = ends, stopping(inside)
        values, left = quantized(x, scale, zero_point, ends, inside)
        ctx.save_for_backward(x, scale, zero_point, left, *kept_of(ctx.inside))
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        if gradient is None:
            return None, None, None, None, None
        x, scale, zero_point, left, *_ = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        placed = None if torch.is_grad_enabled() or traced() else as_values(gradient, x, ctx.inside is not None)
        if placed is None:
            gradient = passing(gradient, scale, zero_point, ctx.inside, left)
            return *_one_by_one(gradient, x, scale, zero_point, ctx.ends, wanted), None, None, None
        struck = None if ctx.inside is None else Struck(ctx.inside, left is not None)
        return *differentiated(placed, x, scale, zero_point, ctx.ends, wanted, struck), None, None, None


def as_values(gradient: Tensor, x: Tensor, zeroed: bool) -> Tensor | None:
    """A gradient that lies in memory as the values do; None where Brevitas' result would lie otherwise than they.

    One that is to be zeroed at faulty words becomes contiguous by that.
    """
    if not is_memory(gradient) or gradient.dtype != x.dtype:
        return None
    if (x.is_contiguous() and gradient.is_contiguous()) or lie_alike(gradient, x):
        return gradient
    becomes = zeroed or 0 in gradient.stride()
    return gradient.contiguous() if becomes and x.is_contiguous() else None


def differentiated(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    ends: Ends,
    wanted: tuple[bool, bool],
    struck: Struck | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of values and scale, as far as they are wanted; at words that were struck none passes."""
    of_x: Tensor | None
    of_scale: Tensor | None
    if on_device(x):
        kernels, grid, lie = _there(x, scale, zero_point, ends)
        if struck is None:
            of_x, of_scale = kernels.differentiate(x.detach(), gradient, grid, lie, wanted)
        else:
            faults = struck.inside.operands(grid.scale, grid.zero_point)
            of_x, of_scale = kernels.differentiate_struck(x.detach(), gradient, grid, lie, faults, wanted)
    else:
        of_x, of_scale = _differentiated_here(gradient, x, scale, zero_point, ends, wanted, struck)
    return of_x, None if of_scale is None else of_scale.to(scale.dtype)


def _differentiated_here(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    ends: Ends,
    wanted: tuple[bool, bool],
    struck: Struck | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The same on the CPU, the scale's in float64."""
    of_x = torch.empty_like(x) if wanted[0] else None
    of_scale = torch.empty(scale.shape, dtype=torch.float64, device=scale.device) if wanted[1] else None
    scale, zero_point = scale.contiguous(), zero_point.contiguous()
    given, sums = (x.data_ptr(), gradient.data_ptr()), None if of_scale is None else of_scale.data_ptr()
    grid, threads = _grid(x, scale, zero_point, ends), torch.get_num_threads()
    if struck is None:
        native.quantize_gradient(*given, None if of_x is None else of_x.data_ptr(), sums, grid, threads)
        return of_x, of_scale
    # zeros at faulty words are written to memory, wanted or not
    zeroed = torch.empty_like(x) if of_x is None else of_x
    faults = struck.inside.here()
    native.quantize_struck_gradient(*given, zeroed.data_ptr(), sums, grid, faults, struck.no_numbers, threads)
    return of_x, of_scale


def _one_by_one(
    gradient: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, ends: Ends, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The same by Brevitas' own steps, which can be differentiated again."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        if not again:
            x, scale = (t.detach().requires_grad_(wants) for t, wants in zip((x, scale), wanted, strict=True))
        out = in_steps(x, scale, zero_point, ends)
        asked = [t for t, wants in zip((x, scale), wanted, strict=True) if wants]
        found = iter(torch.autograd.grad(out, asked, gradient, create_graph=again))
    of_x, of_scale = (next(found) if wants else None for wants in wanted)
    return of_x, of_scale


def in_steps(x: Tensor, scale: Tensor, zero_point: Tensor, ends: Ends) -> Tensor:
    """What Brevitas' IntQuant does, with its functions, behind a rectifier if there is one."""
    least, most = (torch.as_tensor(end, dtype=x.dtype, device=x.device) for end in (ends.least, ends.most))
    clamp = tensor_clamp_ste if ends.passes else tensor_clamp
    rectified = torch.relu(x) if ends.rectifies else x
    integers = clamp(round_ste(rectified / scale + zero_point), min_val=least, max_val=most)
    out: Tensor = (integers - zero_point) * scale
    return out
