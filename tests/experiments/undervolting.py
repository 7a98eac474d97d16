"""Accuracy of the digits network in undervolted block RAM: drawn and measured maps against independent cells.

Run as `python -m tests.experiments.undervolting`; it writes docs/undervolting.md and docs/undervolting.png. The rows of
the measured device need the study's dumps, in the folder that the variable HWFAULT_DATA names.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from hwfault.campaigns.evaluate import evaluate
from hwfault.devices.dumps import load_dump
from hwfault.laws.models import FaultModel, MapFaults, ProfileFaults
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import Independent
from hwfault.stream.mapping import Linear
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits

NAME = "bram28-kintex7-kc705b-undervolt"
VOLTAGES = (0.60, 0.59, 0.58, 0.57, 0.56, 0.55, 0.54, 0.53)
MEASURED = {0.56: "KC705B-0.56.bin", 0.53: "KC705B-0.53.bin"}
DEVICES = range(200)
ROWS, BLOCKS_APART = 1024, 4
BYTES = Linear(row_bits=8)  # the distinct bits of the dumps' words
DOCS = Path(__file__).parents[2] / "docs"


class Row(NamedTuple):
    """A kind of map at a voltage: accuracy and share of changed predictions under each map, in percent."""

    kind: str
    voltage: float
    accuracy: list[float]
    changed: list[float]


def main() -> None:
    torch.set_num_threads(1)  # a small network
    data, config = digits(), TrainConfig()
    network = build(config.network, seed=config.seed)
    train(network, data, config)
    x, labels = data.test_x, data.test_y
    with torch.no_grad():
        golden = network(x).argmax(1)

    def measure(faults: Sequence[FaultModel], seeds: Sequence[int] = DEVICES) -> tuple[list[float], list[float]]:
        right, same = (evaluate(network, x, y, faults, seeds=seeds).accuracies for y in (labels, golden))
        return [100 * a for a in right], [100 * (1 - a) for a in same]

    rows: list[Row] = []
    for voltage in VOLTAGES:
        clustered = ProfileFaults(profile=NAME, at={"voltage_v": voltage})
        alone = clustered.model_copy(update={"spatial": Independent()})
        rows.append(Row("clustered, drawn from the profile", voltage, *measure([clustered])))
        rows.append(Row("independent cells of equal rate", voltage, *measure([alone])))
    if folder := os.environ.get("HWFAULT_DATA"):
        for voltage, name in MEASURED.items():
            rows.append(Row("measured map", voltage, *_placed(Path(folder) / name, measure)))
    _write(rows)
    _draw(rows)


Measure = Callable[[Sequence[FaultModel], Sequence[int]], tuple[list[float], list[float]]]


def _placed(dump: Path, measure: Measure) -> tuple[list[float], list[float]]:
    """The network at many places of the measured device, one after the other."""
    measured = load_dump(dump)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "device.safetensors"
        measured.map.save(path)
        blocks = measured.map.words // ROWS - 13  # the network fills 13 of them
        places = [MapFaults(file=str(path), first_row=ROWS * b, mapping=BYTES) for b in range(0, blocks, BLOCKS_APART)]
        found = [measure([place], [0]) for place in places]
    return [right[0] for right, _ in found], [changed[0] for _, changed in found]


def _write(rows: list[Row]) -> None:
    profile = Profile.load(NAME)
    lines = [
        "# The digits network in undervolted block RAM",
        "",
        f"Weights of 4 bits in the block RAM of `{NAME}`, below its safe voltage:",
        f"{len(DEVICES)} drawn devices with the profile's clustered cells, as many with independent cells of the same",
        "rate, and the network at every 4th place of the one measured device. Accuracy on 360 test images (mean and",
        "least), and the share of images whose predicted class changes. `make experiments` makes this page.",
        "",
        "At the last voltage before the crash about 16 of the 100,000 bits are stuck at 0, which hardly moves the",
        "mean. What clustering changes is the spread: more networks are untouched, and the worst are hit harder.",
        "The pattern was measured at 0.53 V and holds there only: above it drawn devices have too many faulty blocks",
        "(at 0.54 V 19 % where 13 % were measured).",
        "",
        "![Accuracy and changed predictions against voltage](undervolting.png)",
        "",
        "| voltage | cells faulty | maps | accuracy | least | untouched | changed, mean | worst 5 % | worst |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (-row.voltage, row.kind)):
        rate = profile.resolve_rate({"voltage_v": row.voltage}).value
        changed = np.array(row.changed)
        cells = (
            f"{row.voltage:.2f} V",
            f"{rate:.2g}",
            row.kind,
            f"{np.mean(row.accuracy):.2f} %",
            f"{min(row.accuracy):.1f} %",
            f"{np.mean(changed < 1e-9):.0%}",
            f"{changed.mean():.3f} %",
            f"{np.quantile(changed, 0.95):.1f} %",
            f"{changed.max():.1f} %",
        )
        lines.append(f"| {' | '.join(cells)} |")
    (DOCS / "undervolting.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw(rows: list[Row]) -> None:
    figure = Figure(figsize=(9, 4.2), dpi=150, layout="constrained")
    accuracy, changed = figure.subplots(1, 2)
    styles = {"clustered": ("#d55e00", "o-"), "independent": ("#0072b2", "s-"), "measured": ("#000000", "D")}
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = sorted((row for row in rows if row.kind == kind), key=lambda row: row.voltage)
        colour, marker = styles[kind.split()[0].rstrip(",")]
        x = [row.voltage for row in mine]
        accuracy.plot(x, [np.mean(row.accuracy) for row in mine], marker, color=colour, label=f"{kind}: mean")
        accuracy.plot(x, [min(row.accuracy) for row in mine], marker[0] + ":", color=colour, mfc="none", label="least")
        changed.plot(x, [np.mean(row.changed) for row in mine], marker, color=colour, label=f"{kind}: mean")
        changed.plot(x, [max(row.changed) for row in mine], marker[0] + ":", color=colour, mfc="none", label="most")
    accuracy.set(xlabel="VCCBRAM (V)", ylabel="accuracy (%)", title="accuracy")
    changed.set(xlabel="VCCBRAM (V)", ylabel="of the test images (%)", title="changed predictions")
    for axes in (accuracy, changed):
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
    accuracy.legend(fontsize=8, loc="lower left")
    figure.savefig(DOCS / "undervolting.png")


if __name__ == "__main__":
    main()
