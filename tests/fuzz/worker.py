"""Cases one after the other, in a process that may crash; arguments: seed, first case, seconds, cases, folder."""

import faulthandler
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

from hwfault.stream import native
from hwfault.stream.native import loading
from tests.fuzz.cases import run_case

LIBRARY = "HWFAULT_FUZZ_LIBRARY"
"""Environment variable: the build of the library to test in place of the installed one."""


def use_given_library() -> None:
    """Takes the library that the environment names."""
    if path := os.environ.get(LIBRARY):
        native.library_path = loading.library_path = lambda: Path(path)


def main() -> None:
    """Runs cases until the time is over or there are so many, and writes what came of them to result.json."""
    faulthandler.enable()
    seed, first, seconds, cases = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    folder, end = Path(sys.argv[5]), time.monotonic() + float(seconds)
    use_given_library()
    came: Counter[str] = Counter()
    for number in range(first, first + cases):
        if time.monotonic() > end:
            break
        came[run_case(seed, number, folder)] += 1
    (folder / "result.json").write_text(json.dumps(came))


if __name__ == "__main__":
    main()
