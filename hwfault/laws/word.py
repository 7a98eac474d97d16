"""The law `word`: whole words that are replaced."""

from typing import Literal

from pydantic import StrictInt

from hwfault.errors import ModelError
from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.on_sites import OnSites
from hwfault.program.processes import Process, Site

EXAMPLE = "{model: word, probability: 0.001, effect: random}"


class WordFaults(OnSites):
    """Whole words replaced with `probability`: by another code, uniformly ("random"), or XORed with a constant.

    The constant is the lowest bit ("lsb"), the highest ("msb"), all bits ("full"), or an integer mask. A higher rate
    only adds faulty words; under "random" one that was faulty before may hold another code.
    """

    model: Literal["word"] = "word"
    probability: float
    effect: Literal["random", "lsb", "msb", "full"] | StrictInt = "random"

    def mask(self, bit_width: int) -> int | None:
        """The constant for words of `bit_width` bits (None for "random"); raises ModelError if wider than the word."""
        full = (1 << bit_width) - 1
        named = {"random": None, "lsb": 1, "msb": 1 << (bit_width - 1), "full": full}
        if isinstance(self.effect, str):
            return named[self.effect]
        if not 0 < self.effect <= full:
            raise ModelError(
                f"the mask {self.effect:#x} does not fit words of {bit_width} bits, expected 1 to {full:#x}"
            )
        return self.effect


def lower(bound: Bound[WordFaults], target: Target) -> Lowered:
    """A word process at each site, which XORs a mask or, for random codes, has none.

    Raises ModelError for a mask wider than the word, and for a probability that cannot be drawn.
    """
    return Lowered([_process(bound.fault, site, target) for site in target.sites])


def _process(fault: WordFaults, site: Site, target: Target) -> Process:
    with target.errors_at(site):
        mask = fault.mask(site.bit_width)
        tables = target.tables.numbers([fault.probability])
    return Process(**target.key(site), kind="random" if mask is None else "mask", tables=tables, mask=mask)
