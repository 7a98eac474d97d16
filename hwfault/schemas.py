"""JSON Schema (draft 2020-12) of the files that people write: what may stand where, with the words of each record."""

import copy
from collections.abc import Callable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]
_SCHEDULED = "Scheduled"


def schema_of(kind: str) -> Schema:
    """The schema of one of `KINDS`; what a rule between keys forbids is found when the file is read, not by it."""
    title, record = KINDS[kind]
    found: Schema = record().model_json_schema(mode="validation")
    _write_schedules_beside_faults(found)
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": title}


def _write_schedules_beside_faults(schema: Schema) -> None:
    """A fault of a training run has its own keys and a key `schedule`; the record, and config.json, hold both apart."""
    known = schema.get("$defs", {})
    if "ScheduledFault" not in known:
        return
    fault = known["ScheduledFault"]["properties"]["fault"]
    models = [ref.rpartition("/")[2] for ref in fault["discriminator"]["mapping"].values()]
    for name in models:
        both = copy.deepcopy(known[name])
        both["properties"]["schedule"] = {"$ref": "#/$defs/Schedule"}
        known[name + _SCHEDULED] = both
    known["FaultApart"] = known["ScheduledFault"]
    forms = [*(name + _SCHEDULED for name in models), "FaultApart"]
    known["ScheduledFault"] = {
        "title": "Fault",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in forms],
    }


def _train() -> Any:
    from hwfault.train.config import TrainConfig

    return TrainConfig


def _faults() -> Any:
    from hwfault.laws.models import FaultList

    return FaultList


def _profile() -> Any:
    from hwfault.profiles.profile import Profile

    return Profile


def _campaign() -> Any:
    from hwfault.campaigns.study.records import Study

    return Study


KINDS: dict[str, tuple[str, Callable[[], Any]]] = {
    "train": ("A training run of hwfault", _train),
    "faults": ("Faults of hwfault", _faults),
    "profile": ("A fault profile of hwfault", _profile),
    "campaign": ("A study of hwfault", _campaign),
}
"""The kinds of files, each with a title and the record that reads it."""
