"""A campaign as its store tells it, without the network: its tasks, how far they are, what they found."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from hwfault.campaigns.about import ABOUT, merge_runs
from hwfault.campaigns.by_class import kept_labels, with_classes
from hwfault.campaigns.database import Database
from hwfault.campaigns.database import Task as Stored
from hwfault.campaigns.figures import Asked, Figure, Trials, columns_of, decide, make_figure
from hwfault.campaigns.merging import merge
from hwfault.campaigns.question import QUESTION
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.study.kept_space import KeptSpace
from hwfault.campaigns.study.records import Stop, Study, kept_study
from hwfault.campaigns.study.strata import Strata
from hwfault.campaigns.study.tasks import Draw, keys_of
from hwfault.errors import FileError

_FEW = 3


class Progress(NamedTuple):
    """How far a task is: its trials, those that failed and why, at which numbers it was looked at, and its state."""

    name: str
    trials: int
    failed: int
    failures: tuple[str, ...]
    looks: str
    state: str


class KeptTask(NamedTuple):
    """A task as it was begun: its question and labels, what its trials are, its fault space, when it stops."""

    question: str
    name: str
    labels: dict[str, Any]
    stored: Stored
    draw: Draw
    total: int | None
    stop: Stop
    study: Study
    note: str = ""
    expected: float | None = None
    """How many faults of a profile one sample is expected to see; None for flips and for rates of bit errors."""

    @property
    def strata(self) -> Strata | None:
        """What its trials are drawn from; raises FileError for a damaged store."""
        if self.draw != "strata":
            return None
        space = KeptSpace.of(self.stored.identity, self.name)
        return Strata.kept(self.stored.identity, space.ends, space.widths, self.name)

    @property
    def ends(self) -> tuple[int, ...] | None:
        """Where the sites of its fault space end; None where it has none. Raises FileError for a damaged store."""
        if "sites" not in self.stored.identity.get("faults", {}):
            return None
        return KeptSpace.of(self.stored.identity, self.name).ends

    @property
    def looks(self) -> int:
        """How many looks there are at its trials at most."""
        strata = self.strata
        first = 0 if strata is None else strata.first_look
        return len(Looks.plan(self.stop.max_trials, self.stop.confidence, first).numbers)

    def progress(self, database: Database) -> Progress:
        """How far it is."""
        whys: Counter[str] = Counter()
        count = 0
        for row in database.rows(self.stored):
            if row.failed is None:
                count += 1
            else:
                whys[row.failed] += 1
        failures = tuple(f"{number:,} trials failed: {why}" for why, number in whys.most_common(_FEW))
        looks = database.looks(self.stored)
        told = ", ".join(f"{trials:,}" for trials, _, _ in looks[-_FEW:])
        state = looks[-1][2] if looks else "not looked at yet"
        return Progress(self.name, count, sum(whys.values()), failures, told, state)

    def seen(self, database: Database) -> Trials | None:
        """Its trials up to the last look; None before that, where none has an answer, and for first turns."""
        looks = database.looks(self.stored)
        if not looks or self.draw == "turns":
            return None
        asked = keys_of(self.study, self.question, self.draw, looks[-1][0])
        found = columns_of(database.rows(self.stored), self.stored.masks, self.stored.samples, asked)
        return found if found.number else None

    def figure(self, database: Database) -> Figure | None:
        """What it found up to its last look; None before that."""
        seen = self.seen(database)
        return None if seen is None else self.figure_of(seen, database)

    def figure_of(self, seen: Trials, database: Database) -> Figure:
        """What its trials up to the last look come to."""
        _, stopped, why = database.looks(self.stored)[-1]
        decision = decide(seen, self.stop, self.draw, self.study.samples.claim, 0.0, self.total, self.strata)
        golden = database.golden(self.stored)
        accuracy = None
        if golden is not None and "correct" in self.stored.masks:
            accuracy = float(golden[self.stored.masks.index("correct")].mean())
        asked = Asked(
            question=self.question,
            name=self.name,
            labels=self.labels,
            draw=self.draw,
            total=self.total,
            strata=self.strata,
            ends=self.ends,
            stop=self.stop,
            claim=self.study.samples.claim,
            fit_per_mbit=self.study.fit_per_mbit,
        )
        # what was said at the look stands, also where less time has passed by now
        figure = make_figure(asked, seen, decision._replace(stop=stopped, why=why), accuracy)
        return with_classes(figure, asked, seen, kept_labels(database))


def kept_tasks(database: Database) -> list[KeptTask]:
    """The tasks of the campaign in a store, in the order of its study; raises FileError for one that has none."""
    study = kept_study(database.said("study"), str(database.path.parent))
    told = _parsed(database)
    by_digest = {task.digest: task for task in database.tasks()}
    found = []
    for one in told:
        try:
            stored = by_digest[one["digest"]]
            stop = Stop.parse(one["stop"], "the stopping rule")
            draw: Draw = one["draw"]
            note = str(one.get("note", ""))
            expected = None if one.get("expected") is None else float(one["expected"])
            kept = KeptTask(one["question"], one["name"], one["labels"], stored, draw, one["total"], stop, study)
            found.append(kept._replace(note=note, expected=expected))
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{database.path}: its list of tasks is damaged ({error!r})") from None
    return found


def runs_again(database: Database) -> bool:
    """Whether a store's study can be run again: that of `hwfault evaluate` names no network."""
    return database.said(QUESTION) is None


def study_of(database: Database) -> Study:
    """The study of a store, to be run again; raises FileError where it keeps none, or one of `hwfault evaluate`."""
    if not runs_again(database):
        raise FileError(
            f"{database.path}: holds the trials of hwfault evaluate or compare; the same command goes "
            "on there, and `hwfault campaign status`, `report` and `export` read it"
        )
    return kept_study(database.said("study"), str(database.path.parent))


def _parsed(database: Database) -> list[dict[str, Any]]:
    text = database.said("tasks")
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise FileError(f"{database.path}: keeps no list of tasks; begin with `hwfault campaign run`")
    return found


def merge_into(into: Database, other: Database) -> int:
    """Adds another store's trials, and says how many were new; a new store takes the study of the other.

    Raises FileError for two stores without a task in common, and where a trial's answers differ.
    """
    ours = {task.digest for task in into.tasks()}
    theirs = {task.digest for task in other.tasks()}
    if ours and not ours & theirs:
        raise FileError(f"{other.path}: holds the trials of another study than {into.path}; no task is in both")
    new = merge(into, other)
    for key in ("study", "tasks", "strata", "labels", ABOUT, QUESTION):
        said = other.said(key)
        if into.said(key) is None and said is not None:
            into.say(key, said)
    merge_runs(into, other)
    return new


def subject_name(tasks: Sequence[KeptTask]) -> str:
    """The network or graph of a campaign in words."""
    if not tasks:
        return "a study without tasks"
    study = tasks[0].study
    if study.graph is not None:
        return f"the graph {study.graph}"
    kind = tasks[0].stored.identity.get("subject", {}).get("class")
    return f"the network {study.network}" + ("" if kind is None else f" ({kind})")
