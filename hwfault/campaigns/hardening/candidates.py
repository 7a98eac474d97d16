"""What is tried against what: a baseline of faults, and the same faults under each measure, with its price."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hwfault.campaigns.hardening.advice import Advice
from hwfault.campaigns.hardening.faults import faults_of
from hwfault.campaigns.hardening.harm import Harm
from hwfault.campaigns.hardening.measured import CLIPPED, ONE_CLIPPED
from hwfault.campaigns.hardening.measures import Measure, measures_of
from hwfault.campaigns.hardening.ranges import GoldenRange, clip_faults
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.study.hardening import Costs
from hwfault.campaigns.study.tasks import Task
from hwfault.errors import HwfaultError
from hwfault.laws.models import FaultModel

Rate = float | Mapping[str, float]
"""Of every bit, or of a bit at each site, by name."""
BASELINE = "baseline"
MOST_SITES = 8
"""So many activations are clipped alone, as each takes as many trials as all of them together."""
BYPASSED = "faulty elements bypassed"


class Candidate(NamedTuple):
    """Faults to be tried: what they are called in a store and for people, and what the measure costs.

    `extra_bytes` are those of memory, `energy` the share of a read of all bits; None where no price was asked for.
    """

    name: str
    told: str
    faults: tuple[FaultModel, ...]
    extra_bytes: float | None = None
    energy: float | None = None
    measures: tuple[Measure, ...] = ()
    """One for each site of single flips; none where it is no choice of these."""
    laws: tuple[FaultModel, ...] = ()
    """Those of `faults` that are measures themselves: clipped ranges."""


class Comparison(NamedTuple):
    """A baseline and what is to be better: of single flips at a (mean) `rate`, or of a question's own faults (None)."""

    question: str
    rate: float | None
    baseline: Candidate
    others: tuple[Candidate, ...]
    device: int | None = None
    rates: Mapping[str, float] | None = None
    """Those of a bit at each site, where they differ."""

    @property
    def every(self) -> tuple[Candidate, ...]:
        """The baseline first."""
        return (self.baseline, *self.others)


def flips_to_try(
    advice: Advice, harm: Harm, costs: Costs, ranges: Sequence[GoldenRange] = (), most: int = 3
) -> Comparison:
    """Flips at a rate: on nothing, the cheapest plan, the first measures of different kinds, and clipped activations.

    The latter all at once, alone and with the first measure, and one by one where several have room.

    Raises HwfaultError for a plan without any fault left to strike.
    """
    every = {site.name: measures_of(site, costs) for site in harm.sites}
    widths = {site.name: site.width for site in harm.sites}
    rate = advice.rate_of_each
    nothing = tuple(measures[0] for measures in every.values())
    baseline = _of_measures(BASELINE, "no measure", nothing, harm, widths, rate)
    found: list[Candidate] = []
    taken: list[tuple[Measure, ...]] = []
    plan = advice.read_best
    if plan is not None and any(one.kind != "none" for one in plan.measures):
        taken.append(plan.measures)
        found.append(_of_measures("plan", "the cheapest plan", plan.measures, harm, widths, rate))
    for place, (told, measures) in enumerate(_first_measures(advice, every, taken, most), 1):
        found.append(_of_measures(f"measure{place}", told, measures, harm, widths, rate))
    clipped = [*_clipped(baseline, ranges, harm.bits, costs), *_clipped_alone(baseline, ranges, harm.bits, costs)]
    # gains of measures on the same harm do not add up, so that one combination is tried as such
    firsts = [one for one in found if one.name != "plan"]
    for one in firsts[:1]:
        clipped += _clipped(one, ranges, harm.bits, costs)
    return Comparison(harm.question, advice.rate, baseline, (*found, *clipped), rates=advice.rates)


