"""What the rows of a task come to: rates with their intervals, the accuracy, what was counted beside them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.database import Row
from hwfault.campaigns.exposure import fit_of
from hwfault.campaigns.statistics.classes import ClassRate
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_mean
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.statistics.stopping import (
    Decision,
    StoppingRule,
    judge_census,
    judge_events,
    judge_means,
    judge_population,
    judge_strata,
)
from hwfault.campaigns.statistics.strata import estimate_drawn_strata
from hwfault.campaigns.statistics.two_way import Sums
from hwfault.campaigns.study.records import Claim, Stop
from hwfault.campaigns.study.strata import Strata
from hwfault.campaigns.study.tasks import Draw, has_one_sample, has_single_flips, is_exhaustive

Bools = NDArray[np.bool_]
_SEVERAL = 2
_OF = "the rate of silent wrong answers"


class Trials(NamedTuple):
    """The rows of a task in columns, those that failed left out: `wrong` (trials, samples) is the outcome that counts.

    `due` is of the same shape; `correct` likewise, or None where there are no labels. `silent` counts the trials in
    which no fault fell, or is None where that was not counted for each.
    """

    keys: NDArray[np.uint64]
    wrong: Bools
    due: Bools
    correct: Bools | None
    failed: int
    silent: int | None

    @property
    def number(self) -> int:
        """How many trials there are."""
        return len(self.keys)

    def take(self, places: NDArray[np.int64]) -> "Trials":
        """Those at some places, each as often as it is named."""
        correct = None if self.correct is None else self.correct[places]
        return self._replace(keys=self.keys[places], wrong=self.wrong[places], due=self.due[places], correct=correct)


def columns_of(rows: Iterable[Row], masks: Sequence[str], samples: int, among: Sequence[int] | None = None) -> Trials:
    """The rows whose keys are `among` those, in columns; silent wrong answers are those that were not detected."""
    wanted = among if among is None or isinstance(among, range) else frozenset(among)
    kept: list[Row] = []
    failed = 0
    for row in rows:
        if wanted is not None and row.key not in wanted:
            continue
        if row.failed is not None:
            failed += 1
        elif row.answers is not None:  # of trials of 0.4.0 only how many answers were right is known
            kept.append(row)
    stacked = np.zeros((len(kept), len(masks), samples), np.bool_)
    for place, row in enumerate(kept):
        stacked[place] = row.answers
    due = _mask(stacked, masks, "due")
    wrong = _mask(stacked, masks, counted_outcome(masks))
    if counted_outcome(masks) != "due":
        wrong = wrong & ~due
    correct = _mask(stacked, masks, "correct") if "correct" in masks else None
    faults = [row.faults for row in kept]
    silent = None if None in faults else sum(count == 0 for count in faults)
    return Trials(np.array([row.key for row in kept], np.uint64), wrong, due, correct, failed, silent)


def counted_outcome(masks: Sequence[str]) -> str:
    """The outcome that is counted as SDC: the first that is not the right answer, nor DUE if there is another."""
    of_answers = [name for name in masks if name != "correct"]
    silent = [name for name in of_answers if name != "due"]
    return (silent or of_answers)[0]


def _mask(stacked: Bools, masks: Sequence[str], name: str) -> Bools:
    if name not in masks:
        return np.zeros((stacked.shape[0], stacked.shape[2]), np.bool_)
    found: Bools = stacked[:, list(masks).index(name)]
    return found


def rule_of(stop: Stop) -> StoppingRule:
    """The stopping rule that a study states; raises ModelError for a requirement that is none."""
    goal: dict[str, Any] = {"relative": stop.relative} if stop.require is None else {"requirement": stop.require}
    return StoppingRule(confidence=stop.confidence, max_trials=stop.max_trials, max_minutes=stop.max_minutes, **goal)


def decide(
    trials: Trials,
    stop: Stop,
    draw: Draw,
    claim: Claim,
    minutes: float,
    total: int | None,
    strata: Strata | None = None,
) -> Decision:
    """Whether a task has enough trials, after those with the first so many keys.

    `total` is how many different trials there are, where that is known: the bits of a space, or 1 where every seed has
    the same faults. `strata` are those that the trials are drawn from.
    """
    rule = rule_of(stop)
    if strata is not None:
        counts = count_strata(strata, trials.keys, trials.wrong[:, 0])
        return judge_strata(rule, counts.events, counts.trials, strata.sizes, strata.first_look, minutes)
    if draw == "pairs":
        return judge_events(rule, int(trials.wrong.sum()), trials.number, minutes)
    if total is not None and (is_exhaustive(draw) or total == 1):
        return _decide_of_all(trials, rule, claim, total)
    if claim == "population" and trials.number >= _SEVERAL and trials.wrong.shape[1] >= _SEVERAL:
        looks = rule.looks
        seen = looks.last_until(trials.number)
        if seen is not None:
            return judge_population(rule, Sums.of(trials.wrong[:seen]), minutes)
    return judge_means(rule, trials.wrong.mean(1), minutes=minutes, of=_OF)


def _decide_of_all(trials: Trials, rule: StoppingRule, claim: Claim, total: int) -> Decision:
    """The decision where every trial that there is was to be run."""
    missing = total - trials.number
    estimate = _estimate_of_all(trials.wrong, total, rule, claim, _OF)
    if missing > 0:
        return Decision(True, f"{missing:,} of {total:,} have no answer, so that the number is not exact", estimate)
    found = judge_census(rule, estimate.value, total)._replace(estimate=estimate)
    if total == 1:
        return found._replace(why="every seed has the same faults, so that one trial tells all")
    return found


def _estimate_of_all(marked: Bools, total: int, rule: StoppingRule, claim: Claim, of: str) -> Estimate:
    """A rate over all `total` trials that there are: exact on these samples, where all have an answer.

    Those without one are taken at their best and worst. Where a population is claimed the samples alone are random.
    """
    missing = total - len(marked)
    if missing > 0:
        known = float(marked.mean(1).sum())
        covers = f"all {total:,}, the {missing:,} without an answer at their best and worst"
        return Estimate(known / len(marked), (known / total, (known + missing) / total), None, "bound", covers, of)
    if claim == "population" and marked.shape[1] >= _SEVERAL:
        by_image = marked.mean(0)
        return estimate_mean(by_image, Looks.plan(len(by_image), rule.confidence), claim="population", of=of)
    return exact_estimate(float(marked.mean()), total, of)


class StrataCounts(NamedTuple):
    """How many trials each stratum has, and in how many of them there was an event."""

    events: NDArray[Any]
    trials: NDArray[np.int64]


def count_strata(strata: Strata, keys: NDArray[np.uint64], marked: Bools) -> StrataCounts:
    """The trials of each stratum, by their keys, and those of them that are marked."""
    where = strata.of_keys(keys)
    count = len(strata.weights)
    trials = np.bincount(where, minlength=count).astype(np.int64)
    return StrataCounts(np.bincount(where, weights=marked, minlength=count), trials)


def _estimate_of_strata(trials: Trials, marked: Bools, strata: Strata, rule: StoppingRule, of: str) -> Estimate:
    """A rate over all pairs, with the interval of one look."""
    looks = Looks.plan(rule.max_trials, rule.confidence, strata.first_look)
    counts = count_strata(strata, trials.keys, marked[:, 0])
    found = estimate_drawn_strata(counts.events, counts.trials, strata.sizes, 1 - looks.alpha, of=of)
    return found._replace(confidence=rule.confidence)


def _opposite(estimate: Estimate, of: str) -> Estimate:
    """The rate of what does not happen."""
    low, high = estimate.ends or (estimate.value, estimate.value)
    return estimate._replace(value=1 - estimate.value, ends=(1 - high, 1 - low), of=of)


_WORST_OF: dict[Draw, str] = {"all": "flip", "listed": "trial"}
"""What the number of a trial is called, where that is not a seed."""


class Figure(NamedTuple):
    """One task in numbers: the rates of silent wrong answers and DUE, the accuracy, and how they came about."""

    question: str
    name: str
    labels: Mapping[str, Any]
    trials: int
    samples: int
    sdc: Estimate | None
    due: Estimate | None
    accuracy: Estimate | None
    golden_accuracy: float | None
    worst: tuple[int, float] | None
    failed: int
    silent: int | None
    why: str
    stopped: bool
    fit: Estimate | None = None
    """Silent wrong answers in 1e9 hours, where the study tells how often bits flip (hwfault.campaigns.exposure)."""
    worst_of: str = "seed"
    """What the number of the worst trial is: that of a seed, of a flip, or of a trial of a list."""
    classes: tuple[ClassRate, ...] = ()
    """Silent wrong answers by class, where samples have labels (hwfault.campaigns.by_class)."""


def rates_of(
    trials: Trials,
    stop: Stop,
    draw: Draw,
    claim: Claim,
    total: int | None,
    decision: Decision,
    strata: Strata | None = None,
) -> dict[str, Any]:
    """The three rates of a task; the first is the one that the decision was made on. Arguments as of `decide`."""
    if not trials.number:
        return {"sdc": None, "due": None, "accuracy": None, "worst": None}
    rule = rule_of(stop)
    looks = rule.looks

    def rate(marked: Bools, of: str) -> Estimate:
        if strata is not None:
            return _estimate_of_strata(trials, marked, strata, rule, of)
        if draw == "pairs":
            return estimate_rate(int(marked.sum()), len(marked), rule.confidence, sequential=True)
        if total is not None and (is_exhaustive(draw) or total == 1):
            return _estimate_of_all(marked, total, rule, claim, of)
        return estimate_mean(marked.mean(1), looks, of=of)

    accuracy = None
    if trials.correct is not None and strata is not None:
        # the gamma interval is one of rare events
        accuracy = _opposite(rate(~trials.correct, "the accuracy"), "the accuracy")
    elif trials.correct is not None:
        accuracy = rate(trials.correct, "the accuracy")
    worst = None
    if not has_one_sample(draw):
        shares = trials.wrong.mean(1)
        place = int(shares.argmax())
        worst = int(trials.keys[place]), float(shares[place])
    return {"sdc": decision.estimate, "due": rate(trials.due, "the rate of DUE"), "accuracy": accuracy, "worst": worst}


class Asked(NamedTuple):
    """What a figure answers: a task's question and labels, what its trials are, how many there are, and the claim."""

    question: str
    name: str
    labels: Mapping[str, Any]
    draw: Draw
    total: int | None
    stop: Stop
    claim: Claim
    fit_per_mbit: float | None
    strata: Strata | None = None
    ends: tuple[int, ...] | None = None
    """Where the sites of the fault space end, for single flips."""


def make_figure(asked: Asked, seen: Trials, decision: Decision, golden_accuracy: float | None) -> Figure:
    """A task in numbers, after the decision on its trials."""
    rates = rates_of(seen, asked.stop, asked.draw, asked.claim, asked.total, decision, asked.strata)
    bits = asked.total if has_single_flips(asked.draw) else None
    return Figure(
        question=asked.question,
        name=asked.name,
        labels=asked.labels,
        trials=seen.number,
        samples=seen.wrong.shape[1],
        golden_accuracy=golden_accuracy,
        failed=seen.failed,
        silent=seen.silent,
        why=decision.why,
        stopped=decision.stop,
        fit=fit_of(rates["sdc"], asked.labels, bits, asked.fit_per_mbit),
        worst_of=_WORST_OF.get(asked.draw, "seed"),
        **rates,
    )
