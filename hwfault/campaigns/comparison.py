"""Two campaigns side by side: how much more one has than the other, trial by trial under the same faults."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.database import Database
from hwfault.campaigns.figures import Trials, counted_outcome
from hwfault.campaigns.kept import KeptTask, kept_tasks, subject_name
from hwfault.campaigns.statistics.estimates import COVERS, Estimate, exact_estimate
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_difference
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.statistics.strata import estimate_drawn_strata
from hwfault.campaigns.study.tasks import has_one_sample, is_exhaustive
from hwfault.errors import HwfaultError

Bools = NDArray[np.bool_]
Rate = Literal["sdc", "accuracy"]
_OF: dict[Rate, str] = {"sdc": "silent wrong answers, second less first", "accuracy": "accuracy, second less first"}


class Compared(NamedTuple):
    """One task of both: so many trials under the same faults, the rates there, and second less first.

    The accuracy's are None without labels.
    """

    question: str
    name: str
    labels: Mapping[str, Any]
    trials: int
    samples: int
    sdc: tuple[float, float]
    sdc_difference: Estimate
    accuracy: tuple[float, float] | None
    accuracy_difference: Estimate | None


class Comparison(NamedTuple):
    """Two campaigns, by the names of people for them: what was compared, and (task, why) of what was not."""

    names: tuple[str, str]
    compared: tuple[Compared, ...]
    left_out: tuple[tuple[str, str], ...]
    subjects: tuple[str, str] = ("", "")
    """The network or graph of each, in words."""


class _Pair(NamedTuple):
    """The trials of both that have one key, in the same order."""

    task: KeptTask
    other: KeptTask
    first: Trials
    second: Trials


def compare_campaigns(one: Database, other: Database, names: tuple[str, str]) -> Comparison:
    """Every task that both have, paired by seed, flip and sample; those that only one has are named.

    Raises HwfaultError where they cannot be paired: other samples, outcomes or faults under one name, or no task in
    both.
    """
    mine, theirs = ({task.name: task for task in kept_tasks(database)} for database in (one, other))
    left_out = []
    for own, rest, name in ((mine, theirs, names[0]), (theirs, mine, names[1])):
        left_out += [(task, f"only in {name}") for task in own if task not in rest]
    compared = []
    for name, task in mine.items():
        if name not in theirs:
            continue
        _check_alike(task, theirs[name], names)
        if task.draw == "turns":
            left_out.append((name, "first turns are not compared"))
            continue
        pair = _paired(task, theirs[name], one, other)
        if isinstance(pair, str):
            left_out.append((name, pair))
        else:
            compared.append(_compare(pair))
    if not compared and not any(name in theirs for name in mine):
        raise HwfaultError(f"{names[0]} and {names[1]} have no task in common; expected questions of the same names")
    subjects = subject_name([*mine.values()]), subject_name([*theirs.values()])
    return Comparison(names, tuple(compared), tuple(left_out), subjects)


def _check_alike(task: KeptTask, other: KeptTask, names: tuple[str, str]) -> None:
    """Raises HwfaultError for two tasks of one name whose trials are not those of the same faults and samples."""
    here, there = task.stored.identity, other.stored.identity
    samples = [identity.get("subject", {}).get("samples digest") for identity in (here, there)]
    reasons = [
        ("samples", samples[0] != samples[1]),
        ("outcomes", counted_outcome(task.stored.masks) != counted_outcome(other.stored.masks)),
        ("limits of DUE", here.get("due") != there.get("due")),
        ("specimen (device)", here.get("device") != there.get("device")),
        ("faults", here.get("faults") != there.get("faults")),
    ]
    for what, differs in reasons:
        if differs:
            hint = ""
            if task.draw == other.draw == "strata":
                hint = "; flips from strata are drawn by each network's own scores, goal: bound draws the same in both"
            raise HwfaultError(
                f"{task.name}: {names[0]} and {names[1]} have other {what}, so that their trials are no pairs; "
                f"expected the same question about the same samples{hint}"
            )


def _paired(task: KeptTask, other: KeptTask, one: Database, two: Database) -> _Pair | str:
    """The trials that both have up to the earlier of their last looks; or why there is none."""
    seen = task.seen(one), other.seen(two)
    first, second = seen
    if first is None or second is None:
        return "one of them was not looked at yet"
    shared = np.intersect1d(first.keys, second.keys)
    if not len(shared):
        return "no trial of one is among those of the other (their seeds differ)"
    return _Pair(task, other, _only(first, shared), _only(second, shared))


def _only(seen: Trials, keys: NDArray[np.uint64]) -> Trials:
    """The trials of some keys, by key."""
    order = np.argsort(seen.keys, kind="stable")
    places = order[np.searchsorted(seen.keys[order], keys)]
    correct = None if seen.correct is None else seen.correct[places]
    return seen._replace(keys=keys, wrong=seen.wrong[places], due=seen.due[places], correct=correct)


def _compare(pair: _Pair) -> Compared:
    task = pair.task
    accuracy = difference = None
    if pair.first.correct is not None and pair.second.correct is not None:
        accuracy = _rates(pair, lambda seen: seen.correct)
        difference = _difference(pair, lambda seen: seen.correct, "accuracy")
    return Compared(
        question=task.question,
        name=task.name,
        labels=task.labels,
        trials=pair.first.number,
        samples=pair.first.wrong.shape[1],
        sdc=_rates(pair, lambda seen: seen.wrong),
        sdc_difference=_difference(pair, lambda seen: seen.wrong, "sdc"),
        accuracy=accuracy,
        accuracy_difference=difference,
    )


_Marked = Callable[[Trials], Any]


def _rates(pair: _Pair, marked: _Marked) -> tuple[float, float]:
    """The rates of both over the shared trials."""
    strata = pair.task.strata
    found = []
    for seen in (pair.first, pair.second):
        value = float(marked(seen).mean())
        if strata is not None:
            value = _of_strata(pair, marked(seen)[:, 0], 0.95).value
        found.append(value)
    return found[0], found[1]


def _difference(pair: _Pair, marked: _Marked, rate: Rate) -> Estimate:
    """Second less first, with its interval."""
    first, second = marked(pair.first), marked(pair.second)
    confidence = pair.task.stop.confidence
    if has_one_sample(pair.task.draw):
        return _of_events(pair, first[:, 0], second[:, 0], confidence)._replace(of=_OF[rate])
    total = pair.task.total
    if total is not None and (is_exhaustive(pair.task.draw) or total == 1):
        return _of_all(first, second, total)._replace(of=_OF[rate])
    most = min(pair.task.stop.max_trials, pair.other.stop.max_trials)
    looks = Looks.plan(max(most, len(first)), confidence)
    return estimate_difference(second.mean(1), first.mean(1), looks)._replace(of=_OF[rate])


def _of_all(first: Bools, second: Bools, total: int) -> Estimate:
    """The difference over all trials that there are: exact, or with those that are missing at their best and worst."""
    value = float(second.mean() - first.mean())
    if len(first) == total:
        return exact_estimate(value, total)
    known = value * len(first) / total
    missing = (total - len(first)) / total
    covers = f"all {total:,}, the {total - len(first):,} that not both have at their best and worst"
    return Estimate(value, (known - missing, known + missing), None, "bound", covers)


def _of_events(pair: _Pair, first: Bools, second: Bools, confidence: float) -> Estimate:
    """The difference of two rates of single events, from the trials in which only one of them has it.

    Each of these two rates has half of the error.
    """
    each = (1 + confidence) / 2
    gained, lost = second & ~first, first & ~second
    if pair.task.strata is None:
        number = len(first)
        up, down = (estimate_rate(int(only.sum()), number, each, sequential=True) for only in (gained, lost))
    else:
        up, down = (_of_strata(pair, only, each) for only in (gained, lost))
    (up_low, up_high), (down_low, down_high) = up.ends or (0, 1), down.ends or (0, 1)
    ends = up_low - down_high, up_high - down_low
    return Estimate(up.value - down.value, ends, confidence, up.by, COVERS["these"])


def _of_strata(pair: _Pair, marked: Bools, confidence: float) -> Estimate:
    strata = pair.task.strata
    assert strata is not None
    most = min(pair.task.stop.max_trials, pair.other.stop.max_trials)
    looks = Looks.plan(most, confidence, strata.first_look)
    where = strata.of_keys(pair.first.keys)
    count = len(strata.weights)
    events, trials = np.bincount(where, weights=marked, minlength=count), np.bincount(where, minlength=count)
    return estimate_drawn_strata(events, trials, strata.sizes, 1 - looks.alpha)
