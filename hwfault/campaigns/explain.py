"""One trial on one sample, told site by site: where it began, where it was masked, where it reached the answer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.engines.engine import Trial
from hwfault.campaigns.engines.watching import Batch, SeenSite, Watched, Watching, batch_of
from hwfault.campaigns.figures import counted_outcome
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.study.tasks import Task, has_one_sample, pair_of
from hwfault.errors import HwfaultError, nearest
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.listing import Hit, faults_at, with_addresses
from hwfault.stream.check import check_seed

Ints = NDArray[np.int64]

GOLDEN = "golden"
BEGAN = "began here"
STRUCK = "struck"
DEVIATES = "deviates"
GOLDEN_AGAIN = "golden again"
NOT_COMPARED = "not compared"
_OF_SAMPLES = ("activation", "input", "accumulator")


class SiteStory(NamedTuple):
    """One run of a site: the faults that changed a code there, and how many of its words are not the golden run's.

    `arrived` counts them before the site's own faults, `left` after these, and `own` how many words these changed;
    `largest` is the largest change of an integer from the golden run's. `arrived`, `left` and `largest` are None for an
    accumulator, of which the golden run keeps nothing.
    """

    name: str
    kind: str
    words: int
    faults: tuple[Hit, ...]
    arrived: int | None
    own: int
    left: int | None
    largest: int | None
    state: str

    @property
    def is_golden(self) -> bool:
        """Whether all of its words are the golden run's when it is left, as far as that is known."""
        return not self.left and not (self.left is None and self.own)


class Explanation(NamedTuple):
    """One trial on one sample: what it came to, and every site in the order in which they ran.

    `counted` is the outcome that counts as SDC, `golden` and `answer` are the classes with the largest outputs.
    `answers` are the outcomes as they came now, `stored` those of the store (None: it has no such trial). `began` is
    the first site that was not golden, `masked` the one from which on everything is golden again; `reached` says that
    the outputs differ, by at most `largest_output_change` (None: one is no number).
    """

    task: str
    key: int
    sample: int
    label: int | None
    golden: int | None
    answer: int | None
    largest_output_change: float | None
    detected: bool
    counted: str
    answers: Mapping[str, bool | float]
    stored: Mapping[str, bool | float] | None
    note: str | None
    began: str | None
    masked: str | None
    reached: bool
    sites: tuple[SiteStory, ...]

    @property
    def agrees(self) -> bool:
        """Whether the store has the same answer, or none at all."""
        return self.stored is None or dict(self.stored) == dict(self.answers)

    @property
    def verdict(self) -> str:
        """What the trial came to, in a few words."""
        if self.answers.get("due", False):
            return "detected (DUE)"
        if self.answers.get(self.counted, False):
            return f"silently wrong (SDC: {self.counted})"
        return "the outputs differ, the answer does not" if self.reached else "masked"

    def to_data(self) -> dict[str, Any]:
        """All of it as JSON tells it."""
        data = self._asdict() | {"agrees": self.agrees, "verdict": self.verdict}
        sites = []
        for site in self.sites:
            faults = [hit.model_dump(exclude_none=True) for hit in site.faults]
            sites.append(site._asdict() | {"faults": faults})
        return data | {"sites": sites}


def find_task(tasks: Sequence[Task], wanted: str) -> tuple[int, Task]:
    """The place and the task of that name, or of that number in the list, from 1; raises HwfaultError for neither."""
    for place, task in enumerate(tasks):
        if task.name == wanted:
            return place, task
    if wanted.isdecimal() and 1 <= int(wanted) <= len(tasks):
        return int(wanted) - 1, tasks[int(wanted) - 1]
    known = [task.name for task in tasks]
    raise HwfaultError(
        f"the campaign has no task {wanted!r}: {nearest(wanted, known)}; expected a name as `hwfault campaign status` "
        f"prints it, or its number there, 1 to {len(tasks)}"
    )


