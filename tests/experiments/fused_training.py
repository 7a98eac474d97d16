"""The demonstration's training with quantizers as one operator each, and as Brevitas' own: accuracy and time.

Run as `python -m tests.experiments.fused_training`; it prints docs/fused-training.md, and writes it.
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
from tests.experiments.undervolting import DOCS

TRAINING_SEEDS = tuple(range(5))
FAULT_SEEDS = tuple(range(1000, 1020))
SETTINGS: dict[str, tuple[float, dict[str, Any]]] = {
    "`digits_cnn`, as in the demonstration (constant scales)": (BER, {}),
    "`tiny_cnn` (learned scales)": (
        0.001,
        {"network": "tiny_cnn", "network_args": {"channels": 1}, "learning_rate": 0.002},
    ),
}
"""Networks, the bit error rates that they are trained and measured under, and the rest of their configurations."""
_INTRODUCTION = (
    "# The same training with quantizers as one operator each",
    "",
    "Training under bit errors on all weights, activations and the input, at a rate that rises linearly over",
    f"{RAMP.ramp_epochs} of 40 epochs, on the digits, once as it is by default and once with `fused: false`, by",
    "Brevitas' own quantizers. Accuracy in % on 360 held-out digits: mean of",
    f"{len(TRAINING_SEEDS)} training seeds, with the least and the most; faulty: each network under",
    f"{len(FAULT_SEEDS)} fault seeds that no training saw. Time is the processor's, of the training alone, on one",
    "thread: the median (least, most) of each seed's ratio to Brevitas' own, trained right before or after it. The",
    "last column is the largest difference of the last epoch's loss, as a share of it.",
    "",
    "Where all scales are constant both are the same training to the bit. Gradients of learned scales are sums,",
    "added up in another order, which moves a weight by a rounding error; codes at the border of two follow, in time.",
    "`python -m tests.experiments.fused_training` makes this page.",
    "",
)
_TABLE = (
    "| network | BER | quantizers | clean accuracy | faulty accuracy | time | loss |",
    "|---|---|---|---|---|---|---|",
)


class Found(NamedTuple):
    """One training: its accuracies in %, without faults and under them, its last loss, and its processor seconds."""

    clean: float
    faulty: float
    loss: float
    seconds: float


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, (rate, settings) in SETTINGS.items():
        rows += _rows(f"{name} | {rate:g}", list(_pairs(rate, settings)))
    page = "\n".join([*_INTRODUCTION, machine() + ".", "", *_TABLE, *rows]) + "\n"
    (DOCS / "fused-training.md").write_text(page, encoding="utf-8")
    print(page)


def _rows(name: str, pairs: list[dict[bool, Found]]) -> Iterator[str]:
    ratios = [pair[True].seconds / pair[False].seconds for pair in pairs]
    losses = [abs(pair[True].loss / pair[False].loss - 1) for pair in pairs]
    told = {
        False: ["1", ""],
        True: [f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", f"{max(losses):.1g}"],
    }
    for fused, label in ((False, "Brevitas' own"), (True, "one operator each")):
        accuracies = [_spread([getattr(pair[fused], key) for pair in pairs]) for key in ("clean", "faulty")]
        yield f"| {' | '.join([name, label, *accuracies, *told[fused]])} |"


def _pairs(rate: float, settings: dict[str, Any]) -> Iterator[dict[bool, Found]]:
    """Both trainings of each seed, by whether quantizers are one operator each."""
    faults = tuple(ScheduledFault(fault=fault, schedule=RAMP) for fault in bit_errors(rate))
    for seed in TRAINING_SEEDS:
        order = (True, False) if seed % 2 else (False, True)
        yield {fused: _trained(rate, TrainConfig(seed=seed, fused=fused, faults=faults, **settings)) for fused in order}


def _trained(rate: float, config: TrainConfig) -> Found:
    data, network = digits(), build(config.network, seed=config.seed, **config.network_args)
    start = time.process_time()
    history = train(network, data, config)
    seconds = time.process_time() - start
    trials = evaluate(network, data.test_x, data.test_y, bit_errors(rate), seeds=FAULT_SEEDS)
    return Found(100 * trials.golden_accuracy, 100 * trials.mean, history[-1].loss, seconds)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
