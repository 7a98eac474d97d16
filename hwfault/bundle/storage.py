"""Bundles on the disk, as a folder or a .zip: written whole or not at all, and trusted in nothing when read."""

import json
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from hwfault.bundle.manifest import LARGEST, MANIFEST, BundledFile, Manifest
from hwfault.errors import FileError, ModelError
from hwfault.files import replace_atomically
from hwfault.folders import recover, replace_folder_atomically

Tensors = dict[str, NDArray[Any]]

_LARGEST_MANIFEST = 1 << 24
_MOST_MEMBERS = 1 << 16
_DATE = (1980, 1, 1, 0, 0, 0)
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, NotImplementedError)


def described(files: Mapping[str, bytes]) -> dict[str, BundledFile]:
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
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


class Bundle:
    """A bundle whose manifest was read and whose files all have the sizes and hashes that it states.

    Nothing is extracted and nothing unpickled; a file is read only where its size is the manifest's, and what is read
    has the manifest's hash. Files that the manifest does not list are left alone.
    """

    def __init__(self, path: Path, manifest: Manifest, digest: str) -> None:
        self.path, self.manifest, self.digest = path, manifest, digest

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """The bundle in a folder or .zip file; raises FileError for anything else."""
        path = Path(path)
        if not path.exists():  # an export that was killed may have left the older one beside it
            recover(path)
        text = _content(path, MANIFEST, None)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path}: not a bundle: {MANIFEST} is no JSON ({error})") from None
        try:
            manifest = Manifest.parse(data, MANIFEST)
        except ModelError as error:
            raise FileError(f"{path}: not a bundle of this version: {error}") from None
        bundle = cls(path, manifest, sha256(text).hexdigest())
        for name in manifest.files:
            bundle.read(name)
        return bundle

    def read(self, name: str) -> bytes:
        """The bytes of a listed file; raises FileError if they are not those that the manifest states."""
        known = self.manifest.files[name]
        content = _content(self.path, name, known.bytes)
        if sha256(content).hexdigest() != known.sha256:
            raise FileError(
                f"{self.path}: {name} does not have the SHA-256 that {MANIFEST} states: it was changed or damaged "
                "after the export; get the bundle anew"
            )
        return content

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


def _content(path: Path, name: str, size: int | None) -> bytes:
    """The bytes of one file of a bundle: `size` of them, or (None: the manifest) at most 16 MiB."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return _from_folder(path, name, size)
        return _from_zip(path, name, size)
    except _BROKEN as error:
        raise FileError(f"{path}: not a whole .zip file ({error}); get the bundle anew") from None
    except OSError as error:
        if not path.exists():
            raise FileError(f"{path}: there is no such file or folder; expected a bundle") from None
        raise FileError(f"{path}: {name} cannot be read ({error.strerror or error}); expected a bundle") from None


def _from_folder(folder: Path, name: str, size: int | None) -> bytes:
    path = folder / name
    # O_NONBLOCK: a pipe of that name would wait for a writer for ever
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{folder}: {name} is no regular file")
        _check_size(folder, name, status.st_size, size)
        return file.read(_room(size))


def _from_zip(path: Path, name: str, size: int | None) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        found = [entry for entry in members if entry.filename == name]
        if len(found) != 1 or len(members) > _MOST_MEMBERS:
            raise FileError(f"{path}: holds {name} {len(found)} times among {len(members)} files, expected once")
        _check_size(path, name, found[0].file_size, size)
        with archive.open(found[0]) as file:
            return file.read(_room(size))


def _room(size: int | None) -> int:
    return (_LARGEST_MANIFEST if size is None else min(size, LARGEST)) + 1


def _check_size(path: Path, name: str, found: int, size: int | None) -> None:
    if size is None and found > _LARGEST_MANIFEST:
        raise FileError(f"{path}: {name} has {found} bytes, expected at most {_LARGEST_MANIFEST}")
    if size is not None and found != size:
        raise FileError(f"{path}: {name} has {found} bytes, {size} by {MANIFEST}; get the bundle anew")
