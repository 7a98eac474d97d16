"""The errors hwfault raises for a user's mistake: each says what was given, what was expected, what to do."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from os.path import commonprefix

_CLOSE = 8
"""How many similar names are looked at for the one that was meant."""


class HwfaultError(Exception):
    """Any error that hwfault raises on purpose; its text is meant to be shown without a traceback."""


class ModelError(HwfaultError, ValueError):
    """What was asked for is wrong: a fault model, a site selector, a value or a name in an option or a YAML file."""


class PlanError(HwfaultError):
    """A fault plan does not fit the network or graph it is used with, or is not a plan at all."""


class GraphError(HwfaultError):
    """An ONNX graph cannot be read, changed or run."""


class FileError(HwfaultError):
    """A file or folder from outside (checkpoint, data, output) is not usable."""


class NativeLibraryError(HwfaultError, ImportError):
    """The native library was never built or cannot be loaded."""


def expect_kind(given: object, kinds: type | tuple[type, ...], what: str, expected: str) -> None:
    """Raises HwfaultError unless an argument is of one of the kinds; `what` and `expected` are words of its text."""
    if not isinstance(given, kinds):
        raise HwfaultError(f"{what} is {describe_kind(given)}, expected {expected}")


def describe_kind(given: object) -> str:
    """What something is, for a sentence about a wrong argument: short values as they are, of others their type."""
    if given is None or isinstance(given, bool | int | float | str):
        return repr(given) if len(repr(given)) <= 80 else f"a long {type(given).__name__!r}"
    if isinstance(given, type):
        return f"the class {given.__name__!r} itself"
    return f"an object of the type {type(given).__name__!r}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name (or all of them, if none is near) for an unknown one."""
    known = list(known)
    close = get_close_matches(name, known, n=_CLOSE, cutoff=0.5)

    def likeness(other: str) -> tuple[float, int]:
        # of those as similar, the one that begins alike: for resnet21 resnet20, not resnet32
        return SequenceMatcher(None, name, other).ratio(), len(commonprefix([name, other]))  # noqa: RUF071 (no paths)

    return (
        f"did you mean {max(close, key=likeness)!r}?"
        if close
        else f"known are: {', '.join(map(repr, known)) or 'none'}"
    )
