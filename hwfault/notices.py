"""What hwfault says beside its results, once for each text: by its log, which the command line prints on stderr."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("hwfault")
_REMARKS = logging.getLogger("hwfault.remarks")
_told: set[str] = set()


def tell_once(notices: Iterable[str]) -> None:
    """Logs each notice as a warning of the logger "hwfault", if this process has not yet; control codes are shown.

    Python prints a log that nobody configured on stderr.
    """
    for notice in notices:
        if notice not in _told:
            _told.add(notice)
            _LOG.warning("%s", _plain(notice))


def remark(text: str) -> None:
    """Logs what is worth knowing and no warning, each time; Python prints it where somebody asked for such lines."""
    _REMARKS.info("%s", _plain(text))


def _plain(text: str) -> str:
    # names and notes may come from anybody's file
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        said = {logging.DEBUG: "debug: ", logging.INFO: ""}.get(record.levelno, "warning: ")
        self._say(f"{said}{record.getMessage()}")


@contextmanager
def spoken(say: Callable[[str], object]) -> Iterator[None]:
    """Inside, `say` is called with each warning and remark, and what was told before may be told again."""
    handler, level = _Handler(say), _REMARKS.level
    _told.clear()
    _LOG.addHandler(handler)
    _REMARKS.setLevel(logging.INFO)
    try:
        yield
    finally:
        _REMARKS.setLevel(level)
        _LOG.removeHandler(handler)
