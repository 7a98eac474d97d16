"""Two stores made one: each trial once, and refused where the two do not agree on what it came to."""

from collections.abc import Sequence

import numpy as np

from hwfault.campaigns.database import Database, Row
from hwfault.errors import FileError


def merge(into: Database, other: Database) -> int:
    """Adds the tasks and trials of another store, and says how many trials were new.

    A trial that failed in one of them is taken from the other.

    Raises FileError where both have a trial and its answers differ: then they are of no one campaign.
    """
    new = 0
    for theirs in other.tasks():
        golden = other.golden(theirs)
        ours = into.task(
            theirs.identity, samples=theirs.samples, masks=theirs.masks, metrics=theirs.metrics, golden=golden
        )
        known = {row.key: row for row in into.rows(ours)}
        fresh: list[Row] = []
        for row in other.rows(theirs):
            mine = known.get(row.key)
            if mine is None or (mine.failed is not None and row.failed is None):
                fresh.append(row)
            elif row.failed is None and not same_answers(mine, row, ours.masks):
                raise FileError(
                    f"{other.path}: trial {row.key} of the task {theirs.digest[:12]} has other answers than in "
                    f"{into.path}; `hwfault campaign verify` tells which of them are right"
                )
        into.put(ours, fresh)
        new += len(fresh)
    return new


def same_answers(one: Row, other: Row, masks: Sequence[str] = ()) -> bool:
    """Whether two trials came to the same; one that failed is like any other that failed.

    Of one that has no answers, but how many of them were right, these are compared, by the names of the `masks`.
    """
    if one.failed is not None or other.failed is not None:
        return (one.failed is None) == (other.failed is None)
    if one.answers is None or other.answers is None:
        return count_correct(one, masks) == count_correct(other, masks) and one.detected == other.detected
    same_numbers = (one.numbers is None) == (other.numbers is None)
    if one.numbers is not None and other.numbers is not None:
        same_numbers = np.array_equal(one.numbers, other.numbers)
    return bool(np.array_equal(one.answers, other.answers)) and same_numbers and one.detected == other.detected


def count_correct(row: Row, masks: Sequence[str]) -> int | None:
    """How many answers of a trial were right; None where it does not say."""
    if row.answers is not None:
        return int(row.answers[list(masks).index("correct")].sum()) if "correct" in masks else None
    found = (row.seen or {}).get("correct")
    return found if isinstance(found, int) else None
