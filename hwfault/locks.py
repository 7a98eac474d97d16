"""Locks that the kernel lets go of when a process ends, however it ends."""

import errno
import fcntl
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwfault.errors import FileError

_LOG = logging.getLogger("hwfault")
_LOCK_FILE = ".hwfault.lock"
_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)
_HANDLES: "weakref.WeakSet[_Handle]" = weakref.WeakSet()


class _Handle:
    """An open file descriptor that a forked child gives up: else a worker would keep the lock of a killed parent."""

    def __init__(self, number: int) -> None:
        self.number: int | None = number
        _HANDLES.add(self)

    def close(self) -> None:
        if self.number is not None:
            os.close(self.number)
            self.number = None


def _close_all() -> None:
    for handle in list(_HANDLES):
        handle.close()


os.register_at_fork(after_in_child=_close_all)


def try_lock(handle: int) -> bool | None:
    """Locks an open file or folder for this process; False if another has it, None where there are no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD_BY_ANOTHER else None
    return True


@contextmanager
def locked_folder(folder: Path | str) -> Iterator[None]:
    """Inside, this process alone writes its run or results in the folder; the lock ends with the process at the latest.

    The lock is on the folder itself; where folders cannot be locked (NFS), on a file `.hwfault.lock` in it; where
    nothing can be locked (some cluster file systems without flock), there is none, and the log `hwfault` says so.
    Raises FileError if another process, or this one, has it.
    """
    handle = _lock_of(Path(folder))
    try:
        yield
    finally:
        if handle is not None:
            handle.close()


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Inside, this process alone writes a file, made if need be; raises FileError where another has it, or none can."""
    try:
        handle = _Handle(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666))
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None
    try:
        if handle.number is not None and try_lock(handle.number) is False:
            raise FileError(f"{path}: another process writes there; wait for it to end, or choose another file")
        yield
    finally:
        handle.close()


def _lock_of(folder: Path) -> _Handle | None:
    try:
        for path, flags in ((folder, os.O_RDONLY), (folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)):
            number = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            handle = _Handle(number)
            locked = try_lock(number)
            if locked:
                return handle
            handle.close()
            if locked is False:
                raise FileError(
                    f"{folder}: another process writes in this folder; wait for it to end, or choose another folder "
                    "with --out"
                )
    except OSError as error:
        raise FileError(f"{folder}: cannot be locked ({error.strerror or error}); choose another with --out") from None
    _LOG.warning("%s lies on a file system without locks: nothing stops a second process from writing there", folder)
    return None
