"""Measures on one site: what they cost in memory and energy, and what of the site's harm is left, for one flip."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from hwfault.campaigns.hardening.harm import SiteHarm
from hwfault.campaigns.study.hardening import Costs
from hwfault.stream.protection_scheme import Protection

Coded = Literal["parity", "secded", "tmr"]
Kind = Literal["none", "parity", "secded", "tmr", "hardened"]
_CODED: tuple[Coded, ...] = get_args(Coded)
_WIDEST = 64


class Measure(NamedTuple):
    """A measure on a site; `size` is the data bits of a memory word, or the number of highest bits that are hardened.

    `extra_bits` are plain bits beside the site's own, `extra_energy` reads of a plain bit beside one of each of its
    bits. Of the flips of its own bits, `wrong`, `due` and `lost` are left as the harm counts them, times the site's
    weight.
    """

    site: str
    kind: Kind
    size: int
    extra_bits: float
    extra_energy: float
    wrong: float
    due: float
    lost: float | None
    bits_left: int = 0
    """How many of the lowest bits of a word still do their harm silently."""
    bits_lost: int = 0
    """How many still cost right answers, detected ones among them."""
    spoiled: float | None = None
    """Of drawn flips: the right answers that are lost, without those that are won elsewhere."""

    @property
    def name(self) -> str:
        """The measure in a few words, without its site."""
        if self.kind == "none":
            return "none"
        if self.kind == "hardened":
            return f"hardened top {self.size} bits" if self.size > 1 else "hardened top bit"
        if self.kind == "tmr":
            return "TMR"
        code = "SECDED" if self.kind == "secded" else "parity"
        return f"{code} on {self.size} data bits"

    @property
    def protection(self) -> Protection | None:
        """The memory that it makes of the site's; None for one without check bits."""
        if self.kind == "none" or self.kind == "hardened":
            return None
        return Protection(kind=self.kind, data_bits=self.size, on_detected="due")

    @property
    def extra_bytes(self) -> float:
        """The extra memory in bytes."""
        return self.extra_bits / 8


def measures_of(site: SiteHarm, costs: Costs) -> list[Measure]:
    """Every measure that there is for a site, that of doing nothing first; of equal ones all are kept."""
    found = [_left("none", 0, 0.0, 0.0, site, site.width)]
    for kind in _CODED:
        # what is voted on does not depend on how many bits are voted on together
        sizes = (_WIDEST,) if kind == "tmr" else tuple(dict.fromkeys(costs.data_bits))
        found += [_coded(site, kind, size, costs) for size in sizes]
    found += [_hardened(site, top, costs) for top in range(1, site.width + 1)]
    return found


def _left(kind: Kind, size: int, extra: float, energy: float, site: SiteHarm, bits: int) -> Measure:
    """A measure after which the lowest so many bits of a site's words do the harm that they did."""
    weight = 1 if site.weight == 1 else site.weight  # counts stay whole numbers where they are

    def harm(counts: Sequence[float]) -> float:
        return weight * sum(counts[:bits])

    wrong = harm(site.wrong)
    due = float(harm(site.due))
    lost = None if site.lost is None else harm(site.lost)
    spoiled = None if site.spoiled is None else harm(site.spoiled)
    return Measure(site.name, kind, size, extra, energy, wrong, due, lost, bits, bits, spoiled)


def _coded(site: SiteHarm, kind: Coded, data_bits: int, costs: Costs) -> Measure:
    """Check bits: one flip of a word is corrected, or by parity detected, also where it falls on a check bit."""
    protection = Protection(kind=kind, data_bits=data_bits, on_detected="due")
    words = protection.memory(site.width).words(site.words)
    extra = float(words * protection.check_bits)
    if kind == "tmr":
        extra = 2.0 * site.bits
    lost: float | None = None if site.lost is None else 0
    spoiled: float | None = None if site.spoiled is None else 0
    due = 0.0
    bits_lost = 0
    if kind == "parity":
        # every flip is detected, those of check bits on top, and no answer gets better by it
        due = site.weight * sum(site.tried) * (site.bits + extra) / site.bits
        nothing = _left("none", 0, 0.0, 0.0, site, site.width)
        lost, spoiled, bits_lost = nothing.lost, nothing.spoiled, nothing.bits_lost
    energy = extra + costs.decode * words
    return Measure(site.name, kind, data_bits, extra, energy, 0, due, lost, 0, bits_lost, spoiled)


def _hardened(site: SiteHarm, top: int, costs: Costs) -> Measure:
    """The highest bits in cells that do not flip."""
    left = site.width - top
    cells = site.words * top
    extra = (costs.hardened_bit - 1) * cells
    energy = (costs.hardened_read - 1) * cells
    return _left("hardened", top, extra, energy, site, left)


def without_worse(measures: Sequence[Measure]) -> list[Measure]:
    """The measures of a site without those that another one beats or equals: memory, energy, SDC, DUE and accuracy.

    Of equal ones the first stays.
    """
    kept: list[Measure] = []
    for place, one in enumerate(measures):
        mine = _weights(one)
        beaten = False
        for other_place, other in enumerate(measures):
            theirs = _weights(other)
            better = all(a <= b for a, b in zip(theirs, mine, strict=True))
            if other_place != place and better and (theirs != mine or other_place < place):
                beaten = True
        if not beaten:
            kept.append(one)
    return kept


def _weights(one: Measure) -> tuple[float, ...]:
    answers = float(one.lost or 0), float(one.spoiled or 0)
    return one.extra_bits, one.extra_energy, float(one.wrong), one.due, *answers
