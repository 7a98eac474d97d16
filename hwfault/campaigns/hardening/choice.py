"""The cheapest plan: one measure for each site, a multiple-choice knapsack solved exactly; and the Pareto front."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hwfault.campaigns.hardening.measures import Measure

_MOST_POINTS = 2_000
"""Of a front; one with more is thinned, which its picture does not show."""


class Chosen(NamedTuple):
    """One measure for each site: what they cost together, and what harm is left."""

    measures: tuple[Measure, ...]
    extra_bits: float
    extra_energy: float
    wrong: int
    due: float

    @classmethod
    def of(cls, measures: Sequence[Measure]) -> "Chosen":
        """The sums of some measures, one for each site."""
        return cls(
            tuple(measures),
            sum(one.extra_bits for one in measures),
            sum(one.extra_energy for one in measures),
            sum(one.wrong for one in measures),
            sum(one.due for one in measures),
        )


class Cheapest(NamedTuple):
    """The cheapest plan (None: none meets what is required), and the bound below which no plan's price can be."""

    plan: Chosen | None
    price: float | None
    bound: float | None


def cheapest(
    sites: Sequence[Sequence[Measure]],
    price: Callable[[Measure], float],
    most_wrong: int | None,
    most_due: float | None = None,
) -> Cheapest:
    """One measure of each site at the least price, with at most so many wrong and so much DUE left (None: any).

    A 0/1 multiple-choice knapsack, solved to proven optimality (HiGHS, by scipy.optimize.milp).
    """
    found = _solve(sites, price, most_wrong, most_due)
    bound = found.bound
    limit = most_wrong
    # the solver takes numbers for whole that are so to 1e-6: where a plan has too much by that, the next is asked for
    while found.plan is not None and most_wrong is not None and limit is not None and found.plan.wrong > most_wrong:
        limit -= found.plan.wrong - most_wrong
        found = _solve(sites, price, limit, most_due)
    return found._replace(bound=bound if found.plan is not None else None)


def _solve(
    sites: Sequence[Sequence[Measure]],
    price: Callable[[Measure], float],
    most_wrong: int | None,
    most_due: float | None,
) -> Cheapest:
    """The same, as exact as the solver's floating point."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and only needed here

    flat = [one for site in sites for one in site]
    owner = np.repeat(np.arange(len(sites)), [len(site) for site in sites])
    one_of_each = (owner == np.arange(len(sites))[:, np.newaxis]).astype(float)
    rules = [LinearConstraint(one_of_each, 1, 1)]
    if most_wrong is not None:
        # wrong answers are whole: half of one above the limit keeps rounding away from it
        rules.append(LinearConstraint(np.array([[one.wrong for one in flat]], float), ub=most_wrong + 0.5))
    if most_due is not None:
        rules.append(LinearConstraint(np.array([[one.due for one in flat]], float), ub=most_due))
    prices = np.array([price(one) for one in flat], float)
    found = milp(
        prices,
        constraints=rules,
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return Cheapest(None, None, None)
    plan = Chosen.of([one for one, taken in zip(flat, found.x, strict=True) if taken > 0.5])
    bound = found.mip_dual_bound
    total = sum(price(one) for one in plan.measures)
    return Cheapest(plan, total, total if bound is None else float(bound))


class _Point(NamedTuple):
    """A choice for the first so many sites."""

    price: float
    wrong: int
    due: float
    measures: tuple[Measure, ...]


def pareto_front(
    sites: Sequence[Sequence[Measure]], price: Callable[[Measure], float], most_due: float | None = None
) -> list[Chosen]:
    """The plans of which none has both a lower price and fewer wrong answers, the cheapest first.

    Of those with at most so much DUE (None: any). Site by site, exactly; only where a front has more than 2,000 plans,
    every so many of them go on.
    """
    front = [_Point(0.0, 0, 0.0, ())]
    for site in sites:
        grown = []
        for point in front:
            for one in site:
                due = 0.0 if most_due is None else point.due + one.due
                if most_due is None or due <= most_due:
                    grown.append(_Point(point.price + price(one), point.wrong + one.wrong, due, (*point.measures, one)))
        front = _thinned(_not_beaten(grown))
    # what was kept for its DUE alone is no better at the end
    ends = _not_beaten([point._replace(due=0.0) for point in front])
    return [Chosen.of(point.measures) for point in ends]


def _not_beaten(points: list[_Point]) -> list[_Point]:
    """Those that no other equals or beats in price, wrong answers and DUE alike."""
    points.sort(key=lambda point: point[:3])
    wrong, due = np.empty(len(points)), np.empty(len(points))
    kept: list[_Point] = []
    for point in points:
        count = len(kept)
        # those kept so far have no higher price
        if np.any((wrong[:count] <= point.wrong) & (due[:count] <= point.due)):
            continue
        wrong[count], due[count] = point.wrong, point.due
        kept.append(point)
    return kept


def _thinned(points: list[_Point]) -> list[_Point]:
    if len(points) <= _MOST_POINTS:
        return points
    places = np.unique(np.linspace(0, len(points) - 1, _MOST_POINTS).round().astype(np.int64))
    return [points[place] for place in places.tolist()]
