"""How many trials a question takes, and how long; all of them where that is no more than sampling would take."""

import math
from collections.abc import Callable
from typing import NamedTuple

from hwfault.campaigns.statistics.estimates import check_confidence
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.proportions import (
    CONFIDENCE,
    exact_at_most,
    exact_ends,
    sequence_at_most,
    sequence_ends,
)
from hwfault.campaigns.statistics.requirements import Requirement
from hwfault.errors import HwfaultError

_MOST_TRIALS = 10**12
_SECONDS = 60


class Plan(NamedTuple):
    """How many trials are to be run, whether that is every fault, how long it takes, and why in one sentence.

    `events` is how many events are expected, as far as that is known; `minutes` is None where no speed was measured.
    """

    trials: int
    exhaustive: bool
    why: str
    events: float | None = None
    minutes: float | None = None


def plan_margin(
    rate: float,
    relative: float,
    confidence: float = CONFIDENCE,
    *,
    sequential: bool = True,
    space: int | None = None,
    per_second: float | None = None,
) -> Plan:
    """The trials after which the interval's half width is `relative` times the rate, should that be as expected.

    `sequential` where a rule will look at them, as campaigns do. `space` is the number of possible faults, where every
    one can be tried; `per_second` the trials a second that were measured. Raises HwfaultError for a rate or confidence
    outside of (0, 1), a margin that is not above 0, or more than 10^12 trials.
    """
    _check_rate(rate)
    check_confidence(confidence)
    if not 0 < relative < math.inf:
        raise HwfaultError(f"the relative margin is {relative}, expected more than 0, such as 0.1")
    ends = sequence_ends if sequential else exact_ends

    def narrow(trials: int) -> bool:
        low, high = ends(rate * trials, trials, confidence)
        return bool(high - low <= 2 * relative * rate)

    wanted = f"a relative margin of {relative:g} at an expected rate of {rate:g}"
    return _settle(_count_trials(narrow, wanted, space), wanted, rate, space, per_second)


def plan_events(rate: float, events: float, *, space: int | None = None, per_second: float | None = None) -> Plan:
    """The trials in which so many events are expected; arguments and errors as in `plan_margin`."""
    _check_rate(rate)
    if not 0 < events < math.inf:
        raise HwfaultError(f"the expected events are {events}, expected a number above 0, such as 100")
    wanted = f"{events:g} events at an expected rate of {rate:g}"
    return _settle(math.ceil(events / rate), wanted, rate, space, per_second)


def plan_requirement(
    requirement: Requirement,
    confidence: float = CONFIDENCE,
    *,
    events: int = 0,
    sequential: bool = True,
    space: int | None = None,
    per_second: float | None = None,
) -> Plan:
    """The trials that meet a requirement on a rate, if no event is seen in them, or no more than `events`.

    For "> 0.9" the opposites count as events. Arguments and errors as in `plan_margin`.
    """
    requirement.check_rate()
    check_confidence(confidence)
    if events < 0:
        raise HwfaultError(f"given {events} events, expected none or more")
    limit = requirement.limit if requirement.side == "<" else 1 - requirement.limit
    at_most = sequence_at_most if sequential else exact_at_most

    def settled(trials: int) -> bool:
        return trials > events and bool(at_most(events, trials, confidence) < limit)

    seen = "no event" if requirement.side == "<" else "nothing else"
    if events:
        seen = f"{events:,} of them" if requirement.side == "<" else f"{events:,} others"
    wanted = f"the requirement {requirement}, with {seen} seen"
    return _settle(_count_trials(settled, wanted, space), wanted, None, space, per_second)


def plan_mean(mean: float, deviation: float, relative: float, looks: Looks, *, per_second: float | None = None) -> Plan:
    """The look at which a mean is known to a relative margin, should it and the standard deviation be as expected.

    `per_second` counts trials, each over all images. Where no look of those planned is enough, it is the last, and the
    sentence says about how many trials would be. Raises HwfaultError for a mean of 0 or a negative deviation.
    """
    from scipy.special import ndtri, stdtrit  # slow to import, and only needed here

    if not (math.isfinite(mean) and mean and 0 <= deviation < math.inf and 0 < relative < math.inf):
        raise HwfaultError(
            f"given a mean of {mean}, a deviation of {deviation} and a margin of {relative}, expected a mean other "
            "than 0, no negative deviation, and a margin above 0"
        )
    margin = relative * abs(mean)
    wanted = f"a relative margin of {relative:g} at an expected mean of {mean:g}"
    share = 1 - looks.alpha / 2
    for number in looks.numbers:
        if float(stdtrit(max(number - 1, 1), share)) * deviation <= margin * math.sqrt(number):
            return Plan(number, False, f"{number:,} trials for {wanted}", None, _minutes(number, per_second))
    needed = math.ceil((float(ndtri(share)) * deviation / margin) ** 2)
    last = looks.max_trials
    why = f"{wanted} needs about {needed:,} trials, more than the {last:,} allowed"
    return Plan(last, False, why, None, _minutes(last, per_second))


def _count_trials(enough: Callable[[int], bool], wanted: str, space: int | None) -> int:
    """The smallest number of trials that is enough, or the first found that is no less than the space."""
    most = 1
    while not enough(most):
        if space is not None and most >= space:
            return most
        if most > _MOST_TRIALS:
            raise HwfaultError(f"{wanted} needs more than {_MOST_TRIALS:,} trials: ask for less")
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        if enough(middle):
            most = middle
        else:
            least = middle
    return most


def _settle(needed: int, wanted: str, rate: float | None, space: int | None, per_second: float | None) -> Plan:
    """Sampled, or exhaustive where sampling would take as many trials as there are faults."""
    trials, exhaustive = needed, False
    why = f"{needed:,} trials for {wanted}"
    if space is not None:
        if space < 1:
            raise HwfaultError(f"the fault space holds {space} faults, expected at least one: nothing can be struck")
        if needed >= space:
            trials, exhaustive = space, True
            why = f"all {space:,} faults, as {wanted} would take as many trials or more"
        else:
            why += f", of {space:,} faults"
    events = None if rate is None else rate * trials
    return Plan(trials, exhaustive, why, events, _minutes(trials, per_second))


def _minutes(trials: int, per_second: float | None) -> float | None:
    if per_second is None:
        return None
    if not 0 < per_second < math.inf:
        raise HwfaultError(f"the speed is {per_second} trials a second, expected more than 0")
    return trials / per_second / _SECONDS


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise HwfaultError(f"the expected rate is {rate}, expected more than 0 and less than 1: give a guess")
