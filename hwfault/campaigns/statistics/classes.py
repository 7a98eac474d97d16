"""Rates of several classes of samples: intervals that are all true at once, and ranks with ties."""

from collections.abc import Mapping
from typing import NamedTuple

from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.statistics.ranking import rank_estimates


class ClassRate(NamedTuple):
    """One class: how many samples it has, the rate there, the ranks that it may have, and those it is tied with.

    `rate` is None for a class without samples, or none of whose samples was tried; it has no rank (0) then.
    """

    label: int
    samples: int
    rate: Estimate | None
    first: int = 0
    last: int = 0
    tied: tuple[int, ...] = ()


def rank_classes(samples: Mapping[int, int], rates: Mapping[int, Estimate | None]) -> tuple[ClassRate, ...]:
    """The classes, the highest rate first, those without one last; `samples` says how many each has."""
    known = {label: rate for label, rate in rates.items() if rate is not None}
    found = []
    if known:
        names = list(known)
        for label, place in zip(names, rank_estimates(list(known.values())), strict=True):
            tied = tuple(names[other] for other in place.tied)
            found.append(ClassRate(label, samples[label], known[label], place.first, place.last, tied))
    found.sort(key=lambda one: (one.first, -(one.rate.value if one.rate is not None else 0.0), one.label))
    rest = [ClassRate(label, count, None) for label, count in samples.items() if label not in known]
    return (*found, *rest)
