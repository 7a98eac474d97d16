"""Bundles on the disk, as a folder or a .zip: written whole or not at all, and trusted in nothing when read."""

import json
import lzma
import os
import stat
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from hwfault.errors import FileError, ModelError
from hwfault.files import replace_atomically
from hwfault.folders import recover, replace_folder_atomically
from hwfault.inputs import open_regular
from hwfault.proof.manifest import MANIFEST, BundledFile, Manifest

Tensors = dict[str, NDArray[Any]]

_LARGEST_MANIFEST = 1 << 24
_MOST_MEMBERS = 1 << 16
_PIECE = 1 << 20
_ROOM, _RATIO = 64 << 20, 100
_DATE = (1980, 1, 1, 0, 0, 0)
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, NotImplementedError)


def describe_files(files: Mapping[str, bytes]) -> dict[str, BundledFile]:
    """The entry of each file in a manifest."""
    return {
        name: BundledFile(bytes=len(content), sha256=sha256(content).hexdigest()) for name, content in files.items()
    }


def write(path: Path | str, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Writes a bundle: a .zip if the path ends so, else a folder, which may take the place of an older bundle only.

    Equal content gives equal bytes. Raises FileError, with what was there before intact.
    """
    path = Path(path)
    text = (json.dumps(manifest.model_dump(mode="json", exclude_none=True), indent=1) + "\n").encode()
    everything = {MANIFEST: text, **files}
    if path.suffix == ".zip":
        replace_atomically(path, lambda temporary: _write_zip(temporary, everything))
        return
    if path.exists() and not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise FileError(f"{path}: is there already and is no bundle; choose another place with --out, or remove it")
    replace_folder_atomically(path, everything)


def _write_zip(path: str, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, _method(content))


def _method(content: bytes) -> int:
    """Content that packs so well that a reader would refuse it is left unpacked."""
    too_well = len(content) > _ROOM and len(content) > _unpacked_at_most(len(zlib.compress(content)))
    return zipfile.ZIP_STORED if too_well else zipfile.ZIP_DEFLATED


class Bundle:
    """A bundle whose manifest was read and whose files all have the sizes and hashes that it states.

    Nothing is extracted and nothing unpickled; a file is read only where its size is the manifest's, and what is read
    has the manifest's hash. Files that the manifest does not list are left alone.
    """

    def __init__(self, path: Path, manifest: Manifest, digest: str, files: "_Files | None" = None) -> None:
        self.path, self.manifest, self.digest = path, manifest, digest
        self._files = files or _files(path)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """The bundle in a folder or .zip file; raises FileError for anything else.

        All files are read once, a piece at a time, to compare their hashes.
        """
        path = Path(path)
        if not path.exists():  # an export that was killed may have left the older one beside it
            recover(path)
        with _explained(path, MANIFEST):
            files = _files(path)
            with files.opened(MANIFEST, None) as file:
                text = file.read(_LARGEST_MANIFEST + 1)
        _check_size(path, MANIFEST, len(text), None)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path}: not a bundle: {MANIFEST} is no JSON ({error})") from None
        try:
            manifest = Manifest.parse(data, MANIFEST)
        except ModelError as error:
            raise FileError(f"{path}: not a bundle of this version: {error}") from None
        bundle = cls(path, manifest, sha256(text).hexdigest(), files)
        for name in manifest.files:
            for _ in bundle._pieces(name):
                pass  # the last one ends with the hash
        return bundle

    def read(self, name: str) -> bytes:
        """The bytes of a listed file; raises FileError if they are not those that the manifest states."""
        return b"".join(self._pieces(name))

    def _pieces(self, name: str) -> Iterator[bytes]:
        """The same piece by piece, and the error, if there is one, at the end."""
        known = self.manifest.files[name]
        found, left = sha256(), known.bytes + 1
        with _explained(self.path, name), self._files.opened(name, known.bytes) as file:
            while piece := file.read(min(_PIECE, left)):
                found.update(piece)
                left -= len(piece)
                yield piece
        if left != 1 or found.hexdigest() != known.sha256:
            raise FileError(
                f"{self.path}: {name} does not have the SHA-256 that {MANIFEST} states: it was changed or damaged "
                "after the export; get the bundle anew"
            )

    def tensors(self, name: str) -> Tensors:
        """The tensors of a listed .safetensors file; raises FileError if it is none."""
        try:
            return dict(load_tensors(self.read(name)))
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"{self.path}: {name} is no .safetensors file of numbers ({error})") from None


def array(tensors: Tensors, name: str, where: str, kinds: str = "fiu") -> NDArray[Any]:
    """A tensor that has to be there, of a type whose kind (as NumPy's) is among `kinds`; raises FileError."""
    found = tensors.get(name)
    if found is None:
        raise FileError(f"{where}: holds no tensor {name!r}, expected what `hwfault export --bundle` writes")
    if np.dtype(found.dtype).kind not in kinds:
        raise FileError(f"{where}: the tensor {name!r} is {found.dtype}, expected another type")
    return found


@contextmanager
def _explained(path: Path, name: str) -> Iterator[None]:
    """Inside, a file of a bundle is read: what that raises becomes a FileError."""
    try:
        yield
    except FileError:
        raise
    except _BROKEN as error:
        raise FileError(f"{path}: not a whole .zip file ({error}); get the bundle anew") from None
    except OSError as error:
        if not path.exists():
            raise FileError(f"{path}: there is no such file or folder; expected a bundle") from None
        raise FileError(f"{path}: {name} cannot be read ({error.strerror or error}); expected a bundle") from None


class _Files(Protocol):
    """The files of a bundle; one is opened only if it has so many bytes, or (None: the manifest) not too many."""

    def opened(self, name: str, size: int | None) -> IO[bytes]: ...


def _files(path: Path) -> "_Files":
    return _Folder(path) if stat.S_ISDIR(os.stat(path).st_mode) else _Zip(path)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def opened(self, name: str, size: int | None) -> IO[bytes]:
        # O_NONBLOCK: a pipe of that name would wait for a writer for ever
        handle = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(handle, "rb")
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileError(f"{self._path}: {name} is no regular file")
            _check_size(self._path, name, status.st_size, size)
        except BaseException:
            file.close()
            raise
        return file


class _Zip:
    """A .zip file that stays open, as its directory, which may be long, is read anew whenever one is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        file = open_regular(path)
        weakref.finalize(self, file.close)
        self._archive = zipfile.ZipFile(file)
        self._entries: dict[str, list[zipfile.ZipInfo]] = {}
        for entry in self._archive.infolist():
            self._entries.setdefault(entry.filename, []).append(entry)

    def opened(self, name: str, size: int | None) -> IO[bytes]:
        found, members = self._entries.get(name, []), len(self._archive.infolist())
        if len(found) != 1 or members > _MOST_MEMBERS:
            raise FileError(f"{self._path}: holds {name} {len(found)} times among {members} files, expected once")
        (entry,) = found
        _check_size(self._path, name, entry.file_size, size)
        if entry.file_size > _unpacked_at_most(entry.compress_size):
            raise FileError(
                f"{self._path}: {name} has {entry.compress_size} bytes and would unpack to {entry.file_size}, "
                f"expected at most {_unpacked_at_most(entry.compress_size)}; get the bundle as a folder"
            )
        return self._archive.open(entry)


def _unpacked_at_most(packed: int) -> int:
    """How much a file of a .zip may hold: more than records of networks do, far less than one made to fill memory."""
    return _ROOM + _RATIO * packed


def _check_size(path: Path, name: str, found: int, size: int | None) -> None:
    if size is None and found > _LARGEST_MANIFEST:
        raise FileError(f"{path}: {name} has {found} bytes, expected at most {_LARGEST_MANIFEST}")
    if size is not None and found != size:
        raise FileError(f"{path}: {name} has {found} bytes, {size} by {MANIFEST}; get the bundle anew")
