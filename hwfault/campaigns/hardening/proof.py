"""Measures tried: trials of the network with and without each, under the same fault seeds, in a store of their own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.figures import Trials, columns_of
from hwfault.campaigns.hardening.candidates import Candidate, Comparison
from hwfault.campaigns.hardening.several import Several
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.statistics.estimates import Estimate, exact_estimate
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_difference, estimate_mean
from hwfault.campaigns.study.records import Question, Study
from hwfault.campaigns.study.tasks import Task
from hwfault.errors import HwfaultError
from hwfault.files import output_folder
from hwfault.laws.models import FaultModel
from hwfault.locks import locked_folder

FOLDER = "hardening"
_TOGETHER = 16

Shares = NDArray[np.float64]


class Tried(NamedTuple):
    """One measure against none: the rates of both, and what it removes, trial by trial of the same seed.

    `accuracy` and what of it is `regained` are None without labels, the differences at the baseline, and the price
    where none is known.
    """

    name: str
    told: str
    trials: int
    sdc: Estimate
    due: Estimate
    removed: Estimate | None
    accuracy: Estimate | None = None
    regained: Estimate | None = None
    extra_bytes: float | None = None
    energy: float | None = None
    laws: tuple[FaultModel, ...] | None = None
    """What was clipped, for a candidate that was; None for another, and where an older version did not keep it."""
    measures: tuple[tuple[str, str], ...] = ()
    """(site, measure) of its memories beside that."""

    def to_data(self) -> dict[str, Any]:
        """As JSON tells it."""
        data = self._asdict()
        told = {key: value._asdict() if isinstance(value, Estimate) else value for key, value in data.items()}
        laws = None if self.laws is None else [law.to_data() for law in self.laws]
        return told | {"laws": laws, "measures": [list(one) for one in self.measures]}


class Proof(NamedTuple):
    """What was tried of one question: of its single flips at a (mean) `rate`, or of its own faults (None).

    `several` is what more flips in one word do under its measures with check bits. `rates` are those of a bit at each
    site where they differ: two profiles may have one mean rate. Empty where an older version did not keep them.
    """

    question: str
    rate: float | None
    tried: tuple[Tried, ...]
    several: tuple[Several, ...] = ()
    rates: Mapping[str, float] | None = None

    def is_of(self, question: str, rate: float | None, rates: Mapping[str, float] | None) -> bool:
        """Whether that is what was struck."""
        return (self.question, self.rate) == (question, rate) and self.rates == rates

    def to_data(self) -> dict[str, Any]:
        """As JSON tells it."""
        several = [one.to_data() for one in self.several]
        return self._asdict() | {"tried": [one.to_data() for one in self.tried], "several": several}


def try_all(
    folder: Path,
    study: Study,
    trust: Trust,
    comparisons: Sequence[Comparison],
    trials: int,
    progress: Callable[[], object] = lambda: None,
) -> list[Proof]:
    """Runs so many trials of each candidate under the same seeds, kept in `hardening/` of the campaign's folder.

    What is there already is not run again; where every seed has the same faults, one trial tells all. Raises
    HwfaultError where some trials of a candidate have no answer.
    """
    questions = {}
    for place, comparison in enumerate(comparisons):
        for one in comparison.every:
            questions[_name(place, one)] = Question(faults=one.faults, device=comparison.device)
    own = study.model_copy(update={"questions": questions})
    where = output_folder(folder / FOLDER)
    with locked_folder(where), Database(where / FILE) as database:
        measurement = Measurement(own, trust)
        tasks = {task.question: task for task in measurement.tasks}
        found = []
        for place, comparison in enumerate(comparisons):
            mine = [tasks[_name(place, one)] for one in comparison.every]
            found.append(_compare(measurement, database, comparison, mine, trials, progress))
    return found


def _name(place: int, candidate: Candidate) -> str:
    return f"{place}-{candidate.name}"


def _compare(
    measurement: Measurement,
    database: Database,
    comparison: Comparison,
    tasks: Sequence[Task],
    trials: int,
    progress: Callable[[], object],
) -> Proof:
    same = all(measurement.varies_not(task) for task in tasks)
    count = 1 if same else trials
    rows = [_run(measurement, database, task, count, progress) for task in tasks]
    confidence = measurement.study.stop.confidence
    telling = _Telling(count, same, confidence)
    # of clipped ranges the best may be taken, so that their intervals have to hold at once (Bonferroni)
    ranges = sum(1 for one in comparison.others if one.laws)
    at_once = _Telling(count, same, confidence, among=max(1, ranges))
    base = rows[0]
    found = []
    for one, mine in zip(comparison.every, rows, strict=True):
        if mine.number != base.number:
            raise HwfaultError(f"{one.told}: {mine.number} of {base.number} trials have an answer; expected all")
        beside = None if one is comparison.baseline else base
        found.append((at_once if one.laws else telling).tried(one, mine, beside))
    return Proof(comparison.question, comparison.rate, tuple(found), rates=comparison.rates)


class _Telling:
    """Numbers of some trials, or of the one that tells all, where every seed has the `same` faults.

    Their intervals hold with `confidence` together with those of all `among` so many.
    """

    def __init__(self, trials: int, same: bool, confidence: float, among: int = 1) -> None:
        self._same = same
        self._confidence = confidence
        self._looks = Looks.plan(trials, 1 - (1 - confidence) / among)

    def tried(self, of: Candidate, mine: Trials, base: Trials | None) -> Tried:
        """What a candidate came to, beside the baseline (None: it is that itself)."""
        removed = regained = accuracy = None
        if mine.correct is not None:
            accuracy = self._mean(mine.correct.mean(1), "the accuracy")
        if base is not None:
            removed = self._less(base.wrong.mean(1), mine.wrong.mean(1))
            if mine.correct is not None and base.correct is not None:
                regained = self._less(mine.correct.mean(1), base.correct.mean(1))
        sdc = self._mean(mine.wrong.mean(1), "the rate of silent wrong answers")
        due = self._mean(mine.due.mean(1), "the rate of DUE")
        price = of.extra_bytes, of.energy
        rates = sdc, due, removed, accuracy, regained
        measures = tuple((one.site, one.name) for one in of.measures if one.kind != "none") if of.laws else ()
        return Tried(of.name, of.told, mine.number, *rates, *price, of.laws or None, measures)

    def _mean(self, shares: Shares, of: str) -> Estimate:
        if self._same:
            return exact_estimate(float(shares[0]), 1, of)
        return estimate_mean(shares, self._looks, of=of)._replace(confidence=self._confidence)

    def _less(self, more: Shares, less: Shares) -> Estimate:
        if self._same:
            return exact_estimate(float(more[0] - less[0]), 1, "the difference")
        return estimate_difference(more, less, self._looks)._replace(confidence=self._confidence)


def _run(
    measurement: Measurement, database: Database, task: Task, trials: int, progress: Callable[[], object]
) -> Trials:
    """The trials of a task from the study's seed on, in columns."""
    stored = measurement.stored(database, task)
    keys = measurement.keys(task, trials)
    there = database.keys(stored)
    missing = [key for key in keys if key not in there]
    for begin in range(0, len(missing), _TOGETHER):
        database.put(stored, list(measurement.run(task, missing[begin : begin + _TOGETHER])))
        progress()
    return columns_of(database.rows(stored), stored.masks, stored.samples, keys)
