"""The files that fault models name: read once for a plan, and known again by their digests."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hwfault.errors import FileError
from hwfault.inputs import check_regular, open_regular, read_regular
from hwfault.profiles.library import profile_path
from hwfault.profiles.profile import Profile
from hwfault.records import LARGEST_YAML, parse_yaml
from hwfault.stream.fault_map import LARGEST_MAP, FaultMap

T = TypeVar("T")

_AT_ONCE = 1 << 20
"""Bytes of a file that are read at once where only its digest is wanted."""


class NamedFile(NamedTuple):
    """A file that a fault model names, and the SHA-256 of what was read there when a plan was made of it.

    `path` is None for a name that the library does not hold, `digest` where no plan was made yet.
    """

    name: str
    path: Path | None
    digest: str | None


class Files:
    """Profiles, fault maps and lists of faults by their names; each file is read once, and stays what it was then."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], tuple[Any, str]] = {}

    def read(self, path: Path | str, what: str, largest: int, parse: Callable[[bytes, str], T]) -> tuple[T, str]:
        """What `parse(content, name)` makes of a file, and the file's digest; `what` says in words what is expected.

        Raises FileError for a file that cannot be read or has more than `largest` bytes, and what `parse` raises.
        """
        known = str(path), what
        if known not in self._read:
            content = read_regular(path, largest, what)
            self._read[known] = parse(content, str(path)), sha256(content).hexdigest()
        return self._read[known]

    def yaml(self, path: Path | str) -> tuple[Any, str]:
        """The content of a YAML file and its digest; raises FileError or ModelError."""
        return self.read(path, "a YAML file", LARGEST_YAML, parse_yaml)

    def profile(self, name: str) -> tuple[Profile, str]:
        """The profile of a name or path, as `Profile.load` reads it, and its file's digest."""
        path = profile_path(name)
        content, digest = self.yaml(path)
        known = str(path), "a profile"
        if known not in self._read:
            self._read[known] = Profile.parse(content, str(path)), digest
        return self._read[known]

    def fault_map(self, name: str) -> tuple[FaultMap, str]:
        """The fault map in a file and the file's digest; raises FileError."""
        return self.read(name, "a fault map", LARGEST_MAP, FaultMap.from_bytes)


def changed_files(named: Iterable[NamedFile]) -> Iterator[str]:
    """A sentence on each file that is there and has another content than its digest says."""
    for one in dict.fromkeys(named):
        found = None if one.digest is None or one.path is None else _digest_of(one.path)
        if found not in (None, one.digest):
            yield changed_sentence(one, found) + "; the plan keeps its faults, resolve them again to have the file's"


def changed_sentence(named: NamedFile, found: str | None) -> str:
    """What is said of a file of which a plan was made when it had another content."""
    then, now = (str(digest)[:12] for digest in (named.digest, found))
    return f"{named.name}: the file has changed since a plan was made of it (SHA-256 {then}... then, {now}... now)"


def _digest_of(path: Path) -> str | None:
    """The SHA-256 of a file's content; None where there is none that a plan could have been made of."""
    try:
        if check_regular(path) > LARGEST_MAP:
            return None
        found = sha256()
        with open_regular(path) as file:
            while part := file.read(_AT_ONCE):
                found.update(part)
        return found.hexdigest()
    except (OSError, FileError):
        return None
