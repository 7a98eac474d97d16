"""The accumulators of layers: how wide they are, where floats hold their sums exactly, and why a layer has none.

A layer adds up, for each output, products of an integer of its inputs and one of its weights, zero points taken off.
All codes count, also those that only a fault makes:

    largest sum = products of an output * largest integer of the inputs * largest integer of the weights

Its accumulator is a word of two's complement that holds this sum, its worst case, in both signs; a format that the
faults declare may be another one. Networks and graphs, which find layers in their own ways, say the same of them.
"""

import math
from collections.abc import Sequence

from hwfault.errors import ModelError
from hwfault.program.processes import ArrayPlan, Site

WIDEST_WORD = 32
"""Bits of the widest accumulator."""
WIDEST_INPUT = 24
"""Bits of the largest integers, in magnitude, that layers are given."""
EXACT_SUM = 1 << 24
"""float32 holds every integer up to this one in magnitude."""
EXACT_BITS = 25
"""The widest words of two's complement that float32 holds: -2^24 to 2^24 - 1."""


class NoAccumulatorError(Exception):
    """Why a layer has no accumulator that can be struck, on its way to whoever lists or plans sites."""


def largest_magnitude(bit_width: int, *, signed: bool, symmetric: bool = True) -> int:
    """The largest magnitude of integers of so many bits, zero point taken off.

    Signed ones are `symmetric` where the zero point is 0; with another one it is any within the codes.
    """
    return 1 << (bit_width - 1) if signed and symmetric else (1 << bit_width) - 1


def sum_bits(largest_sum: int) -> int:
    """The bits of the word of two's complement that holds sums up to this one in magnitude, at least 2."""
    return max(largest_sum.bit_length() + 1, 2)


def fractional(what: str) -> str:
    """The sentence on inputs, weights or values (`what`) whose zero points are no integers."""
    return f"its {what} have a zero point that is no integer, so that its sums are none either"


def check_whole(what: str, *, whole: bool) -> None:
    """Raises NoAccumulatorError for inputs or weights (`what`) unless their zero points are integers."""
    if not whole:
        raise NoAccumulatorError(fractional(what))


def check_one_scale(scales: int) -> None:
    """Raises NoAccumulatorError for inputs that have several scales."""
    if scales != 1:
        raise NoAccumulatorError(
            "its inputs have a scale for each channel, so that sums of their integers mean nothing"
        )


def make_accumulator_site(
    name: str,
    layer: str,
    weights: Sequence[int],
    *,
    largest_input: int,
    largest_weight: int,
    shape: Sequence[int] | None,
    source: str | None,
) -> Site:
    """The site of a layer's accumulator; raises NoAccumulatorError for sums that no accumulator holds.

    `layer` is its op or class, `weights` their shape (outputs, inputs, kernel), `shape` that of the sums, `source` the
    site of the integers that go in.
    """
    bits = sum_bits(math.prod(weights[1:]) * largest_input * largest_weight)
    if bits > WIDEST_WORD or largest_input >= 1 << WIDEST_INPUT:
        raise NoAccumulatorError(f"its largest sum needs {bits} bits, expected at most {WIDEST_WORD}")
    return Site(
        name=name,
        kind="accumulator",
        bit_width=bits,
        signed=True,
        layer=layer,
        shape=None if shape is None else tuple(shape),
        source=source,
        weights=tuple(weights),
        worst_case=bits,
    )


def check_exact(site: Site, array: ArrayPlan | None) -> None:
    """Raises ModelError for an accumulator that float32 does not hold exactly, unless float64 was asked for."""
    bits = max(site.bit_width, site.worst_case or 0)
    if site.kind == "accumulator" and bits > EXACT_BITS and (array is None or array.arithmetic == "float32"):
        raise ModelError(
            f"the sums of {site.name!r} need {bits} bits, and float32 is exact to {EXACT_BITS} only (below 2^24); ask "
            f"for the other arithmetic: {{model: accumulator, arithmetic: float64, sites: {site.name}}}"
        )
