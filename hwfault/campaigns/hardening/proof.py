"""Measures tried: trials of the network with and without each, under the same fault seeds, in a store of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.figures import columns_of
from hwfault.campaigns.hardening.advice import Advice
from hwfault.campaigns.hardening.faults import faults_of
from hwfault.campaigns.hardening.harm import Harm
from hwfault.campaigns.hardening.measures import Measure, measures_of
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_difference, estimate_mean
from hwfault.campaigns.study.hardening import Costs
from hwfault.campaigns.study.records import Question, Study
from hwfault.campaigns.study.tasks import Task
from hwfault.errors import HwfaultError
from hwfault.files import output_folder
from hwfault.laws.models import FaultModel
from hwfault.locks import locked_folder

FOLDER = "hardening"
BASELINE = "baseline"
_TOGETHER = 16


class Tried(NamedTuple):
    """One measure against none: the rates of both, and what it removes, trial by trial of the same seed."""

    name: str
    told: str
    trials: int
    sdc: Estimate
    due: Estimate
    removed: Estimate | None

    def to_data(self) -> dict[str, Any]:
        """As JSON tells it."""
        removed = None if self.removed is None else self.removed._asdict()
        return self._asdict() | {"sdc": self.sdc._asdict(), "due": self.due._asdict(), "removed": removed}


def plans_to_try(advice: Advice, harm: Harm, costs: Costs, most: int = 3) -> dict[str, tuple[str, tuple[Measure, ...]]]:
    """What is tried, in words and measures: nothing, the cheapest plan, and the first measures of different kinds."""
    every = {site.name: measures_of(site, costs) for site in harm.sites}
    nothing = tuple(measures[0] for measures in every.values())
    found: dict[str, tuple[str, tuple[Measure, ...]]] = {BASELINE: ("no measure", nothing)}
    if advice.best is not None and any(one.kind != "none" for one in advice.best.measures):
        found["plan"] = ("the cheapest plan", advice.best.measures)
    kinds: set[tuple[str, str]] = set()
    for one in advice.worth:
        kind = one.measure.split()[0]
        if len(kinds) == most or not one.removed or (one.site, kind) in kinds:
            continue
        taken = []
        for site, measures in every.items():
            fitting = [measure for measure in measures if measure.name == one.measure]
            here = one.site in (site, "all sites") and fitting
            taken.append(fitting[0] if here else measures[0])
        if any(tuple(taken) == measures for _, measures in found.values()):
            continue  # the cheapest plan is that measure alone
        kinds.add((one.site, kind))
        found[f"measure{len(kinds)}"] = (f"{one.measure} on {one.site}", tuple(taken))
    return found


def try_plans(
    folder: Path,
    study: Study,
    trust: Trust,
    plans: dict[str, tuple[str, tuple[Measure, ...]]],
    widths: dict[str, int],
    rate: float,
    trials: int,
    progress: Callable[[], object] = lambda: None,
) -> list[Tried]:
    """Runs so many trials of each plan under the same seeds, kept in `hardening/` of the campaign's folder.

    What is there already is not run again. Raises HwfaultError for a plan without any fault left to strike.
    """
    questions = {}
    for name, (told, measures) in plans.items():
        faults = faults_of(measures, widths, rate)
        if not faults:
            raise HwfaultError(f"{told}: no bit is left that flips, so there is nothing to try")
        questions[name] = _question(faults)
    own = study.model_copy(update={"questions": questions})
    where = output_folder(folder / FOLDER)
    with locked_folder(where), Database(where / FILE) as database:
        measurement = Measurement(own, trust)
        rows = {task.question: _run(measurement, database, task, trials, progress) for task in measurement.tasks}
    looks = Looks.plan(trials, study.stop.confidence)
    base = rows[BASELINE].wrong.mean(1)
    found = []
    for name, (told, _) in plans.items():
        wrong, due = rows[name].wrong.mean(1), rows[name].due.mean(1)
        if len(wrong) != len(base):
            raise HwfaultError(f"{told}: {len(wrong)} of {len(base)} trials have an answer; expected the same seeds")
        removed = None if name == BASELINE else estimate_difference(base, wrong, looks)
        sdc = estimate_mean(wrong, looks, of="the rate of silent wrong answers")
        found.append(Tried(name, told, len(wrong), sdc, estimate_mean(due, looks, of="the rate of DUE"), removed))
    return found


def _question(faults: Sequence[FaultModel]) -> Question:
    return Question(faults=tuple(faults))


def _run(measurement: Measurement, database: Database, task: Task, trials: int, progress: Callable[[], object]) -> Any:
    """The trials of a task from the study's seed on, in columns."""
    stored = measurement.stored(database, task)
    keys = measurement.keys(task, trials)
    there = database.keys(stored)
    missing = [key for key in keys if key not in there]
    for begin in range(0, len(missing), _TOGETHER):
        database.put(stored, list(measurement.run(task, missing[begin : begin + _TOGETHER])))
        progress()
    return columns_of(database.rows(stored), stored.masks, stored.samples, keys)
