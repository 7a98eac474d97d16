"""Which commit a working copy is at, found without letting its configuration run anything.

A repository's configuration may name commands (core.fsmonitor, hooks, filters of attributes, remotes that are fetched
from): git runs them in any folder it is started in. So HEAD is read from its files, and git compares the working copy's
files with a repository of ours, which has none of that configuration and borrows objects and index.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LARGEST = 1 << 24
_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_REF = re.compile(r"refs/[^\0\n]+")
_TIMEOUT_S = 20
_MOST_LINKS = 5


def commit() -> dict[str, object] | None:
    """The commit of the current folder's working copy, and whether its files differ from it; None outside of one.

    `dirty` is None where that cannot be told without git, or without the repository's own configuration.
    """
    try:
        found = _repository(Path.cwd())
        if found is None:
            return None
        work, folder = found
        common = _common(folder)
        head = _resolved(folder, common, "HEAD")
    except (OSError, ValueError):
        return None
    return None if head is None else {"commit": head, "dirty": _dirty(work, folder, common, head)}


def _repository(start: Path) -> tuple[Path, Path] | None:
    """The working copy that a folder lies in, and its git folder."""
    for work in (start, *start.parents):
        place = work / ".git"
        if place.is_dir() and (place / "HEAD").is_file():
            return work, place
        if place.is_file():  # of a worktree or submodule: it says where the folder is
            kind, _, path = _text(place).partition(":")
            if kind != "gitdir":
                return None
            return work, work / path.strip()
    return None


def _common(folder: Path) -> Path:
    """Where the objects and branches lie: for a worktree, in the folder of the first one."""
    place = folder / "commondir"
    return folder / _text(place).strip() if place.is_file() else folder


def _resolved(folder: Path, common: Path, name: str) -> str | None:
    """The commit that HEAD, or a branch, stands for."""
    for _ in range(_MOST_LINKS):
        found = [place for place in (folder / name, common / name) if place.is_file()]
        text = _text(found[0]).strip() if found else _packed(common, name)
        if not text.startswith("ref:"):
            return text if _HASH.fullmatch(text) else None
        name = text.removeprefix("ref:").strip()
        if not _REF.fullmatch(name) or ".." in name:
            return None
    return None


def _packed(common: Path, name: str) -> str:
    """What packed-refs has for a branch; empty if nothing."""
    place = common / "packed-refs"
    lines = _text(place).splitlines() if place.is_file() else []
    for line in lines:
        if line.startswith(("#", "^")):  # comments, and what annotated tags stand for
            continue
        commit, _, branch = line.partition(" ")
        if branch == name:
            return commit
    return ""


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is larger than any file of git's that says one thing")
    return path.read_text(encoding="utf-8")


def _dirty(work: Path, folder: Path, common: Path, head: str) -> bool | None:
    git = shutil.which("git")
    if git is None or not os.path.isabs(git):  # a PATH with the current folder in it
        return None
    with tempfile.TemporaryDirectory() as own:
        for name in ("objects", "refs"):
            (Path(own) / name).mkdir()
        (Path(own) / "HEAD").write_text(head + "\n")
        format = "sha1" if len(head) == 40 else "sha256"
        extension = "" if format == "sha1" else f"[extensions]\n\tobjectFormat = {format}\n"
        version = 0 if format == "sha1" else 1
        (Path(own) / "config").write_text(f"[core]\n\trepositoryformatversion = {version}\n\tbare = false\n{extension}")
        command = [git, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all"]
        environment = dict(_environment(work, folder, common, Path(own)))
        try:
            done = subprocess.run(
                command, env=environment, cwd=work, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return None if done.returncode else bool(done.stdout.strip())


def _environment(work: Path, folder: Path, common: Path, own: Path) -> Iterator[tuple[str, str]]:
    """Nothing of the user's or the system's configuration, and no other repository than ours."""
    yield from ((key, value) for key, value in os.environ.items() if not key.startswith("GIT_"))
    yield from {
        "GIT_DIR": str(own),
        "GIT_WORK_TREE": str(work),
        "GIT_OBJECT_DIRECTORY": str((common / "objects").resolve()),
        "GIT_INDEX_FILE": str((folder / "index").resolve()),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",  # the borrowed index stays as it is
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }.items()
