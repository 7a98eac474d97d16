"""Writing folders as a whole: at any moment the old one or the new one is in place, whatever ends the process."""

import ctypes
import errno
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hwfault.errors import FileError
from hwfault.files import MARK, leftovers, unwritable
from hwfault.locks import try_lock

_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)
_AT_CWD, _EXCHANGE = -100, 2


def replace_folder_atomically(path: Path | str, files: Mapping[str, bytes]) -> None:
    """Writes a folder with these files by their relative names, then puts it in `path`'s place, old content and all.

    The new folder takes the old one's place in one step of the kernel's (renameat2 of Linux, renamex_np of macOS). On
    file systems that cannot do that there are two, between which the old one lies in a hidden folder beside `path`: a
    process that is killed there leaves it to `recover`. A link stays, and the folder it leads to is replaced. Raises
    FileError, with the old folder intact, if it cannot be written.
    """
    path = Path(path)
    if "\0" in str(path):
        raise FileError(f"{str(path)!r} cannot be the name of a folder; choose another place")
    try:
        target = Path(os.path.realpath(path))
        recover(target)
        if os.path.lexists(target) and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with _beside(target) as beside:
            _fill(beside / "new", files)
            _put_in_place(beside / "new", target, beside / "old")
    except OSError as error:
        raise unwritable(path, error) from error


def recover(path: Path | str) -> None:
    """Puts back the folder that a killed process had just moved away, and takes away what it left beside `path`."""
    target = Path(os.path.realpath(path))
    for left in leftovers(target):
        if not left.is_dir() or not {entry.name for entry in left.iterdir()} <= {"new", "old"}:
            continue  # nothing of ours
        if (left / "old").is_dir() and not os.path.lexists(target):
            os.replace(left / "old", target)
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, locked as long as this process lives; taken away again."""
    beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.{MARK}"))
    handle = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try_lock(handle)
        yield beside
    finally:
        if not (beside / "old").exists() or os.path.lexists(target):  # else it is the only copy
            shutil.rmtree(beside, ignore_errors=True)
        os.close(handle)


def _fill(new: Path, files: Mapping[str, bytes]) -> None:
    new.mkdir()
    for name, content in files.items():
        (new / name).parent.mkdir(exist_ok=True)
        with open(new / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _put_in_place(new: Path, target: Path, old: Path) -> None:
    if not os.path.lexists(target):
        os.replace(new, target)
        return
    os.chmod(new, stat.S_IMODE(os.stat(target).st_mode))
    if exchange(new, target):  # the old one is the new one's place now, and goes with it
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
    try:
        os.replace(target, old)
        os.replace(new, target)
    except BaseException:
        if old.exists() and not os.path.lexists(target):
            os.replace(old, target)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exchange(first: Path, second: Path) -> bool:
    """Lets two paths change places in one step; False where the system or the file system cannot. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*names, ctypes.c_uint(_EXCHANGE))
    elif sys.platform == "linux" and hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_CWD, names[0], _AT_CWD, names[1], ctypes.c_uint(_EXCHANGE))
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))
