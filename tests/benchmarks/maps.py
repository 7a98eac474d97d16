"""Drawing the map of a memory of 10^8 cells against one uniform number a cell from NumPy: time and memory."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from hwfault.devices.draw import draw_map
from hwfault.profiles.spatial import BlockColumn, Clusters, Independent, Rows

_CELLS, _ROW_BITS = 100_000_000, 8
_MOST_SECONDS, _MOST_MEBIBYTES = 5.0, 1024
_KC705 = BlockColumn(
    block_rows=1024,
    row_bits=8,
    column_period=2,
    block_share=0.281,
    dispersion=0.0795,
    column_share=0.638,
    lone_share=0.147,
    at_rate=1.559e-4,
)
_PATTERNS = {
    "independent": Independent(),
    "block_column": _KC705,
    "rows": Rows(fill=0.5),
    "clusters": Clusters(sizes=(0.7, 0.2, 0.1), along="column"),
}


def draw(pattern: str, rate: float) -> object:
    size = {"rows": _CELLS // _ROW_BITS, "row_bits": _ROW_BITS}
    return draw_map(_PATTERNS[pattern], rate, shares=(0.0, 0.5, 0.5), device=1, name="bench", **size)


def uniform(rate: float) -> object:
    """Faulty cells from one float32 a cell, in pieces of 2^22."""
    random, piece = np.random.default_rng(1), 1 << 22
    found = [np.flatnonzero(random.random(piece, np.float32) < rate) + at for at in range(0, _CELLS, piece)]
    return np.concatenate(found)


def main(rounds: int = 5) -> None:
    from tests.benchmarks.side_by_side import ratios, show  # imports torch, which the memory of a drawing must not hold

    for rate in (1.559e-4, 1e-2):
        variants = {"a uniform number a cell (NumPy)": lambda rate=rate: uniform(rate)}
        variants |= {name: lambda name=name, rate=rate: draw(name, rate) for name in _PATTERNS}
        show(f"drawing {_CELLS:,} cells at rate {rate:g}", ratios(variants, rounds))
    for name, rate in (("independent", 1e-2), ("independent", 0.05), ("block_column", 1e-2)):
        seconds, mebibytes = alone(name, rate)
        print(
            f"    {name}, rate {rate:g}, in a process of its own: {seconds:.2f} s, at most {mebibytes:.0f} MiB "
            f"(to reach: {_MOST_SECONDS:g} s, {_MOST_MEBIBYTES} MiB)"
        )


def alone(pattern: str, rate: float) -> tuple[float, float]:
    """(seconds, peak MiB) of one drawing in a fresh process."""
    run = [sys.executable, "-m", "tests.benchmarks.maps", pattern, repr(rate)]
    seconds, mebibytes = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), float(mebibytes)


def _alone(pattern: str, rate: float) -> None:
    start = time.perf_counter()
    draw(pattern, rate)
    seconds = time.perf_counter() - start
    # not ru_maxrss, which a process takes over from the one that starts it
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(seconds, int(peak.split()[1]) / 1024)


if __name__ == "__main__":
    _alone(sys.argv[1], float(sys.argv[2])) if len(sys.argv) > 1 else main()
