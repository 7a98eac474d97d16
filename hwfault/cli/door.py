"""The way out of every command: what is printed is escaped, and SIGTERM ends it as an error does."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from hwfault.terminal import shown

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal that asks the process to end; an exception, so that all that was begun is cleared away on its way."""

    def __init__(self, number: int, goes_on: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; what was finished is kept whole{goes_on}")
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise `Stopped`, unless somebody handles or ignores them already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    mine = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in mine:
            signal.signal(number, stop)
        yield
    finally:
        for number in mine:
            if signal.getsignal(number) is stop:
                signal.signal(number, signal.SIG_DFL)


class EscapedStream:
    """A text stream that escapes all that is written: names in files, what servers and programs answered, and others'
    messages; also warnings and logs, as these ask for sys.stderr when they come."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding = "utf-8"  # else click writes around us, into the bytes below
        self.errors = "strict"

    def write(self, text: str) -> int:
        safe = shown(text)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Inside, sys.stdout and sys.stderr escape what is written."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (EscapedStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unescaped(stream: Any) -> Any:
    """The stream below, for those that write escape codes of their own and have escaped what they were given."""
    return stream.stream if isinstance(stream, EscapedStream) else stream
