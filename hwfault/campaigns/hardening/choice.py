"""The cheapest plan: one measure for each site, a multiple-choice knapsack solved exactly; and the Pareto front."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.hardening.measured import Measured
from hwfault.campaigns.hardening.measures import Measure

_MOST_POINTS = 2_000
"""Of a front; one with more is thinned, which its picture does not show."""


class Chosen(NamedTuple):
    """One measure for each site: what they cost together, and what harm is left.

    Of sites that are taken by something `measured`, the costs and the harm are those that it has for them all.
    """

    measures: tuple[Measure, ...]
    extra_bits: float
    extra_energy: float
    wrong: float
    due: float
    lost: float | None = None
    measured: tuple[Measured, ...] = ()
    spoiled: float | None = None

    @classmethod
    def of(cls, measures: Sequence[Measure], measured: Sequence[Measured] = ()) -> "Chosen":
        """The sums of some measures, one for each site that nothing measured takes, in the order of the sites."""
        parts: list[Measure | Measured] = [*measures, *measured]
        every = list(measures)
        for one in measured:
            every += one.measures
        return cls(
            tuple(every),
            sum(one.extra_bits for one in parts),
            sum(one.extra_energy for one in parts),
            sum(one.wrong for one in parts),
            sum(one.due for one in parts),
            _sum_known([one.lost for one in parts]),
            tuple(measured),
            _sum_known([one.spoiled for one in parts]),
        )


def _sum_known(numbers: Sequence[float | None]) -> float | None:
    """Their sum; None where one of them is not known."""
    known = [one for one in numbers if one is not None]
    return sum(known) if len(known) == len(numbers) else None


Price = Callable[[Measure | Measured], float]


class Cheapest(NamedTuple):
    """The cheapest plan (None: none meets what is required), and the bound below which no plan's price can be."""

    plan: Chosen | None
    price: float | None
    bound: float | None


class Limits(NamedTuple):
    """The most of what was tried that may be wrong, detected, and lost of the right answers (None: any).

    `spoiled` takes the place of `lost` where flips were drawn: no right answer that is won elsewhere counts against it.
    """

    wrong: float | None = None
    due: float | None = None
    lost: float | None = None
    spoiled: float | None = None


def cheapest(
    sites: Sequence[Sequence[Measure]], price: Price, most: Limits, measured: Sequence[Measured] = ()
) -> Cheapest:
    """One measure of each site at the least price, with at most so much harm left.

    Something `measured` may stand in the place of the measures of all of its sites.

    A 0/1 multiple-choice knapsack, solved to proven optimality (HiGHS, by scipy.optimize.milp).
    """
    found = _solve(sites, price, most, measured)
    bound = found.bound
    limits = most
    # the solver takes numbers for whole that are so to 1e-6: where a plan has too much by that, the next is asked for
    while found.plan is not None:
        limits, beyond = _lowered(limits, found.plan, most)
        if not beyond:
            break
        found = _solve(sites, price, limits, measured)
    return found._replace(bound=bound if found.plan is not None else None)


def _lowered(limits: Limits, plan: Chosen, most: Limits) -> tuple[Limits, bool]:
    """The limits less what a plan has too much, and whether it has."""
    beyond = False
    for key in ("wrong", "lost", "spoiled"):
        limit, has = getattr(most, key), getattr(plan, key)
        if limit is not None and has is not None and has > limit:
            least = 1e-9 * max(1.0, abs(limit))
            limits = limits._replace(**{key: getattr(limits, key) - max(has - limit, least)})
            beyond = True
    return limits, beyond


def _solve(sites: Sequence[Sequence[Measure]], price: Price, most: Limits, measured: Sequence[Measured]) -> Cheapest:
    """The same, as exact as the solver's floating point."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and only needed here

    alone = [one for site in sites for one in site]
    flat: list[Measure | Measured] = [*alone, *measured]
    rules = [LinearConstraint(_takes(sites, measured), 1, 1)]
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
    taken = found.x > 0.5
    chosen = [one for place, one in enumerate(alone) if taken[place]]
    groups = [one for place, one in enumerate(measured, len(alone)) if taken[place]]
    plan = Chosen.of(chosen, groups)
    bound = found.mip_dual_bound
    total = sum(price(one) for one in chosen) + sum(price(one) for one in groups)
    return Cheapest(plan, total, total if bound is None else float(bound))


def _takes(sites: Sequence[Sequence[Measure]], measured: Sequence[Measured]) -> NDArray[np.float64]:
    """(sites, choices): 1 where a choice takes a site, of each of which one is made."""
    owner = np.repeat(np.arange(len(sites)), [len(site) for site in sites])
    alone = (owner == np.arange(len(sites))[:, np.newaxis]).astype(float)
    together = np.zeros((len(sites), len(measured)))
    for column, one in enumerate(measured):
        names = {measure.site for measure in one.measures}
        together[:, column] = [site[0].site in names for site in sites]
    return np.hstack([alone, together])


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
