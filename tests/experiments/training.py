"""Fault-aware training on the digits: four ways to train, two bit widths, two bit error rates, five training seeds.

Run as `python -m tests.experiments.training`; it writes docs/training.csv, docs/training.md and docs/training.png.
"""

import csv
import io
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import track

from hwfault.campaigns.evaluate import evaluate
from hwfault.laws.models import bit_errors
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits
from tests.experiments.undervolting import DOCS

Found = tuple[float, float, float]
"""Mean, least and most of the training seeds."""
BITS, RATES = (4, 8), (0.01, 0.03)
TRAINING_SEEDS = tuple(range(5))
FAULT_SEEDS = tuple(range(1000, 1020))
RAMP_EPOCHS = 13
WAYS: dict[str, dict[str, Any]] = {
    "clean training": {},
    "zero": {"gradient": "zero"},
    "straight_through": {"gradient": "straight_through"},
    "averaged loss": {"gradient": "straight_through", "loss_on": "average"},
}
COLOURS = ("#555555", "#0072b2", "#d55e00", "#009e73")


class Run(NamedTuple):
    """One training: how, at which bit width, under which rate (0: clean), with which seed."""

    way: str
    bits: int
    rate: float
    seed: int


class Line(NamedTuple):
    """What one trained network reaches: accuracy without faults, and under faults at a rate (mean of fault seeds)."""

    way: str
    bits: int
    rate: float
    seed: int
    clean: float
    faulty: float


def main() -> None:
    runs = [
        Run(way, bits, rate, seed)
        for way, options in WAYS.items()
        for bits in BITS
        for rate in (RATES if options else (0.0,))
        for seed in TRAINING_SEEDS
    ]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), torch.set_num_threads, (1,)) as pool:
        found = track(pool.imap_unordered(_lines, runs), "training", len(runs))
        lines = sorted(line for each in found for line in each)
    _write_csv(lines)
    _write_page(lines)
    _draw(lines)


def _lines(run: Run) -> list[Line]:
    """Trains one network and measures it at its own rate, or at all rates if it was trained clean."""
    data = digits()
    schedule = {"ramp": "linear", "ramp_epochs": RAMP_EPOCHS}
    faults = [{"fault": fault, "schedule": schedule} for fault in (bit_errors(run.rate) if run.rate else ())]
    config = TrainConfig(network_args={"bits": run.bits}, seed=run.seed, faults=faults, **WAYS[run.way])
    network = build(config.network, seed=run.seed, **config.network_args)
    train(network, data, config)
    rates = (run.rate,) if run.rate else RATES

    def accuracy(rate: float) -> float:
        faults, seeds = (bit_errors(rate), FAULT_SEEDS) if rate else ((), (0,))
        return evaluate(network, data.test_x, data.test_y, faults, seeds=seeds).mean

    clean = accuracy(0.0)
    return [Line(run.way, run.bits, rate, run.seed, clean, accuracy(rate)) for rate in rates]


def _write_csv(lines: list[Line]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Line._fields)
    table.writerows(lines)
    (DOCS / "training.csv").write_text(text.getvalue(), encoding="utf-8")


def _mean_and_range(values: list[float]) -> Found:
    """Mean, least and most, in %: five runs are too few for an interval of the mean that can be relied on."""
    return 100 * float(np.mean(values)), 100 * min(values), 100 * max(values)


def _cells(lines: list[Line]) -> Iterator[tuple[int, float, str, Found, Found]]:
    for bits in BITS:
        for rate in RATES:
            for way in WAYS:
                own = [line for line in lines if (line.bits, line.rate, line.way) == (bits, rate, way)]
                clean, faulty = ([getattr(line, key) for line in own] for key in ("clean", "faulty"))
                yield bits, rate, way, _mean_and_range(clean), _mean_and_range(faulty)


def _write_page(lines: list[Line]) -> None:
    page = [
        "# Fault-aware training pays: the digits",
        "",
        "`digits_cnn` with weights and activations of 4 and 8 bits, trained clean and under bit errors on all weights,",
        f"activations and the input (rate ramped up linearly over the first {RAMP_EPOCHS} of 40 epochs). `zero` and",
        "`straight_through` are what flows back through a faulty word; *averaged loss* is the mean of the loss on the",
        "clean and on the faulty network, straight-through: random bit error training (Stutz et al., *Bit Error",
        "Robustness for Energy-Efficient DNN Accelerators*, MLSys 2021). Accuracy in % on 360 held-out digits: mean",
        f"of {len(TRAINING_SEEDS)} training seeds, with the least and the most; faulty: at the rate of the row, each",
        f"network under {len(FAULT_SEEDS)} fault seeds that no training saw. `make experiments` makes this page,",
        "[the single runs](training.csv) and the picture.",
        "",
        "![Faulty accuracy for each way to train](training.png)",
        "",
        "| bits | BER | training | clean accuracy | faulty accuracy |",
        "|---|---|---|---|---|",
    ]
    for bits, rate, way, *found in _cells(lines):
        accuracies = " | ".join(f"{mean:.1f} ({low:.1f} to {high:.1f})" for mean, low, high in found)
        page.append(f"| {bits} | {rate:g} | {way} | {accuracies} |")
    (DOCS / "training.md").write_text("\n".join(page) + "\n", encoding="utf-8")


def _draw(lines: list[Line]) -> None:
    figure = Figure(figsize=(8, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    groups = [(bits, rate) for bits in BITS for rate in RATES]
    width = 0.8 / len(WAYS)
    for i, (way, colour) in enumerate(zip(WAYS, COLOURS, strict=True)):
        found = [(faulty, clean) for bits, rate, name, clean, faulty in _cells(lines) if name == way]
        places = np.arange(len(groups)) + (i - (len(WAYS) - 1) / 2) * width
        means, least, most = (np.array(column) for column in zip(*(faulty for faulty, _ in found), strict=True))
        axes.bar(places, means, width, yerr=[means - least, most - means], color=colour, label=way, capsize=2)
        axes.scatter(places, [clean[0] for _, clean in found], marker="_", s=120, color="black", zorder=3)
    axes.set_xticks(range(len(groups)), [f"{bits} bit, BER {rate:g}" for bits, rate in groups])
    axes.set(
        ylabel="accuracy under faults (%)",
        ylim=(0, 102),
        title="dashes: without faults; whiskers: least and most of the training seeds",
    )
    axes.legend(loc="lower left", ncols=2)
    figure.savefig(DOCS / "training.png")


if __name__ == "__main__":
    main()
