"""What paired trials measured of clipped ranges, as candidates of the cheapest plan; what is no candidate, and why."""

from collections.abc import Mapping, Sequence

from hwfault.campaigns.hardening.candidates import BASELINE
from hwfault.campaigns.hardening.choice import Chosen
from hwfault.campaigns.hardening.harm import Harm
from hwfault.campaigns.hardening.measured import Considered, Measured
from hwfault.campaigns.hardening.measures import Measure, measures_of
from hwfault.campaigns.hardening.proof import Proof, Tried
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.study.hardening import Hardening


def considered_of(
    proofs: Sequence[Proof], harm: Harm, asked: Hardening, rate: float | None, rates: Mapping[str, float] | None
) -> tuple[Considered, ...]:
    """What was tried under the flips of `harm` at this rate, and of other faults, as far as a plan might take it.

    `harm` has the weights of `rates`, where sites have rates of their own.
    """
    found = []
    for proof in proofs:
        own = rate is not None and proof.is_of(harm.question, rate, rates)
        base = [one for one in proof.tried if one.name == BASELINE]
        for one in proof.tried:
            shown = one.name.startswith(("clipped", "bypassed"))
            if not shown or one.removed is None:
                continue
            if own:
                assert rate is not None
                candidate, why = _candidate(one, base[0].due, harm, asked, rate)
            else:
                candidate, why = None, _of_others(proof)
            found.append(Considered(one.told, proof.question, one.trials, one.removed, candidate, why))
    return tuple(found)


def _of_others(proof: Proof) -> str:
    if proof.rate is None:
        return f"it was tried under the faults of {proof.question}, and what is required here is of flips"
    return f"it was tried of {proof.question} at {proof.rate:g} flips for each bit, and this plan is for others"


def _candidate(
    one: Tried, baseline_due: Estimate, harm: Harm, asked: Hardening, rate: float
) -> tuple[Measured | None, str]:
    """A candidate, or none and why."""
    assert one.removed is not None
    low, high = _ends(one.removed)
    if low <= 0:
        return None, f"what it removes is not told apart from nothing: {low:.3g} to {high:.3g}"
    if not harm.whole:
        return None, "the flips were drawn: its gain is taken from the harm of a census alone (exhaustive: always)"
    if one.laws is None:
        return None, "an older version did not keep its ranges; --verify again"
    if asked.minimize == "energy" and one.energy is None:
        return None, "its energy is not known"
    measures = _measures(one, harm, asked)
    if measures is None:
        return None, "a measure that it was tried with is none at the costs of this study; --verify again"
    # a share of a trial's answers, in the pairs of a flip and a sample that the census counts
    scale = harm.tried / (rate * harm.bits)
    nothing = Chosen.of([measures_of(site, asked.costs)[0] for site in harm.sites])
    floor = one.sdc.value * scale  # where several flips do more than their sum, what was seen counts
    wrong = max(nothing.wrong - low * scale, floor)
    left = max(nothing.wrong - one.removed.value * scale, 0.0), max(nothing.wrong - high * scale, 0.0)
    lost = None
    if nothing.lost is not None and one.regained is not None:
        lost = nothing.lost - _ends(one.regained)[0] * scale
    ends = left[1], max(wrong, left[0])
    estimate = Estimate(left[0], ends, one.removed.confidence, one.removed.by, one.removed.covers)
    measured = Measured(
        name=one.told,
        trials=one.trials,
        measures=measures,
        laws=one.laws,
        extra_bits=8 * (one.extra_bytes or 0.0),
        extra_energy=harm.bits * (one.energy or 0.0),
        wrong=wrong,
        due=_due(one.due, baseline_due, nothing.due, scale),
        lost=lost,
        left=estimate,
    )
    return measured, ""


def _ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.ends or (estimate.value, estimate.value)


def _due(mine: Estimate, baseline: Estimate, read: float, scale: float) -> float:
    """Detected answers at the upper end; what single flips told, where no trial of either has one."""
    if mine.value == 0 and baseline.value == 0:
        return read
    return max(read, _ends(mine)[1] * scale)


def _measures(one: Tried, harm: Harm, asked: Hardening) -> tuple[Measure, ...] | None:
    """The memory of each site as it was tried; None for a measure that there is not."""
    names = dict(one.measures)
    found = []
    for site in harm.sites:
        name = names.pop(site.name, "none")
        fitting = [measure for measure in measures_of(site, asked.costs) if measure.name == name]
        if not fitting:
            return None
        found.append(fitting[0])
    return None if names else tuple(found)
