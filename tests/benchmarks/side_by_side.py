"""Timing variants side by side: in turn, many times, as medians of ratios to the first."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def ratios(variants: Mapping[str, Callable[[], object]], rounds: int, seconds: float | None = None) -> dict[str, float]:
    """Median over rounds of each variant's time divided by the first variant's time in the same round.

    After so many seconds no other round begins, but for the first three.
    """
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    begun = time.perf_counter()
    for i in range(rounds):
        if seconds is not None and i >= 3 and time.perf_counter() - begun > seconds:
            break
        # each round in another order, so that what one leaves in the caches is not always met by the same next one
        names = list(variants)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - start)
    first = times[next(iter(variants))]
    medians = {name: statistics.median(t / f for t, f in zip(ts, first, strict=True)) for name, ts in times.items()}
    print(f"    (first variant: median {1e3 * statistics.median(first):.2f} ms, {len(first)} rounds)")
    return medians


def show(title: str, medians: Mapping[str, float], targets: Mapping[str, float] | None = None) -> None:
    """Prints ratios, a line each, beside what is to be reached."""
    print(title)
    for name, ratio in medians.items():
        target = (targets or {}).get(name)
        print(f"    {name:<44} {ratio:6.3f}x" + (f"   (to reach: {target:.2f}x)" if target else ""))


def machine() -> str:
    threads = f"{torch.get_num_threads()} threads"
    return f"{platform.machine()}, {threads}, Python {platform.python_version()}, torch {torch.__version__}"
