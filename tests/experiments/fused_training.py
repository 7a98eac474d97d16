"""The demonstration's training with quantizers as one operator each, and as Brevitas' own: accuracy and time.

Run as `python -m tests.experiments.fused_training`; it prints a table. Five training seeds; for each of them both are
trained one after the other, in turns first and second. Times are those of the training alone, on one thread.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from hwfault.campaigns.evaluate import evaluate
from hwfault.demo import BER, RAMP
from hwfault.laws.models import bit_errors
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits
from hwfault.train.schedule import ScheduledFault
from tests.benchmarks.side_by_side import machine

TRAINING_SEEDS = tuple(range(5))
FAULT_SEEDS = tuple(range(1000, 1020))
_FAULTY = {"faults": tuple(ScheduledFault(fault=fault, schedule=RAMP) for fault in bit_errors(BER))}
SETTINGS: dict[str, dict[str, Any]] = {
    "digits_cnn, as in the demonstration (scales are constant)": _FAULTY,
    "tiny_cnn (scales are learned)": _FAULTY
    | {"network": "tiny_cnn", "network_args": {"channels": 1}, "learning_rate": 0.002},
}


class Found(NamedTuple):
    """One training: its accuracies in %, without faults and under them, its last loss, and its seconds."""

    clean: float
    faulty: float
    loss: float
    seconds: float


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    for name, settings in SETTINGS.items():
        pairs = list(_pairs(settings))
        print(f"{name}; {len(TRAINING_SEEDS)} training seeds: mean (least to most)")
        for fused, label in ((True, "one operator each"), (False, "Brevitas' own")):
            runs = [pair[fused] for pair in pairs]
            clean, faulty = (_spread([getattr(run, key) for run in runs]) for key in ("clean", "faulty"))
            print(f"    {label:<18} accuracy {clean} %, under faults at BER {BER:g} {faulty} %")
        ratios = [pair[True].seconds / pair[False].seconds for pair in pairs]
        losses = [abs(pair[True].loss / pair[False].loss - 1) for pair in pairs]
        print(f"    time {statistics.median(ratios):.3f}x ({min(ratios):.3f} to {max(ratios):.3f})")
        print(f"    last epoch's loss differs by at most {max(losses):.1e} of itself")


def _pairs(settings: dict[str, Any]) -> Iterator[dict[bool, Found]]:
    """Both trainings of each seed, by whether quantizers are one operator each."""
    for seed in TRAINING_SEEDS:
        order = (True, False) if seed % 2 else (False, True)
        yield {fused: _trained(TrainConfig(seed=seed, fused=fused, **settings)) for fused in order}


def _trained(config: TrainConfig) -> Found:
    data, network = digits(), build(config.network, seed=config.seed, **config.network_args)
    start = time.perf_counter()
    history = train(network, data, config)
    seconds = time.perf_counter() - start
    trials = evaluate(network, data.test_x, data.test_y, bit_errors(BER), seeds=FAULT_SEEDS)
    return Found(100 * trials.golden_accuracy, 100 * trials.mean, history[-1].loss, seconds)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
