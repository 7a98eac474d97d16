"""Frozen records read from outside: unknown keys name the nearest known one, every error is one clear text."""

from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hwfault.errors import FileError, ModelError, nearest

_LARGEST_YAML = 1 << 20
_MOST_PROBLEMS = 8
_LONGEST_LINE = 600


class Record(BaseModel):
    """A frozen pydantic record; construction raises ModelError (never pydantic's own error)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
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
        try:
            _check_keys(data)
            return cls(**data)
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from None


class Sourced(Record):
    """A record that may name, by its key, the source of what it says."""

    source: str | None = None
    """The key of one of the profile's sources; where it is left out nothing is claimed."""


def _check_keys(data: Any) -> None:
    """Raises ModelError unless every key of nested mappings is text; looks at each shared part once."""
    seen, waiting = set(), [("", data)]
    while waiting:
        place, part = waiting.pop()
        if id(part) in seen or not isinstance(part, dict | list):
            continue
        seen.add(id(part))
        inner = part.items() if isinstance(part, dict) else enumerate(part)
        for key, value in inner:
            if isinstance(part, dict) and not isinstance(key, str):
                raise ModelError(f"{place}unknown key {key!r}, expected a word")
            waiting.append((f"{place}{key}.", value))


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
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_YAML:
            raise FileError(f"{path}: {path.stat().st_size} bytes, expected a YAML file of at most {_LARGEST_YAML}")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a YAML file: {error}") from None
