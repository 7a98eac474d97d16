"""Graphs of exporters that hwfault does not control: what of each is struck, what is not, and what keeps the faults.

Run as `python -m tests.experiments.exporters`; it writes docs/exporters.md.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from tests.experiments.undervolting import DOCS
from tests.helpers.graph.exporters import examined
from tests.helpers.graph.exporters.table import CASES
from tests.helpers.graph.exporters.transformations import TRANSFORMATIONS

SIGNS = {"kept": "kept", "nothing to do": "same graph", "refused": "refused", "not possible": "fails", "WRONG": "WRONG"}

PAGE = """\
# Graphs of other exporters

{count} small graphs that exporters write which hwfault does not control, each made from code when the tests run
(`tests/graph/test_exporters.py`). This page is what they measure; `python -m tests.experiments.exporters` makes it.

## What is struck

A session without faults and without onnxruntime's fusions was compared with an oracle: for QONNX qonnx's executor, as a
whole and to the bit; for ONNX' own integers onnx's reference evaluator in float64, or NumPy on integers, node by node.

* *Rounded*: numbers, among all that the nodes make, where a sum or product was rounded to another float, or a tie fell
  the other way. All others are equal to the bit.
* *Fused*: outputs that change once onnxruntime fuses layers, and by how much of the largest: its own affair.
* *Sites*: activations / weights / biases / accumulators. They and the *obstacles* are those that a count of the tests'
  own finds.
* *Farthest*: of its sites, how many standard errors the measured rate is at most from BER {ber:g} over {seeds} seeds.
  One or two of {sites} sites are expected beyond 3 by chance: what was (`*`) was measured again with other seeds.
* *Batch*: outputs of a batch of 8 that differ by more than the rounding of a sum from those of 8 batches of one: the
  graph works its scales out from the batch. The faults are the same everywhere.

| exporter | graph | sites | obstacles | rounded | fused | farthest | batch |
|---|---|---|---|---|---|---|---|
{graphs}

In all of them `strip` gives the graph before back, byte for byte.

## What is an obstacle

| why | graphs |
|---|---|
{obstacles}

## Which transformation keeps the faults

Faults were put into each graph, which was then transformed. *Kept*: `plan_of` reads the plan, and the same bits flip at
each site. *Same graph*: nothing to do. *Refused*: hwfault says in a sentence that the faults are not those of the plan
any more. *Fails*: the transformation does not take the graph.

| transformation | kept | same graph | refused | fails |
|---|---|---|---|---|
{transformations}

What is refused, and what fails:

| transformation | what | graphs | why |
|---|---|---|---|
{refused}
"""


def main() -> None:
    """Measures and writes the page."""
    rows, obstacles, sites = [], defaultdict(list), 0
    for name in CASES:
        row, count = _row(name)
        rows.append(row)
        sites += count
        for why in set(map(_kind_of, examined.struck(name).found.obstacles.values())):
            obstacles[why].append(name)
    outcomes = {t: {name: examined.transformed(name, t) for name in CASES} for t in TRANSFORMATIONS}
    text = PAGE.format(
        count=len(CASES),
        seeds=len(examined.SEEDS),
        ber=examined.PROBABILITY,
        sites=sites,
        graphs="\n".join(rows),
        obstacles="\n".join(f"| {why} | {len(names)} |" for why, names in sorted(obstacles.items())),
        transformations="\n".join(_summary(t, found.values()) for t, found in outcomes.items()),
        refused="\n".join(_refused(outcomes)),
    )
    (DOCS / "exporters.md").write_text(text, encoding="utf-8")


def _row(name: str) -> tuple[str, int]:
    """A row of the first table, and how many sites were measured."""
    agreement, complete = examined.agreement(name), examined.completeness(name)
    rates, batches = examined.rates(name), examined.batches(name)
    kinds = complete.kinds
    shown = [kinds["activation"] + kinds["input"], kinds["weight"], kinds["bias"], kinds["accumulator"]]
    farthest = max(rates.values(), key=lambda rate: abs(rate.errors))
    again = "*" if any(rate.again for rate in rates.values()) else ""
    cells = [
        CASES[name].exporter,
        name.partition(": ")[2],
        " / ".join(map(str, shown)),
        complete.obstacles,
        _share(agreement.rounded, agreement.of),
        _fused(agreement),
        f"{farthest.errors:+.1f}{again}",
        _share(batches.unexplained, batches.outputs),
    ]
    return f"| {' | '.join(map(str, cells))} |", len(rates)


def _share(some: int, of: int) -> str:
    return f"{some:,} of {of:,}" if some else "0"


def _fused(agreement: examined.Agreement) -> str:
    """What changes under onnxruntime's fusions, and by how much of the largest output."""
    if agreement.fused is None:
        return "not loaded"
    by = f" ({agreement.largest:.1g})" if agreement.fused else ""
    return _share(agreement.fused, agreement.outputs) + by


def _kind_of(why: str) -> str:
    """A reason without the names in it."""
    return re.sub(r"'[^']*'", "...", why).replace("|", "/")


def _summary(transformation: str, found: Iterable[examined.Transformed]) -> str:
    counts = Counter(entry.outcome for entry in found)
    cells = [counts[outcome] for outcome in ("kept", "nothing to do", "refused", "not possible")]
    return f"| {transformation} | {' | '.join(map(str, cells))} |"


def _refused(outcomes: dict[str, dict[str, examined.Transformed]]) -> Iterable[str]:
    """The reasons of a transformation, and how many graphs have each."""
    for transformation, found in outcomes.items():
        reasons: Counter[tuple[str, str]] = Counter()
        for entry in found.values():
            if entry.outcome in ("refused", "not possible", "WRONG"):
                reasons[SIGNS[entry.outcome], _kind_of(entry.why)[:160]] += 1
        for (what, why), count in reasons.most_common():
            yield f"| {transformation} | {what} | {count} | {why} |"


if __name__ == "__main__":
    main()
