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
    wrong: float
    due: float
    lost: float | None = None

    @classmethod
    def of(cls, measures: Sequence[Measure]) -> "Chosen":
        """The sums of some measures, one for each site."""
        return cls(
            tuple(measures),
            sum(one.extra_bits for one in measures),
            sum(one.extra_energy for one in measures),
            sum(one.wrong for one in measures),
            sum(one.due for one in measures),
            None if any(one.lost is None for one in measures) else sum(one.lost or 0 for one in measures),
        )


class Cheapest(NamedTuple):
    """The cheapest plan (None: none meets what is required), and the bound below which no plan's price can be."""

    plan: Chosen | None
    price: float | None
    bound: float | None


class Limits(NamedTuple):
    """The most of what was tried that may be wrong, detected, and lost of the right answers (None: any)."""

    wrong: float | None = None
    due: float | None = None
    lost: float | None = None


def cheapest(sites: Sequence[Sequence[Measure]], price: Callable[[Measure], float], most: Limits) -> Cheapest:
    """One measure of each site at the least price, with at most so much harm left.

    A 0/1 multiple-choice knapsack, solved to proven optimality (HiGHS, by scipy.optimize.milp).
    """
    found = _solve(sites, price, most)
    bound = found.bound
    limits = most
    # the solver takes numbers for whole that are so to 1e-6: where a plan has too much by that, the next is asked for
    while found.plan is not None:
        limits, beyond = _lowered(limits, found.plan, most)
        if not beyond:
            break
        found = _solve(sites, price, limits)
    return found._replace(bound=bound if found.plan is not None else None)


def _lowered(limits: Limits, plan: Chosen, most: Limits) -> tuple[Limits, bool]:
    """The limits less what a plan has too much, and whether it has."""
    beyond = False
    for key in ("wrong", "lost"):
        limit, has = getattr(most, key), getattr(plan, key)
        if limit is not None and has is not None and has > limit:
            least = 1e-9 * max(1.0, abs(limit))
            limits = limits._replace(**{key: getattr(limits, key) - max(has - limit, least)})
            beyond = True
    return limits, beyond


def _solve(sites: Sequence[Sequence[Measure]], price: Callable[[Measure], float], most: Limits) -> Cheapest:
    """The same, as exact as the solver's floating point."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and only needed here

    flat = [one for site in sites for one in site]
    owner = np.repeat(np.arange(len(sites)), [len(site) for site in sites])
    one_of_each = (owner == np.arange(len(sites))[:, np.newaxis]).astype(float)
    rules = [LinearConstraint(one_of_each, 1, 1)]
    for key, limit in most._asdict().items():
        if limit is not None:
            row = [getattr(one, key) or 0 for one in flat]
            # where counts are whole, half of one above the limit keeps rounding away from it
            whole = key != "due" and all(isinstance(number, int) for number in row)
            rules.append(LinearConstraint(np.array([row], float), ub=limit + 0.5 * whole))
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
    harm: float
    due: float
    measures: tuple[Measure, ...]


def pareto_front(
    sites: Sequence[Sequence[Measure]],
    price: Callable[[Measure], float],
    most_due: float | None = None,
    harm: Callable[[Measure], float] = lambda one: one.wrong,
) -> list[Chosen]:
    """The plans of which none has both a lower price and less harm (wrong answers), the cheapest first.

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
                    grown.append(_Point(point.price + price(one), point.harm + harm(one), due, (*point.measures, one)))
        front = _thinned(_not_beaten(grown))
    # what was kept for its DUE alone is no better at the end
    ends = _not_beaten([point._replace(due=0.0) for point in front])
    return [Chosen.of(point.measures) for point in ends]


def _not_beaten(points: list[_Point]) -> list[_Point]:
    """Those that no other equals or beats in price, harm and DUE alike."""
    points.sort(key=lambda point: point[:3])
    harm, due = np.empty(len(points)), np.empty(len(points))
    kept: list[_Point] = []
    for point in points:
        count = len(kept)
        # those kept so far have no higher price
        if np.any((harm[:count] <= point.harm) & (due[:count] <= point.due)):
            continue
        harm[count], due[count] = point.harm, point.due
        kept.append(point)
    return kept


def _thinned(points: list[_Point]) -> list[_Point]:
    if len(points) <= _MOST_POINTS:
        return points
    places = np.unique(np.linspace(0, len(points) - 1, _MOST_POINTS).round().astype(np.int64))
    return [points[place] for place in places.tolist()]
