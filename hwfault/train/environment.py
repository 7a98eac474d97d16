"""Where and how a run was started: versions, hardware, the state of the working copy, the command."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hwfault.errors import FileError
from hwfault.files import write_atomically
from hwfault.inputs import check_regular
from hwfault.train.commit import commit
from hwfault.versions import installed_versions


def note_start(path: Path) -> None:
    """Adds this start to the list in environment.json; raises FileError if it cannot be written."""
    write_atomically(path, (json.dumps([*_starts(path), environment()], indent=2) + "\n").encode())


def environment() -> dict[str, Any]:
    """What is known about this process, as plain data."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": installed_versions(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
        "git": commit(),
    }


def _starts(path: Path) -> list[Any]:
    try:
        check_regular(path)
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, FileError):
        return []
    return known if isinstance(known, list) else []


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
