"""The law `word`: whole words that are replaced."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, StrictInt, model_validator

from hwfault.errors import ModelError, PlanError
from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.on_sites import OnSites
from hwfault.program.processes import MapProcess, Process, Site
from hwfault.records import Record
from hwfault.stream import native
from hwfault.stream.fault_map import ALL_ONES, FaultMap
from hwfault.stream.tables import WORD_PLANE, encode_table

EXAMPLE = "{model: word, probability: 0.001, effect: random}"


class Code(Record):
    """The code that words become, as its bits say it: 0 to 2^b - 1."""

    code: Annotated[StrictInt, Field(ge=0, lt=1 << 32)]


class WordFaults(OnSites):
    """Whole words replaced with `probability`: by another code, uniformly ("random"), or XORed with a constant.

    The constant is the lowest bit ("lsb"), the highest ("msb"), all bits ("full"), or an integer mask. Or they become
    one code: "zero", or `{code: 3}`; words that hold it already are no faults. A higher rate only adds faulty words;
    under "random" one that was faulty before may hold another code. With `persistence` "permanent" they are drawn once
    for a specimen, the same in every sample; "random" then has no meaning.
    """

    model: Literal["word"] = "word"
    probability: float
    effect: Literal["random", "lsb", "msb", "full"] | Literal["zero"] | StrictInt | Code = "random"
    persistence: Literal["transient", "permanent"] | None = None

    @model_validator(mode="after")
    def _what_a_map_can_say(self) -> Self:
        if self.persistence == "permanent" and self.effect == "random":
            raise ValueError(
                "persistence: a word that is always replaced by another code holds one; expected the effect zero, "
                "{code: ...}, lsb, msb, full or a mask"
            )
        return self

    @property
    def by_specimen(self) -> bool:
        """Whether words are drawn for a specimen."""
        return self.persistence == "permanent" and self.probability > 0

    def code(self, bit_width: int) -> int | None:
        """The code that words of `bit_width` bits become, None for another effect; raises ModelError if it is wider."""
        if self.effect == "zero":
            return 0
        if not isinstance(self.effect, Code):
            return None
        full = (1 << bit_width) - 1
        if self.effect.code > full:
            raise ModelError(
                f"the code {self.effect.code:#x} does not fit words of {bit_width} bits, expected 0 to {full:#x}"
            )
        return self.effect.code

    def mask(self, bit_width: int) -> int | None:
        """The bits to flip in words of `bit_width` bits, None for another effect; raises ModelError if it is wider."""
        full = (1 << bit_width) - 1
        named = {"lsb": 1, "msb": 1 << (bit_width - 1), "full": full}
        if not isinstance(self.effect, int):
            return named.get(str(self.effect))
        if not 0 < self.effect <= full:
            raise ModelError(
                f"the mask {self.effect:#x} does not fit words of {bit_width} bits, expected 1 to {full:#x}"
            )
        return self.effect


def lower(bound: Bound[WordFaults], target: Target) -> Lowered:
    """A word process at each site, which flips a mask or, for random codes, has none; of permanent faults a map.

    Raises ModelError for a mask or code wider than the word, and for a probability that cannot be drawn; PlanError for
    permanent faults at a site whose size is not known.
    """
    if bound.fault.persistence == "permanent":
        return Lowered([_permanent(bound.fault, site, target) for site in target.sites])
    return Lowered([_process(bound.fault, site, target) for site in target.sites])


def _process(fault: WordFaults, site: Site, target: Target) -> Process:
    with target.errors_at(site):
        mask = fault.mask(site.bit_width)
        code = fault.code(site.bit_width)
        tables = target.tables.numbers([fault.probability])
    kind: Literal["random", "mask"] = "random" if fault.effect == "random" else "mask"
    return Process(**target.key(site), kind=kind, tables=tables, mask=mask, code=code)


def _permanent(fault: WordFaults, site: Site, target: Target) -> MapProcess:
    """The words of a specimen that are always replaced ("Permanent faults" of the specification)."""
    if site.words is None:
        raise PlanError(
            f"the shape of the site {site.name!r} is not known, so which of its words are faulty is neither; list the "
            "network's sites with an example batch before resolving the faults"
        )
    with target.errors_at(site):
        mask = fault.mask(site.bit_width)
        code = fault.code(site.bit_width)
        table = encode_table(fault.probability)
    key = target.key(site)
    # the specimen's number is the seed, and a specimen has one sample only: its map is that of every sample
    hit, _ = native.plane_hits(target.specimen, key["site_number"], 0, site.words, WORD_PLANE, table)
    word = np.unique(hit)  # a word may be hit twice, but has one row
    if code is None:
        # a mask flips bits and takes the place of none
        kept = ALL_ONES
        flipped = np.uint32(mask or 0)
    else:
        # a code takes the place of all bits of the word
        kept = ALL_ONES ^ np.uint32((1 << site.bit_width) - 1)
        flipped = np.uint32(code)
    and_mask = np.full(len(word), kept)
    xor_mask = np.full(len(word), flipped)
    provenance = {"device": str(target.specimen)}
    return MapProcess(**key, map=FaultMap(site.bit_width, site.words, word, and_mask, xor_mask, provenance))
