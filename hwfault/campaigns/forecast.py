"""What a study would take, before it is run: its fault spaces, trials, minutes and disk."""

import time
from typing import Any, NamedTuple

from hwfault.campaigns.figures import rule_of
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.nesting.figures import MOST_BACK
from hwfault.campaigns.nesting.turns import CHECKED_SHARE
from hwfault.campaigns.study.tasks import Draw, Task, has_one_sample, is_exhaustive

_TIMED = 3
"""How many trials are run to tell how long one takes; the first, which prepares the network, is not counted."""
_SPARSE_TOGETHER = 512
_WAYS: dict[Draw, str] = {
    "seeds": "a fault seed on all samples",
    "pairs": "a flip and a sample",
    "strata": "a flip and a sample",
    "turns": "a fault seed along the sweep",
}
_BESIDE = 40
"""The bytes that a trial takes in the store beside its answers."""


class Forecast(NamedTuple):
    """What one task would take: `way` is what its trials are, `least` to `most` how many, `seconds` what one takes."""

    name: str
    way: str
    space: int | None
    least: int
    most: int
    seconds: float
    bytes: int
    why: str

    @property
    def mebibytes(self) -> float:
        """What most trials take on the disk."""
        return self.most * self.bytes / (1 << 20)

    @property
    def minutes_told(self) -> str:
        """How long the fewest and the most trials take, in words."""
        low, high = (count * self.seconds / 60 for count in (self.least, self.most))
        return f"{low:.2g}" if self.least == self.most else f"{low:.2g} to {high:.2g}"

    def to_data(self) -> dict[str, Any]:
        """The forecast as JSON tells it."""
        return self._asdict() | {"minutes": [count * self.seconds / 60 for count in (self.least, self.most)]}


def forecast(measurement: Measurement) -> list[Forecast]:
    """What each task of a study would take on one worker; a few trials of each are run and timed."""
    return [_of_task(measurement, task) for task in measurement.tasks if not task.stands_by]


def _of_task(measurement: Measurement, task: Task) -> Forecast:
    rule = rule_of(task.stop)
    space = None if task.space is None else task.space.size
    seconds = _time_of(measurement, task)
    samples = 1 if has_one_sample(task.draw) else measurement.engine.samples
    masks, metrics = len(measurement.masks), len(measurement.metrics)
    if task.sweep:
        masks, metrics = len(task.sweep) + 2, 0
    size = masks * -(-samples // 8) + 4 * metrics * samples + _BESIDE
    if task.draw == "all":
        assert space is not None
        least = most = space
        by = "as sparse changes of integers" if measurement.sparse_for(task) is not None else "one by one"
        way, why = "every single flip", f"{space:,} single flips, all of which are tried {by}: the answer is exact"
    elif task.listed is not None:
        least = most = task.listed.number
        way, why = "a listed trial", f"all {most:,} trials that the file lists are run: the answer is exact"
    elif measurement.names_seeds(task):
        least = most = rule.max_trials
        way, why = "a fault seed on all samples", "the seeds are named, and no rule stops before the last of them"
    elif measurement.varies_not(task):
        least = most = 1
        way, why = "one device", "every seed has the same faults, so that one trial tells all"
    else:
        first = rule.looks.numbers[0] if task.strata is None else task.strata.first_look
        least, most = min(first, rule.max_trials), rule.max_trials
        way = _WAYS[task.draw]
        why = _why_sampled(task, space, most)
    if rule.max_minutes is not None:
        why += f"; at most {rule.max_minutes:g} minutes"
    return Forecast(task.name, way, space, least, most, seconds, size, why)


def _why_sampled(task: Task, space: int | None, most: int) -> str:
    goal = f"a relative margin of {task.stop.relative:g}" if task.stop.require is None else f"SDC {task.stop.require}"
    if task.sweep:
        points = len(task.sweep)
        runs = points.bit_length()
        how = f"the faults of its {points} points are nested: an answer runs at {runs} of them at most, by bisection"
        check = f"{CHECKED_SHARE:.0%} of all run at every point, and where over {MOST_BACK:.0%} turn back the grid runs"
        return f"{how}; {check}; fault seeds are drawn until each point has {goal}, looked for at doubling numbers"
    if has_one_sample(task.draw):
        more = f"{space:,} single flips are more than max_trials ({most:,})"
        return f"{more}: pairs of a flip and a sample are {task.note}, until {goal}"
    return f"fault seeds are drawn until {goal}, looked for at doubling numbers of trials"


def _time_of(measurement: Measurement, task: Task) -> float:
    """The median of what a trial takes, in seconds."""
    # sparse changes are run many at once, and the first run of anything prepares it
    together = _SPARSE_TOGETHER if task.draw != "seeds" and measurement.sparse_for(task) is not None else 1
    most = (_TIMED + 1) * together
    total = measurement.total(task)
    if is_exhaustive(task.draw) and total is not None:
        most = min(most, total)
    keys = measurement.keys(task, most)
    found = []
    for begin in range(0, len(keys), together):
        part = keys[begin : begin + together]
        started = time.perf_counter()
        for _ in measurement.run(task, part):
            pass
        found.append((time.perf_counter() - started) / len(part))
    later = sorted(found[1:] or found)
    return later[len(later) // 2]
