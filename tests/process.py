"""What a process took and said of its own: other packages' imports take memory, and warn, as they like."""

import re
from pathlib import Path

_WARNING = re.compile(
    r"^(?:\S.*:\d+: (?:\w+\.)*\w*Warning: .*\n(?:[ \t]+.*\n?)?"  # Python's warnings module, and the line of the source
    r"|\[?[WE]\d{4}[ :].*\n?)",  # the logs of libraries in C++ that torch brings
    re.MULTILINE,
)


def own_words(stderr: str) -> str:
    """What a command wrote on stderr, without the warnings of packages that it imports."""
    return _WARNING.sub("", stderr)


def mapped_memory() -> int:
    """The bytes of address space that this process has now; torch for CUDA maps some 10 GiB on being imported."""
    return _from_status("VmSize")


def peak_memory() -> int:
    """The most bytes that this process has had in memory; `ru_maxrss` counts its parent's before it began."""
    return _from_status("VmHWM")


def _from_status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) << 10
