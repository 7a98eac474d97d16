"""Whether a campaign's answers are right: some of its trials run anew, the slow way, and compared one by one."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.merging import same_answers
from hwfault.stream import site_number
from hwfault.stream.reference import stream_words

_LEAST = 1


class Verified(NamedTuple):
    """One task: of `trials` kept, `again` were run anew; the keys of those whose answers `differ`."""

    name: str
    trials: int
    again: int
    differ: tuple[int, ...]


def verify(
    measurement: Measurement,
    database: Database,
    fraction: float,
    progress: Callable[[str, int, int], object] = lambda _name, _done, _of: None,
) -> list[Verified]:
    """Runs a fraction of each task's trials anew, at least one, drawn by the stream from their keys."""
    found = []
    for task in measurement.tasks:
        stored = database.find(measurement.stored_digest(task))
        if stored is None:
            continue
        kept = {row.key: row for row in database.rows(stored) if row.failed is None}
        chosen = _chosen(sorted(kept), fraction)
        differ = []
        for place, key in enumerate(chosen):
            (row,) = measurement.run(task, [key])
            if not same_answers(_comparable(kept[key]), _comparable(row), stored.masks):
                differ.append(key)
            progress(task.name, place + 1, len(chosen))
        found.append(Verified(task.name, len(kept), len(chosen), tuple(differ)))
    return found


def _comparable(row: Row) -> Row:
    """A trial without what is not an answer."""
    return row._replace(faults=None)


def _chosen(keys: list[int], fraction: float) -> list[int]:
    """A share of the keys, the same in every call: those whose own word of the stream is lowest."""
    if not keys:
        return []
    count = max(_LEAST, round(fraction * len(keys)))
    number = site_number("campaign#verify", 0)
    words = np.array([int(stream_words(key, number, 0, 0, 0, 1)[0]) for key in keys])
    return sorted(keys[place] for place in np.argsort(words, kind="stable")[:count].tolist())
