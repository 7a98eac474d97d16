"""Accuracy of the digits network on an array with stuck processing elements, and with the same elements bypassed.

Run as `python -m tests.experiments.elements`; it writes docs/elements.md and docs/elements.png.
"""

import numpy as np
import torch
from matplotlib.figure import Figure

from hwfault.campaigns.evaluate import evaluate
from hwfault.laws.models import AccumulatorFormat, BypassedElements, FaultModel, StuckElement
from hwfault.stream.mapping import WeightStationary
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits
from tests.experiments.undervolting import DOCS

SIDE, WIDTH, ARRAYS = 16, 24, 20
FAULTY = (1, 2, 4, 8, 16, 32, 64, 128)
ARRAY = WeightStationary(rows=SIDE, columns=SIDE)


def main() -> None:
    torch.set_num_threads(1)  # a small network
    data, config = digits(), TrainConfig()
    network = build(config.network, seed=config.seed)
    train(network, data, config)

    def accuracy(faults: list[FaultModel]) -> float:
        return 100 * evaluate(network, data.test_x, data.test_y, faults, seeds=[0]).mean

    clean, rows = accuracy([]), {}
    for count in FAULTY:
        draws = [faulty_elements(count, seed) for seed in range(ARRAYS)]
        rows[count] = [accuracy(stuck(draw)) for draw in draws], [accuracy(bypassed(draw)) for draw in draws]
    _write(rows, clean)
    _draw(rows, clean)


def faulty_elements(count: int, seed: int) -> list[tuple[int, int, int]]:
    """Different elements of the array, each with the bit that is stuck and what it is stuck at."""
    rng = np.random.default_rng(seed)
    places = rng.choice(SIDE * SIDE, count, replace=False).tolist()
    return list(zip(places, rng.integers(0, WIDTH, count).tolist(), rng.integers(0, 2, count).tolist(), strict=True))


def stuck(draw: list[tuple[int, int, int]]) -> list[FaultModel]:
    elements = [
        StuckElement(element=divmod(place, SIDE), bit=bit, value=value, mapping=ARRAY) for place, bit, value in draw
    ]
    return [AccumulatorFormat(width=WIDTH, mapping=ARRAY), *elements]


def bypassed(draw: list[tuple[int, int, int]]) -> list[FaultModel]:
    return [BypassedElements(elements=tuple(divmod(place, SIDE) for place, _, _ in draw), mapping=ARRAY)]


def _write(rows: dict[int, tuple[list[float], list[float]]], clean: float) -> None:
    lines = [
        "# The digits network on an array with faulty processing elements",
        "",
        f"A {SIDE} x {SIDE} weight-stationary array with registers of {WIDTH} bits. Each faulty element has one random",
        "bit stuck in its register, through which partial sums pass; or it is bypassed, so that the products of its",
        f"weights are dropped, without any retraining. Mean accuracy in % over {ARRAYS} arrays (least to most),",
        f"{clean:.1f} % clean. `make experiments` makes this page.",
        "",
        "![Accuracy against faulty elements](elements.png)",
        "",
        f"| faulty of {SIDE * SIDE} | stuck | bypassed |",
        "|---|---|---|",
    ]
    for count, values in rows.items():
        cells = (f"{np.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in values)
        lines.append(f"| {count} | {' | '.join(cells)} |")
    (DOCS / "elements.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw(rows: dict[int, tuple[list[float], list[float]]], clean: float) -> None:
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, (name, colour, marker) in enumerate((("stuck", "#d55e00", "o"), ("bypassed", "#0072b2", "s"))):
        values = [row[i] for row in rows.values()]
        axes.plot(list(rows), [np.mean(v) for v in values], color=colour, marker=marker, label=name)
        axes.fill_between(list(rows), [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15)
    axes.axhline(clean, color="#888888", linestyle=":", label="no fault")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(rows), [str(count) for count in rows])
    axes.set(xlabel=f"faulty elements of {SIDE * SIDE}", ylabel="accuracy (%)", ylim=(0, 102))
    axes.grid(alpha=0.3)
    axes.legend(title=f"mean and range over {ARRAYS} arrays", loc=(0.62, 0.2))
    figure.savefig(DOCS / "elements.png")


if __name__ == "__main__":
    main()
