"""Writing files so that a killed run leaves either the old content or the new, never half of it."""

import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hwfault.errors import FileError
from hwfault.locks import try_lock

PICTURES = (".png", ".svg", ".pdf")
"""How a picture's name may end."""
MARK = "hwfault-"
"""What the hidden names of files and folders that are being written have in them."""


def write_atomically(path: Path | str, content: bytes) -> None:
    """Writes `content` to `path`; raises FileError, with the old file intact, if that cannot be done."""
    replace_atomically(path, lambda temporary: Path(temporary).write_bytes(content))


def replace_atomically(path: Path | str, write: Callable[[str], object]) -> None:
    """Lets `write` fill a temporary file (same suffix), then puts it in `path`'s place.

    Only regular files are replaced. A symbolic link stays, and what it leads to is replaced; a character device or a
    pipe (/dev/null) is written into; block devices, sockets and folders are refused. What killed processes left half
    written beside `path` is taken away. Raises FileError, with the old file intact, if that cannot be done.
    """
    path = Path(path)
    try:
        target = final_place(path)
        if target is None:
            _write_into(path, write)
        else:
            _replace(target, write)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> FileError:
    """The error for a place that cannot be written."""
    return FileError(f"{path}: cannot be written ({error.strerror or error}); choose another place")


def final_place(path: Path) -> Path | None:
    """Where a regular file of this name lies or would lie, behind all links; None for what is to be written into.

    Raises FileError for names that no file can have, OSError for what cannot be looked at and for folders.
    """
    if "\0" in str(path) or not path.name:
        raise FileError(f"{str(path)!r} cannot be the name of a file; choose another place")
    try:
        status = os.stat(path)
    except FileNotFoundError:  # a new file, or a link to a file that is not there yet
        return Path(os.path.realpath(path))
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        return None
    target = Path(os.path.realpath(path))
    if not (target.exists() and os.path.samestat(os.stat(target), status)):  # a file that is open, but has no name
        raise FileError(f"{path}: is an open file without a name of its own, which cannot be replaced; choose another")
    return target


def _replace(target: Path, write: Callable[[str], object]) -> None:
    for _ in leftovers(target):
        pass  # each is taken away
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.{MARK}", suffix=target.suffix)
    try:
        try_lock(handle)  # tells the next run that this file is no leftover
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        os.close(handle)
        if os.path.exists(temporary):
            os.unlink(temporary)


def _write_into(path: Path, write: Callable[[str], object]) -> None:
    """Writes into a character device or a pipe, once all of the content is known."""
    status = os.stat(path)
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        kind = "a block device" if stat.S_ISBLK(status.st_mode) else "a socket"
        raise FileError(f"{path}: is {kind}, expected a file; choose another place")
    if _is_stdout(status):
        raise FileError(f"{path}: is where the command's own messages go, expected a file; choose another place")
    # without O_NONBLOCK a pipe that nobody reads would be waited for, and so for ever
    handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(handle, "wb") as device, tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"content{path.suffix}"
        write(str(temporary))
        os.set_blocking(handle, True)
        device.write(temporary.read_bytes())


def _is_stdout(status: os.stat_result) -> bool:
    """Whether a device or pipe is this process's stdout, and does not swallow everything anyway."""
    try:
        own, nothing = os.fstat(1), os.stat(os.devnull)
    except OSError:
        return False
    swallows = stat.S_ISCHR(status.st_mode) and status.st_rdev == nothing.st_rdev
    return os.path.samestat(own, status) and not swallows


def leftovers(target: Path) -> Iterator[Path]:
    """Takes away what killed processes left half written beside `target`, after handing out each: a file or a folder.

    What another process is writing is locked by it, and stays. Folders are left to the caller.
    """
    name = re.escape(target.name)
    pattern = re.compile(rf"\.{name}\.({MARK})?[a-z0-9_]{{8}}({re.escape(target.suffix)})?")
    try:
        found = sorted(Path(entry.path) for entry in os.scandir(target.parent) if pattern.fullmatch(entry.name))
    except OSError:  # a folder that is missing, or must not be listed; writing will tell
        return
    for path in found:
        marked = path.name.startswith(f".{target.name}.{MARK}")
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            folder = stat.S_ISDIR(os.fstat(handle).st_mode)
            # files without the mark may be anybody's
            if (folder or marked) and try_lock(handle):
                yield path
                if not folder:
                    path.unlink(missing_ok=True)
        finally:
            os.close(handle)


def output_folder(path: Path | str) -> Path:
    """The folder, made if need be; raises FileError unless files can be written in it."""
    if "\0" in str(path):
        raise FileError(f"{str(path)!r} cannot be the name of a folder; choose another with --out")
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise FileError(f"{path}: not a folder to write in ({error.strerror}); choose another with --out") from None


def check_writable(path: Path | str, *, folder: bool = False) -> None:
    """Raises FileError where a file (or, with `folder`, also a folder) of this name cannot be written, now already.

    It writes nothing; what happens later (a disk that fills) is told when it happens.
    """
    try:
        target = final_place(Path(path))
    except IsADirectoryError as error:
        if folder and os.access(path, os.W_OK | os.X_OK):
            return
        raise unwritable(Path(path), error) from None
    except OSError as error:
        raise unwritable(Path(path), error) from None
    if target is None:
        return
    try:
        os.stat(target.parent / ".")
    except OSError as error:
        raise unwritable(Path(path), error) from None
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise unwritable(Path(path), PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def check_suffix(path: Path | str, known: tuple[str, ...], what: str) -> None:
    """Raises FileError unless a name ends in one of the known suffixes, by which its content is chosen."""
    suffix = Path(path).suffix
    if suffix.lower() not in known:
        others = ", ".join(known[:-1])
        endings = f"{others} or {known[-1]}" if others else known[-1]
        raise FileError(
            f"{path}: {what} cannot be written as {suffix or 'a file without a suffix'}, expected a name "
            f"that ends in {endings}"
        )


def check_picture(path: Path | str) -> None:
    """Raises FileError unless a picture can be written under this name."""
    check_suffix(path, PICTURES, "the picture")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
