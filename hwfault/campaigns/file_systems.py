"""On which file systems a store can be written: those of one machine."""

import os
from pathlib import Path

from hwfault.errors import FileError

_ON_NETWORKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "9p")


def check_local(folder: Path) -> None:
    """Raises FileError for a folder of a network's file system, where SQLite's shared memory does not work."""
    kind = _file_system(folder)
    if kind in _ON_NETWORKS or (kind.startswith("fuse.") and "sshfs" in kind):
        raise FileError(
            f"{folder}: lies on a file system of a network ({kind}), where a store cannot be written safely; choose a "
            "local folder with --out. To share the work of several machines run --shard 1/N, 2/N, ... on each, in a "
            "local folder, and merge them"
        )


def _file_system(folder: Path) -> str:
    """The kind of the file system that a folder lies on, as the kernel lists it; "" where it does not say."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    place = os.path.realpath(folder)
    best, kind = "", ""
    for line in lines:
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        mount = parts[1].replace("\\040", " ")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, parts[2]
    return kind
