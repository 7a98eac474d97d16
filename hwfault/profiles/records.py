"""Frozen records read from outside: unknown keys name the nearest known one, every error is one clear text."""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hwfault.errors import FileError, ModelError, nearest

_LARGEST_YAML = 1 << 20


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
            return cls(**{str(key): value for key, value in data.items()})
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from None


def explain(error: ValidationError, what: str) -> str:
    """A validation error as one text: the place and the reason of each problem, a line each."""
    lines = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        given = f" (given: {problem['input']!r})" if problem["type"] not in ("value_error", "missing") else ""
        lines.append(f"{place or what}: {problem['msg'].removeprefix('Value error, ')}{given[:120]}")
    return "\n".join(lines)


def read_yaml(path: Path | str) -> Any:
    """The content of a YAML file of at most 1 MiB; raises FileError if unreadable, ModelError if it is not YAML."""
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_YAML:
            raise FileError(f"{path}: {path.stat().st_size} bytes, expected a YAML file of at most {_LARGEST_YAML}")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not a YAML file: {error}") from None