def explain(
    measurement: Measurement, database: Database, wanted: str, key: int, sample: int | None = None
) -> Explanation:
    """Replays a trial of a task on one sample; `key` is its seed, its cell's number, or the number of a drawn pair.

    A drawn pair has a sample of its own, which may be left out. Raises HwfaultError for a task, cell or sample that
    there is not, for another sample than a pair's, and for an engine that shows no sites.
    """
    _, task = find_task(_as_listed(measurement, database), wanted)
    check_seed(key)
    if task.sweep:
        points = [one.name for one in measurement.tasks if one.stands_by and one.question == task.question]
        raise HwfaultError(
            f"{task.name}: a trial along a sweep is one at each of its points; expected one of these: "
            f"{', '.join(map(repr, points))}"
        )
    chosen = _check_sample(measurement, task, key, sample)
    trial = Trial(measurement.plan(task, key), 0 if task.point is None else key)
    engine = measurement.engine_for([trial])
    if not isinstance(engine, Watching):
        raise HwfaultError(f"the engine {engine.name} shows no sites; expected a study with engine: torch, or auto")

    # the same batch as in the campaign, as that is what float sums and some faults depend on
    batch = batch_of(chosen, engine.samples, measurement.study.batch_size, alone=has_one_sample(task.draw))
    golden = engine.watch(None, batch)
    faulty = engine.watch(trial, batch)

    row, note = _stored(measurement, database, task, key)
    detected = _is_detected(measurement, task, key, trial.plan)
    answers = measurement.judge.judge(faulty.outputs, np.array([chosen]), detected=detected)
    own: dict[str, bool | float] = {name: bool(mask[0]) for name, mask in answers.masks.items()}
    own |= {name: float(values[0]) for name, values in answers.metrics.items()}
    stored = None
    if row is not None:
        stored = _answers_in(row, measurement, 0 if has_one_sample(task.draw) else chosen)

    stories = _stories(trial, golden, faulty, batch)
    label = None if measurement.subject.labels is None else int(measurement.subject.labels[chosen])
    change = _largest_change(golden, faulty)
    reached = change is None or change > 0
    began, masked = _ends(stories, reached)
    return Explanation(
        task=task.name,
        key=key,
        sample=chosen,
        label=label,
        golden=_top(golden),
        answer=_top(faulty),
        largest_output_change=change,
        detected=detected,
        counted=counted_outcome(measurement.masks),
        answers=own,
        stored=stored,
        note=note,
        began=began,
        masked=masked,
        reached=reached,
        sites=stories,
    )


# what is asked for


def _as_listed(measurement: Measurement, database: Database) -> list[Task]:
    """The tasks in the order in which `status` tells them; those that stand by, which it does not, come last."""
    tasks = measurement.tasks
    if not any(task.stands_by for task in tasks):
        return tasks
    begun = {one.name for one in kept_tasks(database)}
    return sorted(tasks, key=lambda task: task.stands_by and task.name not in begun)


def _check_sample(measurement: Measurement, task: Task, key: int, sample: int | None) -> int:
    """The sample to look at; raises HwfaultError for one that there is not, and for a cell that there is not."""
    samples = measurement.engine.samples
    if task.draw == "all" and task.space is not None and key >= task.space.size:
        raise HwfaultError(f"{task.name}: cell {key}, expected 0 to {task.space.size - 1}: so many bits there are")
    if task.listed is not None and key >= task.listed.number:
        raise HwfaultError(f"{task.name}: trial {key}, expected 0 to {task.listed.number - 1}: so many are listed")
    if has_one_sample(task.draw):
        drawn = pair_of(task, key, samples)[1]
        if sample is not None and sample != drawn:
            raise HwfaultError(f"{task.name}: trial {key} is one of sample {drawn}, not {sample}; leave SAMPLE out")
        return drawn
    if sample is None:
        raise HwfaultError(f"{task.name}: trial {key} strikes all samples; say which of them: 0 to {samples - 1}")
    if not 0 <= sample < samples:
        raise HwfaultError(f"sample {sample}, expected 0 to {samples - 1}: so many samples the study has")
    return sample


def _stored(measurement: Measurement, database: Database, task: Task, key: int) -> tuple[Row | None, str | None]:
    """The trial as it is kept, and what is to be said of one that has no answers there."""
    stored = database.find(measurement.stored_digest(task))
    row = None if stored is None else next(database.rows(stored, key), None)
    if row is None:
        return None, f"the store has no trial {key} of {task.name}, so it was run now and compared with nothing"
    if row.failed is not None:
        return None, f"the store says that this trial failed ({row.failed}); it was run now and compared with nothing"
    if row.answers is None:
        return (
            None,
            "the store has only how many answers of this trial were right; it was run now, compared with nothing",
        )
    return row, None