def _first_measures(
    advice: Advice, every: dict[str, list[Measure]], taken: list[tuple[Measure, ...]], most: int
) -> list[tuple[str, tuple[Measure, ...]]]:
    """The measures that remove most, of different kinds or sites, each alone."""
    found = []
    kinds: set[tuple[str, str]] = set()
    for one in advice.worth:
        kind = one.measure.split()[0]
        if len(kinds) == most or not one.removed or (one.site, kind) in kinds:
            continue
        chosen = []
        for site, measures in every.items():
            fitting = [measure for measure in measures if measure.name == one.measure]
            here = one.site in (site, "all sites") and fitting
            chosen.append(fitting[0] if here else measures[0])
        if tuple(chosen) in taken:
            continue  # the cheapest plan is that measure alone
        taken.append(tuple(chosen))
        kinds.add((one.site, kind))
        found.append((f"{one.measure} on {one.site}", tuple(chosen)))
    return found


def _of_measures(
    name: str, told: str, measures: Sequence[Measure], harm: Harm, widths: dict[str, int], rate: Rate
) -> Candidate:
    faults = faults_of(measures, widths, rate)
    if not faults:
        raise HwfaultError(f"{told}: no bit is left that flips, so there is nothing to try")
    extra = sum(one.extra_bits for one in measures)
    energy = sum(one.extra_energy for one in measures)
    return Candidate(name, told, faults, extra / 8, energy / harm.bits, tuple(measures))


def _clipped(beside: Candidate, ranges: Sequence[GoldenRange], bits: int | None, costs: Costs) -> tuple[Candidate, ...]:
    """A candidate's faults with all activations kept within their ranges; none where these are their words' own."""
    faults = clip_faults(ranges)
    if not faults:
        return ()
    narrow = [one for one in ranges if one.narrows]
    extra = sum(one.extra_bits for one in narrow) / 8
    energy = None
    if bits is not None:
        energy = costs.compare * sum(one.site.words or 0 for one in narrow) / bits
    name, told = "clipped", CLIPPED
    if beside.name != BASELINE:
        name, told = f"clipped-{beside.name}", f"{CLIPPED}, and {beside.told}"
        extra += beside.extra_bytes or 0
        energy = None if energy is None or beside.energy is None else energy + beside.energy
    measures = () if beside.name == BASELINE else beside.measures
    return (Candidate(name, told, (*beside.faults, *faults), extra, energy, measures, faults),)


def _clipped_alone(
    baseline: Candidate, ranges: Sequence[GoldenRange], bits: int, costs: Costs
) -> tuple[Candidate, ...]:
    """The same of one activation each, those first whose words have most room; none where only one has some."""
    narrow = [one for one in ranges if one.narrows]
    if len(narrow) < 2:
        return ()
    found: list[Candidate] = []
    roomiest = sorted(narrow, key=lambda one: -one.room)
    for place, one in enumerate(roomiest[:MOST_SITES], 1):
        told = f"{ONE_CLIPPED} {one.site.name}"
        for candidate in _clipped(baseline, [one], bits, costs):
            found.append(candidate._replace(name=f"clipped-site{place}", told=told))
    return tuple(found)


def elements_to_try(
    measurement: Measurement, tasks: Sequence[Task], ranges: Sequence[GoldenRange], costs: Costs
) -> list[Comparison]:
    """The questions about faulty elements of arrays: as they are, bypassed, and with clipped activations."""
    found = []
    for task in tasks:
        if task.point is None or task.draw != "seeds":
            continue
        out = bypassed(task.point.models)
        if out is None:
            continue
        baseline = Candidate(BASELINE, "no measure", tuple(task.point.models))
        others = (Candidate("bypassed", BYPASSED, out), *_clipped(baseline, ranges, None, costs))
        device = measurement.study.questions[task.question].device
        found.append(Comparison(task.name, None, baseline, others, device))
    return found


def bypassed(faults: Sequence[FaultModel]) -> tuple[FaultModel, ...] | None:
    """The faults with all faulty elements taken out of use, each once; None where no fault is one of an element."""
    found: list[FaultModel] = []
    some = False
    for fault in faults:
        out = fault.taken_out()
        some = some or out is not None
        taken: Any = fault if out is None else out
        if taken not in found:
            found.append(taken)
    return tuple(found) if some else None
