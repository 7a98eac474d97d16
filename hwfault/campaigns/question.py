"""The question that a store is about, as people are told of it: kept beside the trials, and compared with another."""

import json
from collections.abc import Mapping
from typing import Any

from hwfault.campaigns.database import Database
from hwfault.campaigns.measurement import Measurement
from hwfault.differences import MISSING, differences
from hwfault.errors import FileError

QUESTION = "question"
_MOST = 8
_LONGEST = 80

Asked = Mapping[str, Any]
"""What trials depend on beside their point and seed, as JSON tells it: nested mappings of plain values."""


def claim_question(database: Database, measurement: Measurement, question: Asked) -> None:
    """Has a store be about a question, which may ask for more points than it has.

    Raises FileError for one with trials of another question, which says what differs.
    """
    said = database.said(QUESTION)
    there = {task.digest for task in database.tasks()}
    asked = {measurement.stored_digest(task) for task in measurement.tasks}
    if said is None and there:
        raise FileError(f"{database.path}: is a campaign of `hwfault campaign run`; choose another folder with --out")
    if said is not None and not there <= asked:
        raise other_question(str(database.path), _parsed(database, said), question)
    database.say(QUESTION, json.dumps(question))
    measurement.claim(database)


def _parsed(database: Database, text: str) -> Asked:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FileError(f"{database.path}: its question cannot be read; the file is damaged")
    return found


def other_question(source: str, there: Asked, now: Asked) -> FileError:
    """The error that says in what the question of a file differs from the one that is asked now."""
    found = differences(dict(there), json.loads(json.dumps(now)))
    return FileError(
        f"{source}: holds the trials of another question, which differs in\n{_listed(found)}\n"
        "choose another folder with --out, or remove this one's trials"
    )


def _listed(found: Mapping[str, tuple[Any, Any]]) -> str:
    lines = [f"  {key}: {_short(old)} there, {_short(new)} now" for key, (old, new) in found.items()]
    if len(lines) > _MOST:
        more = len(lines) - _MOST
        lines[_MOST:] = [f"  and {more} more"]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if value is MISSING:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > _LONGEST:
        return text[: _LONGEST - 3] + "..."
    return text