def _answers_in(row: Row, measurement: Measurement, place: int) -> dict[str, bool | float]:
    """The outcomes of one sample of a trial that is kept."""
    assert row.answers is not None
    found: dict[str, bool | float] = {}
    for name, mask in zip(measurement.masks, row.answers, strict=True):
        found[name] = bool(mask[place])
    if row.numbers is not None:
        for name, values in zip(measurement.metrics, row.numbers, strict=True):
            found[name] = float(values[place])
    return found


def _is_detected(measurement: Measurement, task: Task, key: int, plan: FaultPlan) -> bool:
    """Whether a protected memory detected an error in the trial, in whichever sample: then it is DUE as a whole."""
    tells = any(process.counts_as_due for entry in plan.sites for process in entry.processes)
    if not tells:
        return False
    (row,) = measurement.run(task, [key])
    return row.detected


# site by site


def _stories(trial: Trial, golden: Watched, faulty: Watched, batch: Batch) -> tuple[SiteStory, ...]:
    expected = {(seen.site.name, seen.call): seen.after for seen in golden.sites}
    found: list[SiteStory] = []
    for seen in faulty.sites:
        begun = any(not story.is_golden for story in found)
        deviated = _deviates_in_front(found)
        hits = _hits(trial, seen, batch)
        story = _story(seen, expected.get((seen.site.name, seen.call)), hits)
        found.append(story._replace(state=_state(story, begun, deviated)))
    return tuple(found)


def _story(seen: SeenSite, expected: Ints | None, hits: Sequence[Hit]) -> SiteStory:
    arrived = left = largest = None
    if expected is not None:
        arrived = int(np.count_nonzero(seen.before != expected))
        left = int(np.count_nonzero(seen.after != expected))
        largest = int(np.abs(seen.after - expected).max(initial=0))
    own = int(np.count_nonzero(seen.before != seen.after))
    site = seen.site
    return SiteStory(site.name, site.kind, len(seen.after), tuple(hits), arrived, own, left, largest, GOLDEN)


def _deviates_in_front(stories: Sequence[SiteStory]) -> bool:
    """Whether the last values of samples that were seen are not golden, or a parameter that was read since then."""
    for story in reversed(stories):
        if not story.is_golden:
            return True
        if story.kind in _OF_SAMPLES and story.left is not None:
            return False
    return False


def _state(story: SiteStory, begun: bool, deviated: bool) -> str:
    """What there is to say of a site, by those that ran before it."""
    if story.left is None and not story.own:
        return NOT_COMPARED
    if story.is_golden:
        again = deviated and story.kind in _OF_SAMPLES
        return GOLDEN_AGAIN if again or story.arrived else GOLDEN
    if not begun:
        return BEGAN
    return STRUCK if story.own else DEVIATES


def _hits(trial: Trial, seen: SeenSite, batch: Batch) -> list[Hit]:
    """The faults that changed a code of the sample at a site, as the listing has them."""
    site = seen.site
    if site.name not in trial.plan.names:
        return []
    sample = int(batch.numbers[batch.place]) if site.batched else 0
    hits = faults_at(
        trial.plan,
        site.name,
        seed=trial.seed,
        sample=sample,
        first_sample=batch.first,
        words=len(seen.before),
        codes=seen.before,
    )
    return with_addresses(trial.plan, site.name, hits)


def _ends(stories: Sequence[SiteStory], reached: bool) -> tuple[str | None, str | None]:
    """Where the deviation began, and from where on everything is golden again (None: nowhere)."""
    places = [place for place, story in enumerate(stories) if not story.is_golden]
    if not places:
        return None, None
    began = stories[places[0]].name
    if reached:
        return began, None
    # parameters are golden of their own: the first values of samples behind tell
    behind = [story.name for story in stories[places[-1] + 1 :] if story.state == GOLDEN_AGAIN]
    return began, behind[0] if behind else "the outputs"


def _largest_change(golden: Watched, faulty: Watched) -> float | None:
    """How far an output moved; None where one is no number any more."""
    if not np.isfinite(faulty.outputs).all():
        return None
    return float(np.abs(faulty.outputs.astype(np.float64) - golden.outputs.astype(np.float64)).max(initial=0.0))


def _top(watched: Watched) -> int | None:
    """The class with the largest output, where outputs are those of classes."""
    outputs = watched.outputs
    return int(outputs.argmax(1)[0]) if outputs.ndim == 2 and outputs.shape[1] > 1 else None
