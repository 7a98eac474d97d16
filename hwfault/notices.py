"""What hwfault says beside its results, once for each text: by its log, which the command line prints on stderr."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("hwfault")
_told: set[str] = set()


def tell_once(notices: Iterable[str]) -> None:
    """Logs each notice as a warning of the logger "hwfault", if this process has not yet; control codes are shown.

    Python prints a log that nobody configured on stderr.
    """
    for notice in notices:
        if notice not in _told:
            _told.add(notice)
            # a plan's notes may come from anybody's file
            _LOG.warning("%s", "".join(c if c.isprintable() else repr(c)[1:-1] for c in notice))


class _Handler(logging.Handler):
    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(f"warning: {record.getMessage()}")


@contextmanager
def spoken(say: Callable[[str], object]) -> Iterator[None]:
    """Inside, `say` is called with each warning of hwfault's log, and what was told before may be told again."""
    handler = _Handler(say)
    _told.clear()
    _LOG.addHandler(handler)
    try:
        yield
    finally:
        _LOG.removeHandler(handler)
