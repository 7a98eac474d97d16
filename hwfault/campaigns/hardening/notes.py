"""What must be said beside the numbers of advice."""

import math
from collections.abc import Sequence

from hwfault.campaigns.hardening.harm import Harm
from hwfault.campaigns.hardening.measured import Considered
from hwfault.campaigns.page.cells import several_faults
from hwfault.campaigns.study.hardening import Hardening

MANY = 0.05
"""Where two or more faults are likelier than this, trials of several faults have to be sampled."""


def several(harm: Harm, rate: float) -> float:
    """P(two or more flips in a sample): binomial, or of sites with weights their sum, taken for a Poisson variable."""
    if not harm.weighted:
        return several_faults(harm.bits, rate)
    mean = rate * harm.bits
    return -math.expm1(-mean) - mean * math.exp(-mean)


def too_few(harm: Harm) -> str:
    if harm.whole:
        return "no choice of measures meets what is required for one flip at a time"
    return (
        f"{harm.trials:,} drawn flips are too few to show what is required of any plan, even where none of them is "
        "wrong; raise max_trials, or try every flip (exhaustive: always)"
    )


def basis(harm: Harm) -> str:
    if harm.whole:
        return f"every flip of {harm.bits:,} bits was tried on all samples: exact"
    if harm.stratified:
        return (
            f"{harm.trials:,} flips, each on one sample, drawn from strata, site by bit, of {harm.bits:,} bits: each "
            "counts for the bits that it stands for, and rates have the gamma interval of the weighted sum"
        )
    return f"{harm.tried:,} flips, each on one sample, of {harm.bits:,} bits: rates have intervals"


def notes(
    harm: Harm, asked: Hardening, rate: float | None, memory_words: float | None, considered: Sequence[Considered]
) -> list[str]:
    """What must be said beside the numbers."""
    found = ["These numbers hold for at most one fault a sample."]
    if asked.rates_of is not None:
        found.append(
            f"Each site's bits flip as often as the faults of {asked.rates_of} make them, where these differ by "
            "specimen as those of the first seed do; one rate would be their mean."
        )
    if rate is None:
        found.append("No rate was given (hardening: {rate: ...}): requirements are on what one flip does.")
    else:
        likely = several(harm, rate)
        found.append(f"At the rate {rate:g}, two or more faults have the probability {likely:.3g}.")
        if likely > MANY:
            found.append("That is above 5 %: trials of several faults have to be sampled (a sweep of ber; --verify).")
    found.append(
        "Under SECDED or TMR the harm that is left comes from two and more faults in one memory word, of which single "
        "flips say nothing; --verify samples such words."
    )
    if memory_words:
        found.append(
            f"In the cheapest plan a memory word is found or read wrong in a sample with the probability "
            f"{memory_words:.3g}, detected errors of single flips among them; the harm of these is at most that."
        )
    costs = asked.costs
    found.append(
        f"Assumed: energy is that of reading all bits once, check bits among them, and {costs.decode:g} reads of a bit "
        f"for each decoded word; a hardened cell takes {costs.hardened_bit:g} plain ones and {costs.hardened_read:g} "
        "of the energy (hardening: {costs: ...})."
    )
    if not harm.whole:
        found.append("The plan was chosen by the trials that also tell its rate, which flatters it: verify it.")
        if asked.limit("due") is not None:
            found.append(
                "What is required of DUE is held to the number that drawn flips came to, with those that parity adds, "
                "and not to the upper end of an interval, as SDC and right answers lost are."
            )
    found += _measured_notes(considered)
    return found


def _measured_notes(considered: Sequence[Considered]) -> list[str]:
    """What was tried of measures that single flips do not show, and whether the plan may take it."""
    found = []
    for one in considered:
        if one.candidate is None:
            found.append(f"{one.told}: not a candidate of the plan: {one.why}.")
    if any(one.candidate is not None for one in considered):
        found.append(
            "Clipped ranges remove harm that other measures remove, too, and gains on one harm do not add up: a plan "
            "has them on all sites alone, or with the measures that they were tried with. Their intervals hold at "
            "once (Bonferroni), those of other plans each by itself; `--verify --trials` with more makes them narrower."
        )
    return found
