"""Training and evaluation under faults, fused and not, beside clean Brevitas, the float twin, and other ways to do it.

Every network, batch size and number of threads is measured in processes of its own, one after the other, and every
ratio is one to clean Brevitas, without faults. BER 1e-3 on all weights, biases and activations. Ratios are medians over
rounds, of real time with two threads and of processor time with one.

`python -m tests.benchmarks.training_speed` takes 12 minutes or so on two free cores; with --quick, 4.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tests.benchmarks.training_networks import NETWORKS
from tests.benchmarks.training_process import (
    CLEAN,
    DENSE,
    FAULTY,
    FUSED_FAULTY,
    REFERENCE,
    SPARSE,
    TWIN,
    VARIANTS,
)

_TO_REACH = {
    ("ResNet-20", 64): {"forward": 0.50, "step": 0.65},
    ("CNV", 64): {"forward": 0.68, "step": 0.74},
    ("ResNet-20", 8): {"forward": 0.40, "step": 0.52},
    ("CNV", 8): {"forward": 0.52, "step": 0.62},
}
"""What fused networks under faults are to reach, in each of three processes."""
_BATCHES, _THREADS = (1, 8, 64), (1, 2)
_WITH_A_TARGET = 3
"""How many processes measure what has a target, with two threads."""
_SECONDS = {1: 4.0, 8: 8.0, 64: 16.0}
"""How long a process measures, by batch size."""
_BUSY = 1.5
"""A load beyond the process's own threads from which on others use the machine, too."""


class Run(NamedTuple):
    """One process; `gathering` is the first 300 steps, in which Brevitas gathers statistics.

    `quick_ways` leaves out the ways to inject that take several times as long as all others.
    """

    network: str
    batch: int
    threads: int
    quick_ways: bool = False
    memory: bool = False
    gathering: bool = False


class Measured(NamedTuple):
    """A process and what it found."""

    run: Run
    report: dict[str, Any]


def runs(quick: bool = False) -> list[Run]:
    """All that is measured, those of one network and batch size together."""
    found = []
    for network in NETWORKS:
        for samples in _BATCHES:
            for threads in _THREADS:
                several = threads == 2 and (network, samples) in _TO_REACH and not quick
                alike = [Run(network, samples, threads, quick_ways=True)] * (_WITH_A_TARGET if several else 1)
                if threads == 2:
                    alike[0] = alike[0]._replace(quick_ways=False, memory=samples == 64)
                found += alike
    found.append(Run("CNV", 64, 2, gathering=True))
    return found


def main(quick: bool = False) -> None:
    measured: list[Measured] = []
    planned = runs(quick)
    for i, run in enumerate(planned):
        measured.append(Measured(run, report_of(run, _SECONDS[run.batch] / (4 if quick else 1))))
        if i + 1 == len(planned) or _group(planned[i + 1]) != _group(run):
            print("\n".join(table([m for m in measured if _group(m.run) == _group(run)])), flush=True)
    print("\n".join([*conclusion(measured), *readme(measured)]), flush=True)


def _group(run: Run) -> tuple[str, int, bool]:
    return run.network, run.batch, run.gathering


def report_of(run: Run, seconds: float) -> dict[str, Any]:
    """What a fresh process says; raises RuntimeError with its words if it fails."""
    command = [sys.executable, "-m", "tests.benchmarks.training_process", run.network, str(run.batch), str(run.threads)]
    command += ["--seconds", str(seconds)]
    command += [
        f"--{option}".replace("_", "-") for option in ("quick_ways", "memory", "gathering") if getattr(run, option)
    ]
    # what the host sets for its threads is not what is measured
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def table(alike: Sequence[Measured]) -> list[str]:
    """The lines on one network at one batch size: a column for each process, by its number of threads."""
    first = alike[0].run
    title = f"{first.network}, batch {first.batch}"
    if first.gathering:
        title += ", the first 300 steps, in which Brevitas gathers statistics of activations"
    lines = [title]
    for what in ("forward", "step"):
        if what in alike[0].report:
            lines += _ratios(what, alike, _TO_REACH.get((first.network, first.batch), {}).get(what))
    for measured in alike:
        lines += _memory(measured.report)
        if max(measured.report["load"]) > measured.run.threads + _BUSY:
            lines.append(f"    others used the machine meanwhile: load {measured.report['load']}")
    left = alike[0].report["left"]
    if not alike[0].report["extension"]:
        lines.append("    without the C++ extension for torch (python -m hwfault.fast builds it)")
    lines.append(f"    {alike[0].report['fused']} quantizers fused, left to Brevitas: {left or 'none'}")
    return lines


