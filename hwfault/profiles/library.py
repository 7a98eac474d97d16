"""The profiles that come with hwfault, and how a profile and its operating point are written in one word."""

import math
from pathlib import Path

from hwfault.errors import FileError, ModelError, nearest

_SUFFIXES = (".yaml", ".yml")


def folder() -> Path:
    """Where the library's profiles lie: inside an installed package, beside it in a source tree.

    Raises FileError where they are missing.
    """
    package = Path(__file__).parents[1]
    # a stranger's folder beside the package would hold no SCHEMA.md
    for place in (package / "_fault_models", package.parent / "fault_models"):
        if (place / "SCHEMA.md").is_file():
            return place
    raise FileError(
        f"hwfault was imported from {package}, where the library of fault profiles is missing; run `pip install .` in "
        "the project's folder, or name a profile of your own by its path"
    )


def library() -> tuple[str, ...]:
    """The names of the library's profiles, in alphabetical order."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def is_path(name: str) -> bool:
    """Whether a text names a profile's file and not one of the library."""
    return name.endswith(_SUFFIXES) or "/" in name or "\\" in name


def profile_path(name: Path | str) -> Path:
    """The file of a profile: the path itself, or that of the library's profile of this name.

    A text is a path if it ends in .yaml or .yml or has a slash. Raises ModelError for a name that is not known.
    """
    if isinstance(name, Path) or is_path(name):
        return Path(name)
    if name not in library():
        raise ModelError(
            f"no profile of the library is named {name!r}: {nearest(name, library())} A profile of your own is named "
            "by its path (./mine.yaml)"
        )
    return folder() / f"{name}.yaml"


def parse_operating_point(text: str) -> tuple[str, dict[str, float]]:
    """`NAME@axis=value,axis=value` as the profile's name (or path) and its operating point; {} without one.

    Raises ModelError for what is not written so, and for an axis given twice.
    """
    name, at, point = text.rpartition("@")
    if not at or ("=" not in point and is_path(point)):  # an @ in a folder's name
        return text, {}
    given: dict[str, float] = {}
    for part in point.split(","):
        axis, _, value = (piece.strip() for piece in part.partition("="))
        if axis in given:
            raise ModelError(f"{text!r}: {axis} is given twice")
        given[axis] = _number(value, text)
    if not name or "" in given:
        raise ModelError(_UNREADABLE.format(text))
    return name, given


_UNREADABLE = "{!r} is not an operating point, expected NAME@axis=value,axis=value, as profile@voltage_v=0.54"


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ModelError(_UNREADABLE.format(text)) from None
    if not math.isfinite(number):
        raise ModelError(f"{text!r}: {value} is not a finite number")
    return number
