"""What a question of single flips says of sites: heat map, ranking, and for which rates it may be read."""

from collections.abc import Sequence
from typing import NamedTuple

from hwfault.campaigns.kept import KeptTask
from hwfault.campaigns.page.cells import (
    Flips,
    HeatMap,
    Ranked,
    names_told,
    rank_sites,
    rate_of_several,
    several_expected,
    several_faults,
)
from hwfault.campaigns.page.curves import level_of, scale_told
from hwfault.campaigns.page.words import SPACE, at_most, share, told
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.study.tasks import SCORED

MOST_SEVERAL = 0.05
"""Above this probability of two or more faults a census of single flips no longer speaks for a rate."""


class Cell(NamedTuple):
    """A cell of the heat map as the page shows it: its text, its class, and what it is in words."""

    text: str
    look: str
    told: str


class SingleFlips(NamedTuple):
    """A question of single flips, ready for the template."""

    question: str
    map: HeatMap
    bits: tuple[int, ...]
    rows: list[tuple[str, list[Cell]]]
    scale: list[str]
    basis: str
    ranking: list[tuple[str, ...]]
    missed: str
    several: list[tuple[str, str, bool]]
    limit: str


def single_flips(
    question: str, flips: Flips, found: HeatMap, confidence: float, others: Sequence[KeptTask]
) -> SingleFlips:
    """Everything about the sites of a question, in words and classes."""
    ranking, missed = rank_sites(flips, confidence)
    rows = []
    for name, cells in zip(found.names, found.cells, strict=True):
        rows.append((name, [_cell(cell, found.largest) for cell in cells]))
    size = flips.space.size
    return SingleFlips(
        question=question,
        map=found,
        bits=found.bits,
        rows=rows,
        scale=scale_told(found.largest) if found.largest > 0 else [],
        basis=_basis(flips, confidence),
        ranking=[_ranked(one) for one in ranking],
        missed=names_told(missed, 8),
        several=several_told(size, others),
        limit=f"{rate_of_several(size, MOST_SEVERAL):.2g}",
    )


def _cell(rate: Estimate | None, largest: float) -> Cell:
    if rate is None:
        return Cell("-", "none", "no such bit, or not tried")
    level = level_of(rate.value, largest)
    if level is not None:
        return Cell(share(rate.value, 2), f"h{level}", told(rate))
    if rate.ends is None:
        return Cell("0", "unseen", told(rate))
    return Cell(f"<{SPACE}{share(rate.ends[1], 2)}", "unseen", f"none seen, at most {at_most(rate)}")


def _basis(flips: Flips, confidence: float) -> str:
    """What the numbers of the map and the ranking are."""
    drawn = f"{len(flips.cells):,} flips drawn from {flips.space.size:,} bits, each seen on one image."
    sure = f"{100 * confidence:g}{SPACE}%"
    if flips.looks is not None:
        return (
            f"{drawn} They are drawn site by bit, {SCORED}; the rate of a site is the mean of its bits'. Where none "
            f"was seen the upper bound stands. All bounds of the map are true at once with {sure} "
            "(Bonferroni over its cells), and so are those of the ranking (over its sites and all looks)."
        )
    if flips.samples is not None:
        return (
            f"{drawn} Where none was seen the upper bound stands. All bounds of the map are true at once with "
            f"{sure} (Bonferroni over its cells), and so are those of the ranking (over its sites)."
        )
    if flips.whole:
        return f"Every one of {flips.space.size:,} flips was tried on {flips.tried:,} images: the numbers are exact."
    return (
        f"Not whole: {len(flips.cells):,} of {flips.space.size:,} flips were tried on {flips.tried:,} images. The "
        "map has the numbers of the flips that were tried, which say nothing about the others; the ranking has these "
        "at their best and worst."
    )


def _ranked(one: Ranked) -> tuple[str, ...]:
    first, last = one.place.first, one.place.last
    rank = f"{first}" if first == last else f"{first} to {last}".replace(" ", SPACE)
    # exact is what all of a site's bits came to on all images; of which numbers stands in the column of bits
    rate = f"{share(one.rate.value)} (exact)" if one.rate.ends is None else told(one.rate)
    if one.rate.by == "bound":
        rate += f", {one.rate.covers}"
    return rank, one.name, f"{one.bits:,}", rate, names_told(one.tied) or "-"


def several_told(bits: int, tasks: Sequence[KeptTask]) -> list[tuple[str, str, bool]]:
    """For each rate, and each operating point of a profile, how likely two or more faults are, and whether too likely.

    `bits` are those of the single flips; a profile's faults are all that a sample is expected to see.
    """
    rates: dict[float, None] = {}
    found: list[tuple[str, float]] = []
    for task in tasks:
        rate = task.labels.get("ber")
        if isinstance(rate, int | float):
            rates[float(rate)] = None
        elif task.expected is not None:
            found.append((task.name, several_expected(task.expected)))
    told = [(f"the rate {rate:g}", several_faults(bits, rate)) for rate in sorted(rates)]
    return [(name, share(probability), probability > MOST_SEVERAL) for name, probability in [*told, *found]]
