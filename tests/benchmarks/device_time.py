"""Timing on a device, by its own clock; on the CPU by the host's."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Times = dict[str, list[float]]


def measured(runs: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Milliseconds of each in every round; in turn, so that a change of clocks meets all."""
    for run in runs.values():
        run()
        run()
    times: Times = {name: [] for name in runs}
    for i in range(rounds):
        names = list(runs)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times[name].append(milliseconds(runs[name]))
    return times


def milliseconds(run: Callable[[], object]) -> float:
    if not torch.cuda.is_available():
        begin = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - begin)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def medians(times: Times) -> dict[str, float]:
    return {name: statistics.median(all_) for name, all_ in times.items()}


def ratios(times: Times) -> dict[str, float]:
    """Medians over rounds of each one's time divided by that of the first in the same round."""
    first = times[next(iter(times))]
    return {name: statistics.median(t / f for t, f in zip(ts, first, strict=True)) for name, ts in times.items()}