def _ratios(what: str, alike: Sequence[Measured], to_reach: float | None) -> list[str]:
    threads = "".join(f"{m.run.threads:>9}" for m in alike)
    clean = "".join(f"{m.report[what]['milliseconds']:9.2f}" for m in alike)
    title = {"forward": "forward", "step": "training step"}[what]
    lines = [f"  {title:<34}threads{threads}", f"    {CLEAN + ', milliseconds':<37}{clean}"]
    for name in VARIANTS:
        if name == CLEAN:
            continue
        of_each = [m.report[what]["ratios"].get(name) for m in alike]
        ratios = "".join(f"{'-':>9}" if ratio is None else f"{ratio:8.3f}x" for ratio in of_each)
        target = f"   (to reach: {to_reach:.2f}x)" if to_reach is not None and name == FUSED_FAULTY else ""
        lines.append(f"    {name:<37}{ratios}{target}")
    return lines


def _memory(report: dict[str, Any]) -> list[str]:
    titles = {"kept": "kept for the backward pass", "peak": "peak of a training step"}
    lines = []
    for what, title in titles.items():
        if what in report:
            lines.append(f"  {title}, MB")
            lines += [f"    {name:<37}{report[what][name] / 1e6:9.2f}" for name in VARIANTS]
    return lines


def conclusion(measured: Sequence[Measured]) -> list[str]:
    """The best and the worst ratio of fused networks under faults, what misses its target, and what is not fused."""
    lines = [f"{FUSED_FAULTY}, against {CLEAN}, over all networks, batch sizes and threads"]
    for what in ("forward", "step"):
        lines += _best_and_worst(what, "all", measured)
        lines += _best_and_worst(
            what, "not used while tuning", [m for m in measured if not NETWORKS[m.run.network].tuned]
        )
    lines += _targets(measured)
    for network in NETWORKS:
        left = next((m.report["left"] for m in measured if m.run.network == network and m.report["left"]), None)
        if left:
            lines.append(f"    left to Brevitas in {network}: {left}")
    return lines


def _best_and_worst(what: str, which: str, measured: Iterable[Measured]) -> list[str]:
    found = sorted((_ratio(m, what), m.run) for m in measured if what in m.report)
    if not found:
        return []
    ends = ", ".join(f"{word} {ratio:.3f}x ({_named(run)})" for word, (ratio, run) in _ends(found))
    return [f"    {what}, {which}: {ends}"]


def _ends(found: Sequence[tuple[float, Run]]) -> Iterable[tuple[str, tuple[float, Run]]]:
    return zip(("best", "worst"), (found[0], found[-1]), strict=True)


def _named(run: Run) -> str:
    first = ", the first 300 steps" if run.gathering else ""
    return f"{run.network}, batch {run.batch}, {run.threads} threads{first}"


def _targets(measured: Sequence[Measured]) -> list[str]:
    """A line for each target: the median of its processes, the worst of them, and whether that is reached."""
    lines = []
    for (network, samples), targets in _TO_REACH.items():
        alike = [m for m in measured if _group(m.run) == (network, samples, False)]
        for what, target in targets.items():
            of_two = [_ratio(m, what) for m in alike if m.run.threads == 2]
            worst = max(of_two)
            verdict = "reached" if worst <= target else "MISSED"
            title = f"{network}, batch {samples}: {what}"
            lines.append(
                f"    {title:<37}{statistics.median(of_two):8.3f}x, worst of {len(of_two)} processes {worst:.3f}x"
                f"   (to reach: {target:.2f}x)   {verdict}"
            )
    return lines


def readme(measured: Sequence[Measured]) -> list[str]:
    """The README's table: forward and training step with two threads, medians of the processes that measured them."""
    columns = (FUSED_FAULTY, FAULTY, TWIN, SPARSE, DENSE, REFERENCE)
    lines = [f"| network | batch | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 2)}"]
    for network, known in NETWORKS.items():
        for samples in (64, 8):
            alike = [m.report for m in measured if _group(m.run) == (network, samples, False) and m.run.threads == 2]
            if alike:
                cells = [_cell(alike, variant) for variant in columns]
                lines.append(f"| {network}{'' if known.tuned else ' (untuned)'} | {samples} | {' | '.join(cells)} |")
    return lines


def _cell(reports: Sequence[dict[str, Any]], variant: str) -> str:
    cells = []
    for what in ("forward", "step"):
        ratios = [r[what]["ratios"][variant] for r in reports if variant in r[what]["ratios"]]
        cells.append(f"{statistics.median(ratios):.2f}x")
    return ", ".join(cells)


def _ratio(measured: Measured, what: str) -> float:
    ratio: float = measured.report[what]["ratios"][FUSED_FAULTY]
    return ratio


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the time for each, and one process each")
    main(**vars(parser.parse_args()))
