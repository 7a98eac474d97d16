"""The errors hwfault raises for a user's mistake: each says what was given, what was expected, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class HwfaultError(Exception):
    """Any error that hwfault raises on purpose; its text is meant to be shown without a traceback."""


class ModelError(HwfaultError, ValueError):
    """A fault model, a site selector or the YAML that holds them is wrong."""


class PlanError(HwfaultError):
    """A fault plan does not fit the network or graph it is used with, or is not a plan at all."""


class GraphError(HwfaultError):
    """An ONNX graph cannot be read, changed or run."""


class FileError(HwfaultError):
    """A file or folder from outside (checkpoint, data, output) is not usable."""


class NativeLibraryError(HwfaultError, ImportError):
    """The native library was never built or cannot be loaded."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name (or all of them, if none is near) for an unknown one."""
    known = list(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(map(repr, known)) or 'none'}"
