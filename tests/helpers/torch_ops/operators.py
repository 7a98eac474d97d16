"""The two operators with the operands of one mechanism in a row, as tests and benchmarks have them.

`stream`, `rows`, `memory` and `sums` are the arguments of `strike` for such a row, those with `_zero` the arguments of
`zero`; the rest are what the operators make of them.
"""

from typing import Any

from torch import Tensor

from hwfault.stream.mechanism import MECHANISMS
from hwfault.stream.protection import KINDS
from hwfault.torch_ops.strike_op import strike, zero

Arguments = tuple[Any, ...]


def stream(
    x: Tensor,
    samples: Tensor,
    seed: Tensor,
    program: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: int,
    signed: bool,
    straight_through: bool = False,
    reads_stored: bool = True,
    representation: int = 0,
) -> Arguments:
    numbers = [bit_width, int(signed), representation]
    return x, [samples, seed, program, scale, zero_point], numbers, "stream", straight_through, reads_stored


def stream_zero(gradient: Tensor, x: Tensor | None, *draw: Any) -> Arguments:
    """`draw` are samples to signed, and perhaps the representation."""
    _, tensors, numbers, name, _, _ = stream(gradient, *draw[:7], representation=draw[7] if len(draw) > 7 else 0)
    return gradient, x, tensors, numbers, name


def rows(
    x: Tensor,
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
    straight_through: bool = False,
    reads_stored: bool = True,
) -> Arguments:
    """`masks` (2, rows) are and_mask and xor_mask."""
    tensors = [period, seed, word, masks[0], masks[1], scale, zero_point]
    return (
        x,
        tensors,
        [bit_width, int(signed), representation, threshold, site],
        "map",
        straight_through,
        reads_stored,
    )


def rows_zero(gradient: Tensor, x: Tensor | None, *given: Any) -> Arguments:
    _, tensors, numbers, name, _, _ = rows(gradient, *given)
    return gradient, x, tensors, numbers, name


def memory(x: Tensor, *given: Any) -> Arguments:
    """`given` are samples, period, seed, program, word, masks, number, cells, scale, zero_point, bit_width, signed,
    representation, the kind by name, data_bits, slot, due, threshold, site and straight_through."""
    samples, period, seed, program, word, masks, number, cells, scale, zero_point, *numbers = given
    tensors = [samples, period, seed, program, word, masks[0], masks[1], number, cells, scale, zero_point]
    bit_width, signed, representation, kind, data_bits, slot, due, threshold, site, straight_through = numbers
    number_of = KINDS.index(kind) + 1 if kind in KINDS else 9
    own = [bit_width, int(signed), representation, number_of, data_bits, slot, int(due), threshold, site]
    return x, tensors, own, "protected", straight_through, True


def memory_zero(gradient: Tensor, x: Tensor, *given: Any) -> Arguments:
    _, tensors, numbers, name, _, _ = memory(x, *given, False)
    return gradient, x, tensors, numbers, name


def sums(
    acc: Tensor,
    x: Tensor,
    w: Tensor,
    order: Tensor,
    events: Tensor,
    walk: list[int],
    groups: int,
    numbers: list[int],
    straight_through: bool,
) -> Arguments:
    """`numbers` are width, saturate, step and pass_steps."""
    return acc, [x, w, order, events], [groups, *numbers, *walk], "array", straight_through, True


def inject(*given: Any) -> Tensor:
    return strike(*stream(*given))[0]


def zero_faulty(*given: Any) -> Tensor:
    return zero(*stream_zero(*given))


def fault_map(*given: Any) -> Tensor:
    return strike(*rows(*given))[0]


def zero_map(*given: Any) -> Tensor:
    return zero(*rows_zero(*given))


def protected(*given: Any) -> tuple[Tensor, Tensor]:
    return strike(*memory(*given))


def zero_protected(*given: Any) -> Tensor:
    return zero(*memory_zero(*given))


def accumulate(*given: Any) -> Tensor:
    return strike(*sums(*given))[0]


def by_name(arguments: Arguments) -> tuple[Tensor, Any]:
    """The values and the operands by name, for the arguments of `strike`."""
    x, tensors, numbers, mechanism, *_ = arguments
    return x, MECHANISMS[mechanism].named(tensors, numbers)
