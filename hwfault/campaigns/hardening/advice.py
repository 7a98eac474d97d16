"""Hardening advice of a campaign: each measure's worth, the Pareto front, and the cheapest plan under what is required.

Everything is read from single flips, so that it holds for at most one fault a sample: `several` says how likely more
are. With check bits or three copies everywhere, all harm is that of two faults and more, of which single flips say
nothing: `memory_words` says how likely a decoder meets what it cannot correct; what that does is sampled
(hwfault.campaigns.hardening.several).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hwfault.campaigns.hardening.choice import Chosen, Limits, cheapest, pareto_front
from hwfault.campaigns.hardening.harm import Harm
from hwfault.campaigns.hardening.limits import limits_of
from hwfault.campaigns.hardening.measured import Considered, Measured
from hwfault.campaigns.hardening.measures import Measure, measures_of, without_worse
from hwfault.campaigns.hardening.notes import basis, notes, several, too_few
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.study.hardening import Hardening

_SAME = 1e-6
READ = "read from single flips"
"""How the gain of check bits and hardened cells is known."""
NOT_ASSESSED = (
    (
        "clipped activation ranges",
        "single flips of stored bits do not show them; --verify tries the ranges of the golden run, seed by seed",
    ),
    (
        "bypassed elements",
        "single flips do not show them; --verify tries each question about stuck elements with these elements bypassed",
    ),
)
"""Measures of which single flips tell nothing, and what does."""


class Worth(NamedTuple):
    """A measure on one site, or on all of them: what it costs, and what of the harm of one flip it removes.

    Rates are those of one flip of the plain bits: `removed` silent wrong answers, `due` added detected ones, `regained`
    right answers (None: not known). `removed_ends` and `regained_ends` are intervals, which flips from strata have.
    """

    site: str
    measure: str
    extra_bits: float
    extra_bytes: float
    energy: float
    removed: float
    due: float
    regained: float | None
    share_removed: float | None
    removed_ends: tuple[float, float] | None = None
    regained_ends: tuple[float, float] | None = None

    @property
    def removed_per_bit(self) -> float:
        """The rate that a bit of extra memory removes; infinite where it costs none."""
        if self.extra_bits:
            return self.removed / self.extra_bits
        return math.inf if self.removed else 0.0


class Taken(NamedTuple):
    """A measure of a plan, where it is, and how its gain is known."""

    site: str
    measure: str
    gain: str
    extra_bits: float


class Plan(NamedTuple):
    """One measure for each site, or some `measured` together: price, the rate that one flip leaves, and at the rate.

    `sdc` is the rate of silent wrong answers for one flip of the plain bits; `expected_sdc` that number times the mean
    number of flips in a trial (None: no rate was given). `accuracy_lost` is the share of right answers that one flip
    costs (None: not known), of drawn flips with the interval `lost_ends`, and `expected_lost` likewise. `energy`
    is that of a read of all bits, 1 without measures.
    """

    measures: tuple[Measure, ...]
    extra_bits: float
    extra_bytes: float
    memory: float
    energy: float
    sdc: Estimate
    due: float
    expected_sdc: float | None
    memory_words: float | None
    accuracy_lost: float | None = None
    expected_lost: float | None = None
    measured: tuple[Measured, ...] = ()
    lost_ends: tuple[float, float] | None = None

    @property
    def taken(self) -> list[Taken]:
        """What is done where, and how its gain is known; sites that are left alone are left out."""
        found = []
        together: dict[str, str] = {}
        for one in self.measured:
            basis = f"measured in {one.trials:,} paired trials, not proved"
            together |= {measure.site: basis for measure in one.measures}
            # the measures of memories that it was tried with have rows of their own
            found.append(
                Taken("activations", one.clips, basis, one.extra_bits - sum(m.extra_bits for m in one.measures))
            )
        for measure in self.measures:
            if measure.kind != "none":
                basis = together.get(measure.site, READ)
                found.append(Taken(measure.site, measure.name, basis, measure.extra_bits))
        return found

    def to_data(self) -> dict[str, Any]:
        """As JSON tells it; sites that are left alone are left out."""
        taken = [{"site": one.site, "measure": one.measure, "gain": one.gain} for one in self.taken]
        laws = [law.to_data() for one in self.measured for law in one.laws]
        data = self._asdict() | {"measures": taken, "laws": laws, "sdc": self.sdc._asdict()}
        del data["measured"]
        return data


class Advice(NamedTuple):
    """The advice from one question: `best` is the cheapest plan (None: see `why`).

    `read_best` is the cheapest of plans whose gains are read from single flips alone, none of which costs less than
    `bound`. `best` is another where gains that were `measured` in trials make a cheaper one, which is not proved.

    `rate` is the mean one of all bits where sites have `rates` of their own. `several` is the probability of two or
    more flips in a sample, None without a rate. `front` has the least wrong answers for its price, `front_of_accuracy`
    the least of right answers lost (empty where that is not known).
    """

    question: str
    rate: float | None
    rates: Mapping[str, float] | None
    bits: int
    basis: str
    baseline: Plan
    several: float | None
    worth: tuple[Worth, ...]
    front: tuple[Plan, ...]
    best: Plan | None
    price: float | None
    bound: float | None
    why: str
    notes: tuple[str, ...]
    front_of_accuracy: tuple[Plan, ...] = ()
    read_best: Plan | None = None
    read_price: float | None = None
    measured: tuple[Considered, ...] = ()

    @property
    def rate_of_each(self) -> float | Mapping[str, float]:
        """The rate of all bits, or of each site; that at which one bit flips in the mean where none was given."""
        if self.rates is not None:
            return self.rates
        return 1 / self.bits if self.rate is None else self.rate

    def to_data(self) -> dict[str, Any]:
        """All of it as JSON tells it."""
        plans: dict[str, Any] = {"baseline": self.baseline.to_data()}
        plans["front"] = [plan.to_data() for plan in self.front]
        plans["front_of_accuracy"] = [plan.to_data() for plan in self.front_of_accuracy]
        plans["best"] = None if self.best is None else self.best.to_data()
        plans["read_best"] = None if self.read_best is None else self.read_best.to_data()
        plans["measured"] = [one.to_data() for one in self.measured]
        worth = [one._asdict() for one in self.worth]
        return self._asdict() | plans | {"worth": worth, "not_assessed": dict(NOT_ASSESSED)}


def advise(
    harm: Harm,
    asked: Hardening,
    rates: Mapping[str, float] | None = None,
    considered: Sequence[Considered] = (),
) -> Advice:
    """What to protect, by the harm of single flips and by what was `considered` of trials at the same rates.

    With `rates` of a bit at each site, by name, each site's harm counts as often as its bits flip. Raises ModelError
    for a requirement that is none, HwfaultError for rates by which no bit flips, and for requirements under these on
    flips that were drawn.
    """
    rate = asked.rate
    if rates is not None:
        harm, rate = harm.with_rates(rates)
    every = [measures_of(site, asked.costs) for site in harm.sites]
    of = _Pricing(harm, asked, rate)
    nothing = Chosen.of([measures[0] for measures in every])
    reduced = [without_worse(measures) for measures in every]
    limits = limits_of(harm, asked, rate)
    front = pareto_front(reduced, of.price, limits.due)
    of_accuracy: list[Chosen] = []
    if nothing.lost is not None:
        of_accuracy = pareto_front(reduced, of.price, limits.due, lambda one: one.lost or 0)
    best = _best(harm, asked, of, reduced, nothing, limits)
    better = _with_measured(best, of, reduced, limits, considered)
    return Advice(
        question=harm.question,
        rate=rate,
        rates=rates,
        bits=harm.bits,
        basis=basis(harm),
        baseline=of.plan(nothing),
        several=None if rate is None else several(harm, rate),
        worth=tuple(_worths(every, of)),
        front=tuple(of.plan(plan) for plan in front),
        best=better.plan,
        price=better.price,
        bound=best.bound,
        why=better.why,
        notes=tuple(notes(harm, asked, rate, None if better.plan is None else better.plan.memory_words, considered)),
        front_of_accuracy=tuple(of.plan(plan) for plan in of_accuracy),
        read_best=best.plan,
        read_price=best.price,
        measured=tuple(considered),
    )


_NOTHING_REQUIRED = "nothing is required: give `hardening: {require: {sdc: ...}}` in the study"


class _Best(NamedTuple):
    """The cheapest plan, its price, the bound on any, and what there is to say of it."""

    plan: Plan | None
    price: float | None
    bound: float | None
    why: str


class _Pricing:
    """What plans and measures come to, in the units of a study."""

    def __init__(self, harm: Harm, asked: Hardening, rate: float | None) -> None:
        self.harm = harm
        self.asked = asked
        self.rate = rate

    def price(self, measure: Measure | Measured) -> float:
        """What the cheapest plan has least of."""
        return measure.extra_bits if self.asked.minimize == "memory" else measure.extra_energy

    def plan(self, chosen: Chosen) -> Plan:
        """A choice in rates, bytes and shares."""
        harm, rate = self.harm, self.rate
        if chosen.measured:
            sdc = _measured_rate(chosen, harm)
        else:
            sdc = harm.rate([one.wrong for one in chosen.measures], [one.bits_left for one in chosen.measures])
        lost = None if chosen.lost is None else chosen.lost / harm.tried
        flips = None if rate is None else rate * harm.bits
        return Plan(
            measures=chosen.measures,
            extra_bits=chosen.extra_bits,
            extra_bytes=chosen.extra_bits / 8,
            memory=1 + chosen.extra_bits / harm.bits,
            energy=1 + chosen.extra_energy / harm.bits,
            sdc=sdc,
            due=chosen.due / harm.tried,
            expected_sdc=None if flips is None else flips * sdc.value,
            memory_words=None if rate is None else self._unread(chosen, rate),
            accuracy_lost=lost,
            expected_lost=None if flips is None or lost is None else flips * lost,
            measured=chosen.measured,
            lost_ends=harm.lost_ends([one.bits_lost for one in chosen.measures]),
        )

    def _unread(self, chosen: Chosen, rate: float) -> float:
        """The probability that any memory word is read wrong, or found wrong beyond correction, in a sample."""
        words_of = {site.name: site for site in self.harm.sites}
        log_good = 0.0
        for one in chosen.measures:
            protection = one.protection
            if protection is None:
                continue
            site = words_of[one.site]
            told = protection.outcomes(min(1.0, site.weight * rate))
            words = protection.memory(site.width).words(site.words)
            log_good += words * math.log1p(-min(told.detected + told.miscorrected, 1 - 1e-16))
        return -math.expm1(log_good)

    def worth(self, site: str, of: Sequence[Measure], nothing: Sequence[Measure]) -> Worth:
        """One kind of measure on some sites beside nothing on them."""
        harm = self.harm
        extra = sum(one.extra_bits for one in of)
        energy = sum(one.extra_energy for one in of)
        removed = sum(one.wrong for one in nothing) - sum(one.wrong for one in of)
        due = sum(one.due for one in of) - sum(one.due for one in nothing)
        regained = None
        if all(one.lost is not None for one in (*of, *nothing)):
            regained = (sum(one.lost or 0 for one in nothing) - sum(one.lost or 0 for one in of)) / harm.tried
        return Worth(
            site=site,
            measure=of[0].name,
            extra_bits=extra,
            extra_bytes=extra / 8,
            energy=energy / harm.bits,
            removed=removed / harm.tried,
            due=due / harm.tried,
            regained=regained,
            share_removed=removed / harm.wrong if harm.wrong else None,
            removed_ends=harm.removed_ends({one.site: one.bits_left for one in of}),
            regained_ends=harm.regained_ends({one.site: one.bits_lost for one in of}),
        )


def _worths(every: Sequence[Sequence[Measure]], of: _Pricing) -> list[Worth]:
    """Every measure on every site, and each with check bits on all sites, the most removed by a bit of memory first."""
    found = []
    for measures in every:
        found += [of.worth(one.site, [one], [measures[0]]) for one in measures[1:]]
    kinds: dict[tuple[str, int], list[tuple[Measure, Measure]]] = {}
    for measures in every:
        for one in measures[1:]:
            if one.kind != "hardened":
                kinds.setdefault((one.kind, one.size), []).append((one, measures[0]))
    for pairs in kinds.values():
        found.append(of.worth("all sites", [one for one, _ in pairs], [none for _, none in pairs]))
    return sorted(found, key=lambda one: (-one.removed_per_bit, one.extra_bits))


def _best(
    harm: Harm,
    asked: Hardening,
    of: _Pricing,
    measures: Sequence[Sequence[Measure]],
    nothing: Chosen,
    limits: Limits,
) -> _Best:
    """The cheapest plan of measures whose gain is read from single flips."""
    if not asked.require:
        return _Best(None, None, None, _NOTHING_REQUIRED)
    if any(most is not None and most < 0 for most in (limits.wrong, limits.spoiled)):
        return _Best(None, None, None, too_few(harm))
    found = cheapest(measures, of.price, limits)
    if found.plan is None:
        return _Best(None, None, None, "no choice of measures meets what is required for one flip at a time")
    if found.plan == nothing:
        return _Best(of.plan(found.plan), found.price, found.bound, "what is required holds without any measure")
    told = "proven: no plan that meets what is required is cheaper"
    assert found.price is not None
    assert found.bound is not None
    if found.price - found.bound > _SAME * max(1.0, found.price):
        told = f"a plan that meets what is required; none is cheaper than {found.bound:,.6g}"
    return _Best(of.plan(found.plan), found.price, found.bound, told)


def _with_measured(
    best: _Best,
    of: _Pricing,
    measures: Sequence[Sequence[Measure]],
    limits: Limits,
    considered: Sequence[Considered],
) -> _Best:
    """The cheapest plan where what was measured may be taken, too; `best` where that is no cheaper."""
    candidates = [one.candidate for one in considered if one.candidate is not None]
    if limits.lost is not None:
        candidates = [one for one in candidates if one.lost is not None]
    if not candidates or best.why == _NOTHING_REQUIRED:
        return best
    found = cheapest(measures, of.price, limits, candidates)
    if found.plan is None or found.price is None or not found.plan.measured:
        return best
    if best.price is not None and found.price >= best.price - _SAME * max(1.0, best.price):
        return best  # of equal price, what is proven
    trials = min(one.trials for one in found.plan.measured)
    told = f"measured in {trials:,} paired trials, not proved: its gain is taken at the lower end of its interval"
    if best.bound is not None:
        told += (
            f"; of what is read from single flips alone, no plan that meets what is required is below {best.bound:,.6g}"
        )
    else:
        told += f"; of what is read from single flips alone: {best.why}"
    return _Best(of.plan(found.plan), found.price, best.bound, told)


def _measured_rate(chosen: Chosen, harm: Harm) -> Estimate:
    """The rate of SDC for one flip with measured gains, each with its own interval."""
    value = low = high = 0.0
    for one in chosen.measured:
        least, most = one.left.ends or (one.left.value, one.left.value)
        value += one.left.value
        low += least
        high += most
    # what no measured gain acts on is as the census has it
    rest = chosen.wrong - sum(one.wrong for one in chosen.measured)
    ends = (rest + low) / harm.tried, (rest + high) / harm.tried
    return chosen.measured[0].left._replace(value=(rest + value) / harm.tried, ends=ends)
