"""Writing files so that a killed run leaves either the old content or the new, never half of it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from hwfault.errors import FileError


def write_atomically(path: Path | str, content: bytes) -> None:
    """Writes `content` to `path`; raises FileError, with the old file intact, if that cannot be done."""
    replace_atomically(path, lambda temporary: Path(temporary).write_bytes(content))


def replace_atomically(path: Path | str, write: Callable[[str], object]) -> None:
    """Lets `write` fill a temporary file beside `path` (same suffix), then puts it in `path`'s place."""
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def replace_folder_atomically(path: Path | str, files: Mapping[str, bytes]) -> None:
    """Writes a folder with these files by their relative names, then puts it in `path`'s place, old content and all.

    Raises FileError, with the old folder intact, if that cannot be done.
    """
    path = Path(path)
    beside = None
    try:
        beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        new = beside / "new"
        new.mkdir()
        for name, content in files.items():
            (new / name).parent.mkdir(exist_ok=True)
            with open(new / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            os.replace(path, beside / "old")
        os.replace(new, path)
    except OSError as error:
        if beside is not None and (beside / "old").exists() and not path.exists():
            os.replace(beside / "old", path)
        raise FileError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def output_folder(path: Path | str) -> Path:
    """The folder, made if need be; raises FileError unless files can be written in it."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise FileError(f"{path}: not a folder to write in ({error.strerror}); choose another with --out") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
