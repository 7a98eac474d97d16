"""The law `bit_flips`: bits that flip independently of each other."""

from typing import Literal, Self

from pydantic import model_validator

from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.on_sites import OnSites, Probability, per_bit
from hwfault.program.processes import Process, Site
from hwfault.stream.tables import accepts

EXAMPLE = "{model: bit_flips, probability: 0.01}"


class BitFlips(OnSites):
    """Independent bit errors: `probability` for both directions, or `p01` (0 reads 1) and `p10` (1 reads 0).

    Each is one number for all bits, or a list with one for each bit, lowest first. A direction left out is 0. With
    equal probabilities, or one direction alone, a higher rate only adds faults; with two that differ only hits.
    """

    model: Literal["bit_flips"] = "bit_flips"
    probability: Probability | None = None
    p01: Probability | None = None
    p10: Probability | None = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        directed = self.p01 is not None or self.p10 is not None
        if directed == (self.probability is not None):
            raise ValueError("expected either `probability`, or `p01` and `p10`")
        return self

    def directions(self, bit_width: int) -> list[tuple[float, float]]:
        """(p01, p10) of each bit, lowest first."""
        if self.probability is not None:
            both = per_bit(self.probability, bit_width)
            return list(zip(both, both, strict=True))
        p01 = per_bit(self.p01 or 0.0, bit_width)
        p10 = per_bit(self.p10 or 0.0, bit_width)
        return list(zip(p01, p10, strict=True))


def lower(bound: Bound[BitFlips], target: Target) -> Lowered:
    """A bit process at each site: one count table and two accepts for each bit plane.

    Raises ModelError for a list of another length than the word, and for what cannot be drawn.
    """
    return Lowered([_process(bound.fault, site, target) for site in target.sites])


def _process(fault: BitFlips, site: Site, target: Target) -> Process:
    with target.errors_at(site):
        planes = [accepts(p01, p10) for p01, p10 in fault.directions(site.bit_width)]
        # a bit is hit with the larger of its two probabilities; how many hits count is told for each direction
        hits, accept01, accept10 = zip(*planes, strict=True)
        tables = target.tables.numbers(hits)
    return Process(**target.key(site), kind="bit", tables=tables, accept01=accept01, accept10=accept10)
