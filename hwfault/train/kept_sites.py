"""The sites of a run, kept in its folder, so that listing them takes neither network nor data.

They are believed under the key they were kept with alone: a digest of all that they follow from.
"""

import json
import os
import stat
from collections.abc import Mapping
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open

import hwfault
from hwfault.errors import FileError, HwfaultError, ModelError
from hwfault.files import write_atomically
from hwfault.inputs import open_regular, read_regular
from hwfault.notices import tell_once
from hwfault.own_code import is_code
from hwfault.program.sites import Site, SiteList
from hwfault.records import Record
from hwfault.train.config import TrainConfig
from hwfault.train.folder import CHECKPOINT, CONFIG_KEY, SITES

_FORMAT = 1
_LARGEST = 1 << 24
_DATA_IN_PACKAGES = ("digits",)
"""Data sets that come with an installed package, and so change with no file of the user's."""


class _Kept(Record):
    """What the file holds: a `SiteList`, and the key under which it may be believed."""

    key: str
    sites: tuple[Site, ...]
    obstacles: Mapping[str, str]
    notes: Mapping[str, str]


def key_of(run: Path) -> str | None:
    """What the sites of a run's folder follow from, as one digest: its checkpoint, its data's file, and the versions.

    None where they follow from more than that (code of the user's own, which may have changed; data in a folder), and
    where something cannot be read, which those who load the run tell better.
    """
    try:
        config = _configuration(run / CHECKPOINT)
        if any(is_code(spec) for spec in (config.network, config.data, config.transform or "")):
            return None
        if config.data_folder is not None or not (config.data in _DATA_IN_PACKAGES or config.data.endswith(".npz")):
            return None
        parts = {
            "format": str(_FORMAT),
            "hwfault": hwfault.__version__,
            "torch": version("torch"),
            "brevitas": version("brevitas"),
            "checkpoint": _digest(run / CHECKPOINT),
            "data": _digest(Path(config.data)) if config.data.endswith(".npz") else config.data,
        }
    except (HwfaultError, OSError, ImportError, SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        return None
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_sites(run: Path, key: str) -> SiteList | None:
    """The sites that a run's folder keeps under the key; None where there are none.

    The log "hwfault" says of a file that is none of ours; one that is out of date is silently none.
    """
    path = run / SITES
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(read_regular(path, _LARGEST, "the sites of a run"))
        kept = _Kept.parse(content, str(path))
    except (FileError, ModelError, ValueError, RecursionError) as error:
        reason = str(error).removeprefix(f"{path}: ").splitlines()[0]
        tell_once([f"{path}: does not hold the sites of a run ({reason}); they are found anew"])
        return None
    return SiteList(kept.sites, kept.obstacles, kept.notes) if kept.key == key else None


def keep_sites(run: Path, key: str, found: SiteList) -> None:
    """Leaves the sites in a run's folder, atomically; a folder that cannot be written stays as it is."""
    path = run / SITES
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        return  # somebody else's link would lead to another file, which is none of ours to replace
    kept = _Kept(key=key, sites=tuple(found), obstacles=found.obstacles, notes=found.notes)
    try:
        write_atomically(path, (kept.model_dump_json(exclude_none=True) + "\n").encode())
    except FileError:  # they are found anew each time
        return


def _configuration(checkpoint: Path) -> TrainConfig:
    """The configuration in a checkpoint, read without its tensors."""
    with open_regular(checkpoint), safe_open(checkpoint, framework="np") as file:
        return TrainConfig.parse(json.loads((file.metadata() or {})[CONFIG_KEY]), str(checkpoint))


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return file_digest(file, "sha256").hexdigest()
