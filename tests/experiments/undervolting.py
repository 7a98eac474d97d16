"""Accuracy of the digits network in undervolted block RAM: drawn and measured maps against independent cells.

Run as `python -m tests.experiments.undervolting`; it writes docs/undervolting.md and docs/undervolting.png. The rows of
the measured device need the study's dumps, in the folder that the variable HWFAULT_DATA names.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from hwfault.campaign import Trials, evaluate
from hwfault.profiles.dumps import load_dump
from hwfault.profiles.mapping import Linear
from hwfault.profiles.models import FaultModel, MapFaults, ProfileFaults
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import Independent
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits

NAME = "bram28-kintex7-kc705b-undervolt"
VOLTAGES = (0.60, 0.59, 0.58, 0.57, 0.56, 0.55, 0.54, 0.53)
MEASURED = {0.56: "KC705B-0.56.bin", 0.53: "KC705B-0.53.bin"}
DEVICES = range(200)
ROWS, BLOCKS_APART = 1024, 4
BYTES = Linear(row_bits=8)  # the distinct bits of the dumps' words
DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    torch.set_num_threads(1)  # a small network
    data, config = digits(), TrainConfig()
    network = build(config.network, seed=config.seed)
    train(network, data, config)
    clean = evaluate(network, data.test_x, data.test_y, (), seeds=[0]).mean

    def losses(faults: Sequence[FaultModel], seeds: Sequence[int] = DEVICES) -> list[float]:
        trials: Trials = evaluate(network, data.test_x, data.test_y, faults, seeds=seeds)
        return [100 * (clean - accuracy) for accuracy in trials.accuracies]

    rows: list[tuple[str, float, list[float]]] = []
    for voltage in VOLTAGES:
        clustered = ProfileFaults(profile=NAME, at={"voltage_v": voltage})
        alone = clustered.model_copy(update={"spatial": Independent()})
        rows.append(("clustered, drawn from the profile", voltage, losses([clustered])))
        rows.append(("independent cells of equal rate", voltage, losses([alone])))
    if folder := os.environ.get("HWFAULT_DATA"):
        for voltage, name in MEASURED.items():
            rows.append(("measured map", voltage, _placed(Path(folder) / name, losses)))
    _write(rows, clean)
    _draw(rows)


def _placed(dump: Path, losses: "object") -> list[float]:
    """The network at many places of the measured device, one after the other."""
    measured = load_dump(dump)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "device.safetensors"
        measured.map.save(path)
        blocks = measured.map.words // ROWS - 13  # the network fills 13 of them
        places = [MapFaults(file=str(path), first_row=ROWS * b, mapping=BYTES) for b in range(0, blocks, BLOCKS_APART)]
        return [losses([place], [0])[0] for place in places]  # type: ignore[operator]


def _write(rows: list[tuple[str, float, list[float]]], clean: float) -> None:
    profile = Profile.load(NAME)
    lines = [
        "# The digits network in undervolted block RAM",
        "",
        f"Weights of 4 bits in the block RAM of `{NAME}`, below its safe voltage.",
        f"Accuracy lost against the clean {100 * clean:.1f} %, in percentage points: {len(DEVICES)} drawn devices,",
        "or over the places of the one measured device at which the network fits (every 4th block).",
        "`make experiments` makes this page.",
        "",
        "![Loss of accuracy against voltage](undervolting.png)",
        "",
        "| voltage | cells faulty | maps | unharmed | mean loss | worst 5 % lose | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, voltage, lost in sorted(rows, key=lambda row: (-row[1], row[0])):
        rate = profile.resolve_rate({"voltage_v": voltage}).value
        whole = np.mean(np.array(lost) == 0)
        tail = np.quantile(lost, 0.95)
        cells = (
            f"{voltage:.2f} V | {rate:.2g} | {kind} | {whole:.0%} | {np.mean(lost):.2f} | {tail:.1f} | {max(lost):.1f}"
        )
        lines.append(f"| {cells} |")
    (DOCS / "undervolting.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw(rows: list[tuple[str, float, list[float]]]) -> None:
    figure = Figure(figsize=(8, 4.2), dpi=150, layout="constrained")
    mean, worst = figure.subplots(1, 2)
    styles = {"clustered": ("#d55e00", "o-"), "independent": ("#0072b2", "s-"), "measured": ("#000000", "D")}
    for kind in dict.fromkeys(row[0] for row in rows):
        mine = sorted((voltage, lost) for name, voltage, lost in rows if name == kind)
        colour, marker = styles[kind.split()[0].rstrip(",")]
        x = [voltage for voltage, _ in mine]
        mean.plot(x, [np.mean(lost) for _, lost in mine], marker, color=colour, label=kind)
        worst.plot(x, [max(lost) for _, lost in mine], marker, color=colour, label=kind)
    for axes, title in ((mean, "mean over devices or places"), (worst, "the worst of them")):
        axes.set(xlabel="VCCBRAM (V)", ylabel="accuracy lost (percentage points)", title=title)
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
    mean.legend()
    figure.savefig(DOCS / "undervolting.png")


if __name__ == "__main__":
    main()
