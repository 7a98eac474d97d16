"""`make bench-gpu`: on a CUDA device, equality with the CPU first, then what injection costs there.

Prints what it measures and keeps it, part by part, in `results/gpu-NAME.txt`. Ends within `--minutes`: what does not
fit is named as not measured. The exit code is 1 where anything differs from the CPU or fails. `--elements`, `--cases`,
`--batch` and `--rounds` make it smaller, `--tune` times the kernel under other settings as well.
"""

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    options = parsed()
    refuse_without_a_gpu()
    report = Report(options.minutes)
    report.line(device())
    for title, run in parts(report, options):
        report.part(title, run)
    sys.exit(report.exit_code())


def parts(report: "Report", options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], None]]]:
    """The benchmark's parts and their titles; what may take the rest of the time comes last."""
    elements, batch, rounds = options.elements, options.batch, options.rounds
    bandwidth, networks = _part("gpu_bandwidth"), _part("gpu_networks")
    yield "equality", partial(_part("gpu_equality"), "equality", report, options.cases)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield f"bandwidth of {dtype}", partial(bandwidth, "bandwidth", report, elements, dtype, rounds)
    for name in _NETWORKS:
        yield name, partial(networks, "network", report, name, batch, rounds)
    if options.tune:
        yield "tuning", partial(bandwidth, "tune", report, elements, rounds)
    for name in _NETWORKS:
        yield f"{name}, compiled", partial(networks, "compiled", report, name, batch, rounds)


_NETWORKS = ("CNV", "ResNet-20")


def _part(module: str) -> Callable[..., None]:
    """Runs a function of a module of this package, which is imported only then: each part needs other packages."""

    def run(function: str, *args: Any) -> None:
        getattr(import_module(f"tests.benchmarks.{module}"), function)(*args)

    return run


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 28, help="of the tensor that faults are injected into")
    parser.add_argument("--cases", type=int, default=10_000, help="random cases of the equality test")
    parser.add_argument("--batch", type=int, default=512, help="of the networks")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no more is measured")
    parser.add_argument("--tune", action="store_true", help="also time the kernel under other settings")
    return parser.parse_args()


def refuse_without_a_gpu() -> None:
    if not torch.cuda.is_available():
        sys.exit(
            f"bench-gpu measures on a CUDA device, but torch {torch.__version__} finds none here; run it on a machine "
            "with an NVIDIA GPU and a CUDA build of torch (`make test` shows equality under Triton's interpreter)"
        )
    try:
        from triton import knobs
    except ImportError:
        sys.exit("bench-gpu measures Triton kernels, but triton is not installed; run `pip install triton`")
    if knobs.runtime.interpret:
        sys.exit("bench-gpu measures on a GPU, but TRITON_INTERPRET is set, which runs kernels on the CPU; unset it")


def device() -> str:
    import triton

    versions = f"torch {torch.__version__}, Triton {triton.__version__}, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        return f"the CPU, {versions}"
    properties = torch.cuda.get_device_properties(0)
    memory = f"{properties.total_memory / 2**30:.0f} GiB, {properties.multi_processor_count} SMs"
    return f"{properties.name} ({memory}), {versions}"


class Report:
    """Lines that are printed as they come and kept in a file; what differs or could not be measured is counted."""

    def __init__(self, minutes: float, path: Path | None = None) -> None:
        self.path = path or RESULTS / f"gpu-{_slug(torch.cuda.get_device_name(0))}.txt"
        self._end = time.monotonic() + 60 * minutes
        self._lines: list[str] = []
        self._failed = False

    def line(self, text: str) -> None:
        print(text, flush=True)
        self._lines.append(text)

    def differs(self, text: str) -> None:
        self.line(f"DIFFERS: {text}")
        self._failed = True

    def part(self, title: str, run: Callable[[], None]) -> None:
        """One part of the benchmark, for the time that is left; what it has found is kept whatever becomes of it."""
        begin = time.monotonic()
        try:
            with at_most(self._end - begin):
                run()
        except TimeoutError:
            self.line(f"{title}: not measured to the end, the time was up")
        except (RuntimeError, ImportError) as error:  # out of memory, what torch cannot do, a package that is not there
            self.line(f"{title}: not measured to the end: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
            self._failed = True
        self.line(f"    ({title}: {time.monotonic() - begin:.0f} s)")
        self.path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def exit_code(self) -> int:
        print(f"written to {self.path}")
        return int(self._failed)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block once its time is up."""

    def stop(_number: int, _frame: object) -> None:
        raise TimeoutError

    if seconds <= 0:
        raise TimeoutError
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
