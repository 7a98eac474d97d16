"""How often events must start so that cells are faulty with a given probability ("clusters" of the specification)."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from hwfault.stream.regions import EXACT

_STEPS = 230  # halvings of the interval of a root: more than the 60 digits of EXACT


def decimal(x: Fraction) -> Decimal:
    """A fraction to 60 digits."""
    return EXACT.divide(Decimal(x.numerator), Decimal(x.denominator))


def least(enough: Callable[[Decimal], bool], low: Decimal, high: Decimal) -> Decimal:
    """The least number that is enough, to 60 digits, between one that is not and one that is."""
    for _ in range(_STEPS):
        middle = EXACT.divide(EXACT.add(low, high), Decimal(2))
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


@lru_cache(maxsize=256)
def event_probability(p: float, sizes: Sequence[float], line: int) -> float:
    """h: how likely an event must start at a cell so that in lines of `line` cells a cell is faulty with probability p.

    `sizes` (a tuple) are the probabilities of events of 1, 2, ... cells.
    """
    if p in (0.0, 1.0):
        return p
    one = Decimal(1)
    healthy = EXACT.subtract(one, Decimal(p))
    # r events a cell on average reach the cell number i of a line: of sizes above j from the cell j before it.
    # The first cells have few before them; from the longest event's length on all are alike
    at_least = [sum(map(Fraction, sizes[j:]), Fraction(0)) for j in range(len(sizes))]
    reach = [decimal(r) for r in accumulate(at_least[:line])]
    times = [Decimal(1)] * (len(reach) - 1)
    times.append(Decimal(line - len(reach) + 1))

    def enough(x: Decimal) -> bool:
        # x = -ln(1 - h), so that a cell that r events may reach is spared with probability e^(-x r)
        spared = Decimal(0)
        for n, r in zip(times, reach, strict=True):
            alike = EXACT.exp(EXACT.minus(EXACT.multiply(x, r)))
            spared = EXACT.add(spared, EXACT.multiply(n, alike))
        return spared <= EXACT.multiply(Decimal(line), healthy)

    # if every cell were as hard to reach as the first one, this x were enough; twice as much surely is
    most = EXACT.divide(EXACT.minus(EXACT.ln(healthy)), min(reach))
    x = least(enough, Decimal(0), EXACT.multiply(most, Decimal(2)))
    return float(EXACT.subtract(one, EXACT.exp(EXACT.minus(x))))
