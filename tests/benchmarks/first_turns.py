"""First turns by bisection beside the grid of all points: work, CPU time, and what turns back.

Ratios of CPU time on one thread, all of one run: the same seeds along the same sweep, in turn. Answers that stay turned
are compared one by one.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import save

from hwfault.campaigns.engines.engine import Engine, Numbers, Ran, Trial
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.study.records import Study
from hwfault.graph.export.of_network import export
from tests.benchmarks.campaign_engines import Case, cnv, digits, resnet20
from tests.benchmarks.side_by_side import machine

_RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
_SEEDS = 6
_SITES: dict[str, Any] = {"weights": {"kind": "weight"}, "activations": {"kind": "activation"}, "all": "*"}


def main() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for make in (digits, cnv, resnet20):
        compare(make())
    torch.set_num_threads(before)


def compare(case: Case) -> None:
    """Prints a network's ratios."""
    x = case.split.stored
    print(f"{case.name}, {len(x)} images, {len(_RATES)} rates from {_RATES[0]:g} to {_RATES[-1]:g}; {machine()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(export(case.model, x[:1]), folder / "graph.onnx")
        np.savez(folder / "data.npz", x=x.numpy(), y=case.split.labels.numpy())
        for what, sites in _SITES.items():
            _compare_sites(case, folder, what, sites)


def _compare_sites(case: Case, folder: Path, what: str, sites: Any) -> None:
    question = {"sweep": {"ber": _RATES}, "sites": sites, "first_turn": True}
    given = {"graph": str(folder / "graph.onnx"), "data": str(folder / "data.npz"), "batch_size": case.batch_size}
    measurement = Measurement(Study.parse(given | {"questions": {"q": question}}, "the study"), Trust())
    (along,) = [task for task in measurement.tasks if task.sweep]
    points = sorted((task for task in measurement.tasks if task.stands_by), key=lambda task: float(task.labels["ber"]))
    counting = _Counting(measurement.engine)
    measurement.engine = counting
    _all(measurement, along, [0])
    _grid(measurement, points, [0])
    ratios, parts = [], []
    truth, found = [], []
    for first in range(1, 1 + 3 * _SEEDS, _SEEDS):  # in turn
        seeds = range(first, first + _SEEDS)
        by_bisection = _measured(counting, lambda seeds=seeds: found.extend(_all(measurement, along, seeds)))
        by_grid = _measured(counting, lambda seeds=seeds: truth.append(_grid(measurement, points, seeds)))
        ratios.append(by_grid[0] / by_bisection[0])
        parts.append(by_bisection[1] / by_grid[1])
    told = _told(np.concatenate(truth, axis=1), np.array(found))
    print(
        f"    {what}: bisection {statistics.median(ratios):.2f}x as fast as the grid, "
        f"{statistics.median(parts):.2f} of its runs; {told}"
    )


class _Counting:
    """An engine that counts how many (trial, image) it runs."""

    def __init__(self, engine: Engine) -> None:
        self.runs = 0
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, trials: Sequence[Trial], images: Numbers | None = None) -> Iterator[Ran]:
        self.runs += len(trials) * (self._engine.samples if images is None else len(images))
        return self._engine.run(trials, images)

    def run_each(self, trials: Sequence[Trial], images: Sequence[Numbers]) -> Iterator[Ran]:
        self.runs += sum(map(len, images))
        return self._engine.run_each(trials, images)


def _all(measurement: Measurement, task: Any, seeds: Sequence[int]) -> list[Any]:
    return [row.answers for row in measurement.run(task, seeds)]


def _grid(measurement: Measurement, points: Sequence[Any], seeds: Sequence[int]) -> Any:
    """Which answers have turned: (points, trials, images)."""
    names = list(measurement.masks)
    found = np.array([_all(measurement, task, seeds) for task in points])
    return found[:, :, names.index("top1")] | found[:, :, names.index("due")]


def _measured(counting: _Counting, run: Callable[[], object]) -> tuple[float, int]:
    runs, start = counting.runs, time.process_time()
    run()
    return time.process_time() - start, counting.runs - runs


def _told(truth: Any, found: Any) -> str:
    """How many answers turn, turn back, and are told otherwise than by the grid."""
    turned = np.moveaxis(found[:, :-2], 1, 0)
    back = (truth[:-1] & ~truth[1:]).any(axis=0)
    by_grid = np.maximum.accumulate(truth, axis=0)
    unlike = (turned != by_grid).any(axis=0)
    assert not (unlike & ~back).any()
    return (
        f"{truth.any(axis=0).mean():.1%} of answers turn, {back.mean():.2%} turn back, {unlike.mean():.2%} are told "
        f"otherwise (none of those that stay turned)"
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="fast_hadamard_transform package not found")
    main()
