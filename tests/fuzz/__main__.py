"""`python -m tests.fuzz`: hostile graphs and calls against a build of the library with sanitizers; see `make fuzz`."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.worker import LIBRARY

_HANGS = 60.0  # seconds that a case may take, on a machine with other work
_TOO_MUCH = re.compile(
    r"AddressSanitizer: (allocator is out of memory|requested allocation size).*\n\s*#0 .*\n\s*#1 .*/onnxruntime/"
)
_SANITIZERS = {
    # onnxruntime and Python are not built for leak detection; a request of 2 GiB is an error of whoever makes it
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048:hard_rss_limit_mb=6000",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONMALLOC": "malloc",  # so that the ends of what Python holds are known as well
    "OMP_NUM_THREADS": "2",
}


@dataclass
class Fuzzing:
    """A run of the driver: workers one after the other, each going on behind the case that ended the one before."""

    seed: int
    seconds: float
    cases: int
    library: Path | None
    preload: str
    keep: Path
    failures: list[str] = field(default_factory=list)
    done: int = 0
    too_much: int = 0
    """Cases in which onnxruntime itself asked for too much memory, which is an exception without a sanitizer."""

    def run(self) -> None:
        """Runs cases until the time is over, and keeps the input of each that failed."""
        end = time.monotonic() + self.seconds
        with tempfile.TemporaryDirectory(prefix="hwfault-fuzz-") as name:
            while (left := end - time.monotonic()) > 0 and self.done < self.cases:
                self._work(Path(name), left)

    def _work(self, folder: Path, left: float) -> None:
        first, result = self.done, folder / "result.json"
        result.unlink(missing_ok=True)
        (folder / "case.json").unlink(missing_ok=True)
        numbers = [self.seed, first, left, self.cases - first]
        command = [sys.executable, "-m", "tests.fuzz.worker", *map(str, numbers), str(folder)]
        with open(folder / "log.txt", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment())
            why = self._wait(process, folder / "case.json")
        if result.exists() and not why:
            self.done += sum(json.loads(result.read_text()).values())
            return
        if not (folder / "case.json").exists():
            sys.exit("a worker did not begin: " + (folder / "log.txt").read_text(errors="replace")[-3000:])
        case = json.loads((folder / "case.json").read_text())
        self.done = case["number"] + 1
        if _TOO_MUCH.search((folder / "log.txt").read_text(errors="replace")):
            self.too_much += 1
            return
        self._keep(folder, case, why or f"exit code {process.returncode}")

    def _wait(self, process: "subprocess.Popen[bytes]", case: Path) -> str:
        """Waits for a worker; says so if it had to be ended because a case went on for too long."""
        begun = time.time()
        while True:
            try:
                process.wait(timeout=1)
                return ""
            except subprocess.TimeoutExpired:
                at = case.stat().st_mtime if case.exists() else begun + 10 * _HANGS  # until all is imported
                if time.time() - at > _HANGS:
                    process.kill()
                    process.wait()
                    return f"no end within {_HANGS:g} s"

    def _keep(self, folder: Path, case: dict[str, object], why: str) -> None:
        to = self.keep / f"{self.seed}-{case['number']}"
        to.mkdir(parents=True, exist_ok=True)
        for name in ("case.json", "log.txt", *(["case.onnx"] if "graph" in case else [])):
            if (folder / name).exists():
                shutil.copy(folder / name, to / name)
        self.failures.append(f"{case.get('graph') or case.get('call')} ({why}): {to}")
        print(f"FAILED {self.failures[-1]}", flush=True)

    def _environment(self) -> dict[str, str]:
        own = dict(_SANITIZERS)
        if self.library is not None:
            own |= {LIBRARY: str(self.library)}
        if self.preload:
            own |= {"LD_PRELOAD": self.preload}
        return os.environ | own


def main() -> None:
    """Prints how many cases ran and how fast; exit code 1 if one crashed, hung, or was not answered by an error."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--cases", type=int, default=1 << 40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", type=Path, help="A build of the library.  [default: the installed one]")
    parser.add_argument("--preload", default="", help="The runtimes of its sanitizers, for LD_PRELOAD.")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz-failures"), help="Where failing inputs are put.")
    given = parser.parse_args()
    fuzzing = Fuzzing(**vars(given))
    begun = time.monotonic()
    fuzzing.run()
    seconds = time.monotonic() - begun
    print(
        f"{fuzzing.done} cases in {seconds:.0f} s, {fuzzing.done / seconds:.1f} a second, seed {fuzzing.seed}; ", end=""
    )
    print(f"onnxruntime was short of memory {fuzzing.too_much} times; {len(fuzzing.failures)} failures")
    sys.exit(1 if fuzzing.failures else 0)


if __name__ == "__main__":
    main()
