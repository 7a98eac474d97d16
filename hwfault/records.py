"""Frozen records read from outside: unknown keys name the nearest known one, every error is one clear text."""

from contextvars import ContextVar
from functools import cache
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import SchemaValidator

from hwfault.errors import ModelError, nearest
from hwfault.inputs import read_regular
from hwfault.yaml12 import load_yaml

LARGEST_YAML = 1 << 20
_MOST_PROBLEMS = 8
_LONGEST_LINE = 600
_FEW_PARTS = 20_000
"""Up to so many parts all problems of a file are told; of larger ones the first in each list."""
_MANY: ContextVar[bool] = ContextVar("_MANY", default=False)


@cache
def _hurried(record: "type[Record]") -> SchemaValidator:
    """A validator that reads lists up to their first wrong item: a file of megabytes may hold a million of them."""
    return SchemaValidator(_stops_at_first(record.__pydantic_core_schema__))


def _stops_at_first(schema: Any) -> Any:
    if isinstance(schema, dict):
        copied = {key: _stops_at_first(part) for key, part in schema.items()}
        return copied | ({"fail_fast": True} if schema.get("type") in ("tuple", "list") else {})
    return [_stops_at_first(part) for part in schema] if isinstance(schema, list) else schema


class Record(BaseModel):
    """A frozen pydantic record; construction raises ModelError (never pydantic's own error)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            if _MANY.get():
                _hurried(type(self)).validate_python(data, self_instance=self)
            else:
                super().__init__(**data)
        except ValidationError as error:
            raise ModelError(explain(error, type(self).__name__)) from None

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, data: Any) -> Any:
        unknown = [key for key in data if key not in cls.model_fields] if isinstance(data, dict) else []
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}: {nearest(str(unknown[0]), cls.model_fields)}")
        return data

    @classmethod
    def parse(cls, data: Any, source: str) -> Self:
        """The record that `data` (a mapping) describes; ModelError names `source` and the place in it."""
        if not isinstance(data, dict):
            raise ModelError(f"{source}: expected a mapping of keys to values, found {type(data).__name__}")
        before = _MANY.get()
        try:
            _MANY.set(_check_keys(data) > _FEW_PARTS)
            return cls(**data)
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from None
        finally:
            _MANY.set(before)


class Sourced(Record):
    """A record that may name, by its key, the source of what it says."""

    source: str | None = None
    """The key of one of the profile's sources; where it is left out nothing is claimed."""


def _check_keys(data: Any) -> int:
    """The number of parts of nested mappings and lists; looks at each shared one once.

    Raises ModelError unless every key of the mappings is text.
    """
    seen, waiting, count = set(), [("", data)], 0
    while waiting:
        place, part = waiting.pop()
        count += 1
        if id(part) in seen or not isinstance(part, dict | list):
            continue
        seen.add(id(part))
        inner = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in inner:
            if isinstance(part, dict) and not isinstance(key, str):
                raise ModelError(f"{place}unknown key {key!r}, expected a word")
            if isinstance(value, dict | list):
                waiting.append((f"{place}{key}.", value))
        count += len(part)
    return count


def explain(error: ValidationError, what: str) -> str:
    """A validation error as one text: the place and the reason of each problem, a line each."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        told = problem["type"] in ("value_error", "missing")
        given = "" if told else f" (given: {short_repr(problem['input'])})"
        line = f"{place or what}: {problem['msg'].removeprefix('Value error, ')}{given}"
        lines.append(line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + " ...")
    more = [f"and {len(lines) - _MOST_PROBLEMS} more problems"] if len(lines) > _MOST_PROBLEMS else []
    return "\n".join(lines[:_MOST_PROBLEMS] + more)


def read_yaml(path: Path | str) -> Any:
    """The content of a YAML file of at most 1 MiB; raises FileError if unreadable, ModelError if it is not YAML."""
    return parse_yaml(read_regular(path, LARGEST_YAML, "a YAML file"), str(path))


def parse_yaml(content: bytes, source: str) -> Any:
    """What the bytes of a YAML file say; raises ModelError, which names the source, for what is no YAML."""
    try:
        return load_yaml(content.decode())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{source}: not a YAML file: {error}") from None
