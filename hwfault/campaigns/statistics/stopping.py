"""When a campaign has seen enough: one rule, asked after trials of any kind, which says why it stops or goes on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, field_validator, model_validator

from hwfault.campaigns.statistics.estimates import Array, Claim, Estimate, exact_estimate
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_mean
from hwfault.campaigns.statistics.proportions import CONFIDENCE, bound_rate, estimate_rate
from hwfault.campaigns.statistics.requirements import Requirement
from hwfault.campaigns.statistics.strata import estimate_drawn_strata
from hwfault.campaigns.statistics.two_way import (
    Sums,
    count_images_needed,
    estimate_population,
    half_width_by_images,
)
from hwfault.errors import HwfaultError
from hwfault.records import Record

_LEAST_BATCH = 20
_GROWTH = 8
"""Where one may look at any number of trials, the next look comes after this part of those there are."""


class StoppingRule(Record):
    """How narrow an interval is to become, or what it is to settle, and at what cost at most.

    `relative` is the half width wanted, as a share of the number itself. Either that or a `requirement` may be given,
    or neither: then the limits alone end it. `max_trials` counts trials (fault seeds), `max_minutes` the time spent.
    """

    relative: float | None = Field(None, gt=0, allow_inf_nan=False)
    requirement: Requirement | None = None
    confidence: float = Field(CONFIDENCE, gt=0, lt=1)
    max_trials: int = Field(20_000, ge=1)
    max_minutes: float | None = Field(None, gt=0)

    @field_validator("requirement", mode="before")
    @classmethod
    def _read_requirement(cls, given: Any) -> Any:
        if given is None or isinstance(given, Requirement | dict):
            return given
        return Requirement.read(given)

    @model_validator(mode="after")
    def _know_one_goal(self) -> "StoppingRule":
        if self.relative is not None and self.requirement is not None:
            raise ValueError("given a relative margin and a requirement, expected one of them: a study has one goal")
        return self

    @property
    def looks(self) -> Looks:
        """The looks at means that this rule plans."""
        return Looks.plan(self.max_trials, self.confidence)


class Decision(NamedTuple):
    """Whether to stop, why in one sentence, what is known by now, and after how many trials to ask again.

    `met` says whether a requirement is met; None where there is none, or where it is not settled.
    """

    stop: bool
    why: str
    estimate: Estimate
    next_look: int | None = None
    met: bool | None = None


def judge_events(
    rule: StoppingRule, events: int, trials: int, minutes: float = 0.0, *, claim: Claim = "these"
) -> Decision:
    """The decision after independent trials of one (fault, image) each, some of which had an event.

    It may be asked at any number of trials, as the confidence sequence holds at all of them. The population is claimed
    only of trials that each drew an image of their own. Raises HwfaultError for impossible numbers.
    """
    if rule.requirement is None:
        estimate = estimate_rate(events, trials, rule.confidence, sequential=True, claim=claim)
    else:
        estimate = _bound_for(rule.requirement, rule.confidence, events, trials, claim)
    next_look = min(rule.max_trials, trials + max(_LEAST_BATCH, trials // _GROWTH))
    return _reach_goal(rule, estimate) or _reach_limit(rule, estimate, trials, minutes, next_look)


def _bound_for(requirement: Requirement, confidence: float, events: int, trials: int, claim: Claim) -> Estimate:
    """The one-sided bound that speaks for or against a requirement; each may err as seldom, as but one can be wrong."""
    requirement.check_rate()
    wanted = bound_rate(events, trials, confidence, sequential=True, above=requirement.side == "<", claim=claim)
    opposite = bound_rate(events, trials, confidence, sequential=True, above=requirement.side == ">", claim=claim)
    return wanted if requirement.judge(opposite) is None else opposite


def judge_means(
    rule: StoppingRule,
    values: Sequence[float] | Array,
    least: float = 0.0,
    most: float = 1.0,
    minutes: float = 0.0,
    *,
    of: str = "the mean",
) -> Decision:
    """The decision after trials that each came to one number over many images, between `least` and `most`.

    It is made at looks only (20, 40, 80, ...): between them it goes on, with what the last one showed, unless time is
    up. Raises HwfaultError as `estimate_mean`.
    """
    looks = rule.looks
    trials = len(values)
    last = looks.last_until(trials)
    next_look = looks.next_after(trials)
    if _time_is_up(rule, minutes):
        last = trials
    if last is None:
        return Decision(False, _too_early(next_look), estimate_mean(values, looks, least, most, of=of), next_look)
    estimate = estimate_mean(values[:last], looks, least, most, of=of)
    if last < trials:
        return Decision(False, f"the next look is after {next_look:,} trials", estimate, next_look)
    return _reach_goal(rule, estimate) or _reach_limit(rule, estimate, trials, minutes, next_look)


def judge_population(rule: StoppingRule, sums: Sums, minutes: float = 0.0) -> Decision:
    """The decision after fault seeds that each ran on the same images, of a claim about new images too.

    `sums` are those of the seeds up to a look (or, when time is up, of all). It stops, too, when the images alone keep
    the interval wider than the goal: no seed helps then, and the sentence says about how many images are needed. Raises
    HwfaultError where the number of seeds is no look and there is time left.
    """
    looks = rule.looks
    next_look = looks.next_after(sums.seeds)
    if sums.seeds not in looks.numbers and not _time_is_up(rule, minutes):
        raise HwfaultError(f"{sums.seeds} seeds are no look, expected one of {looks.numbers}: ask there")
    estimate = estimate_population(sums, looks)
    return (
        _reach_goal(rule, estimate)
        or _stop_for_images(rule, sums, estimate)
        or _reach_limit(rule, estimate, sums.seeds, minutes, next_look)
    )


def judge_strata(
    rule: StoppingRule, events: ArrayLike, trials: ArrayLike, sizes: ArrayLike, first_look: int, minutes: float = 0.0
) -> Decision:
    """The decision after trials drawn from strata of `sizes` faults, so many `trials` and `events` in each.

    It is made at looks only, at `first_look` trials and doubling numbers of them: how many trials each stratum has by
    then was fixed beforehand, and so the interval, which has a part of the error for each look, is that of a fixed
    number of trials. Between looks it goes on, unless time is up.
    """
    looks = Looks.plan(rule.max_trials, rule.confidence, first_look)
    number = int(np.sum(trials))
    estimate = estimate_drawn_strata(events, trials, sizes, 1 - looks.alpha, of="the rate of silent wrong answers")
    estimate = estimate._replace(confidence=rule.confidence)  # which all looks have together
    next_look = looks.next_after(number)
    if number not in looks.numbers and not _time_is_up(rule, minutes):
        why = _too_early(next_look) if looks.last_until(number) is None else "between two looks nothing is concluded"
        return Decision(False, why, estimate, next_look)
    return _reach_goal(rule, estimate) or _reach_limit(rule, estimate, number, minutes, next_look)


def judge_census(rule: StoppingRule, value: float, total: int, of: str = "the rate") -> Decision:
    """The decision after all `total` possible faults: nothing is left to try, and the number has no interval."""
    estimate = exact_estimate(value, total, of)
    met = None if rule.requirement is None else rule.requirement.judge(estimate)
    return Decision(True, f"exact, all {total:,}", estimate, None, met)


def _reach_goal(rule: StoppingRule, estimate: Estimate) -> Decision | None:
    """The decision to stop as the goal is reached; None where it is not."""
    if rule.requirement is not None:
        met = rule.requirement.judge(estimate)
        if met is None:
            return None
        word = "met" if met else "missed"
        return Decision(True, f"the requirement {rule.requirement} is {word}: {_ends(estimate)}", estimate, None, met)
    margin = _margin(rule, estimate)
    if margin is None or estimate.half_width > margin:
        return None
    share = estimate.half_width / abs(estimate.value)
    return Decision(True, f"the interval is within {share:.3g} of the number, {rule.relative:g} was wanted", estimate)


def _stop_for_images(rule: StoppingRule, sums: Sums, estimate: Estimate) -> Decision | None:
    """The decision to stop as these images are too few for the goal, with any number of seeds."""
    if not sums.enough:
        return None
    margin = _margin(rule, estimate)
    if rule.requirement is not None:
        margin = abs(rule.requirement.limit - estimate.value)
    if margin is None or margin == 0 or half_width_by_images(sums, rule.looks) <= margin:
        return None
    needed = count_images_needed(sums, rule.looks, margin)
    why = f"more fault seeds do not help: these {sums.images:,} images are too few, about {needed:,} are needed"
    return Decision(True, why, estimate)


def _reach_limit(
    rule: StoppingRule, estimate: Estimate, trials: int, minutes: float, next_look: int | None
) -> Decision:
    """The decision to stop at a limit, or to go on."""
    goal = _goal(rule)
    if trials >= rule.max_trials:
        return Decision(True, f"{trials:,} trials, as many as were allowed{_missing(goal)}", estimate)
    if _time_is_up(rule, minutes):
        return Decision(True, f"{minutes:.3g} minutes, as long as was allowed{_missing(goal)}", estimate)
    if goal is None:
        return Decision(False, f"{trials:,} of {rule.max_trials:,} trials", estimate, next_look)
    return Decision(False, f"{goal} not reached after {trials:,} trials: {_ends(estimate)}", estimate, next_look)


def _margin(rule: StoppingRule, estimate: Estimate) -> float | None:
    """The half width wanted; None where none is, or where nothing was seen that it could be a share of."""
    if rule.relative is None or estimate.value == 0:
        return None
    return rule.relative * abs(estimate.value)


def _goal(rule: StoppingRule) -> str | None:
    if rule.requirement is not None:
        return f"a verdict on {rule.requirement}"
    return None if rule.relative is None else f"a relative margin of {rule.relative:g}"


def _missing(goal: str | None) -> str:
    return "" if goal is None else f", without {goal}"


def _ends(estimate: Estimate) -> str:
    low, high = estimate.ends or (estimate.value, estimate.value)
    return f"{low:.3g} to {high:.3g}"


def _time_is_up(rule: StoppingRule, minutes: float) -> bool:
    return rule.max_minutes is not None and minutes >= rule.max_minutes


def _too_early(next_look: int | None) -> str:
    return f"nothing is concluded before {next_look:,} trials"
