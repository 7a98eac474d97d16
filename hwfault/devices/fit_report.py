"""A fit in words and as data."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hwfault.devices.crowding import STATISTICS, Statistics, Test, interval, statistics
from hwfault.devices.dumps import Measurement
from hwfault.devices.fit import Fit, rate
from hwfault.devices.holding import point_text
from hwfault.profiles.curve import point_interval
from hwfault.profiles.rates import RatePoint
from hwfault.stream.fault_map import Kind

_READS = {Kind.STUCK_AT_0: "a 1 reads 0", Kind.STUCK_AT_1: "a 0 reads 1", Kind.FLIP: "flip"}


def summary(found: Fit, drawn: Sequence[Statistics] = ()) -> list[str]:
    """The fit in sentences, a paragraph each; with the statistics of drawn devices, how these compare."""
    paragraphs = [
        _dumps(found),
        _curve(found),
        _persistence(found),
        _blocks(found),
        _columns(found),
        _independence(found),
    ]
    paragraphs.append(_bits(found))
    if drawn:
        paragraphs.append(_comparison(found, drawn))
    return ["\n".join(paragraph) for paragraph in paragraphs]


def _dumps(found: Fit) -> Iterator[str]:
    for m in found.measurements:
        faults = _faults(m)
        listed = ""
        if m.listed > faults:
            listed = f" ({m.listed:,} listed among {m.listed_cells:,}: each is there twice)"
        yield f"{m.file}{_at(m)}: {faults:,} faulty cells of {m.cells:,}{listed}; {_kinds(m)}"


def _faults(m: Measurement) -> int:
    return sum(m.by_kind())


def _at(m: Measurement) -> str:
    return f" at {point_text(m.at)}" if m.at else ""


def _kinds(m: Measurement) -> str:
    """How many faults of each kind there are; kinds that the pattern written could not show are left out."""
    seen = m.observable
    by_kind = m.by_kind()
    told = [kind for kind in Kind if kind in seen or by_kind[kind]]
    counts = ", ".join(f"{_READS[kind]} {by_kind[kind]:,}" for kind in told)
    hidden = [_READS[kind] for kind in (Kind.STUCK_AT_0, Kind.STUCK_AT_1) if kind not in seen]
    if hidden:
        return f"{counts} (whether {hidden[0]} could not be seen)"
    return counts


def _curve(found: Fit) -> Iterator[str]:
    curve = found.profile.rate
    for point in curve.points:
        low, high = point_interval(curve, point) or (0.0, 1.0)
        bound = "at most " if point.upper_bound else ""
        text = f"rate at {point.place()}: {bound}{curve.drawn(point):.4g} of the cells (95 %, were faults independent: "
        yield f"{text}{low:.3g} to {high:.3g})"


def _persistence(found: Fit) -> Iterator[str]:
    for p in found.persisting:
        share = f" ({p.again / p.faults:.1%})" if p.faults else ""
        yield f"{p.again:,} of the {p.faults:,} faults of {p.milder} are in {p.harsher} as well{share}"
    assumed = "" if found.persisting else " (assumed)"
    yield f"persistence: {found.profile.persistence.kind}{assumed}"


def _blocks(found: Fit) -> Iterator[str]:
    b = found.blocks
    m = found.harshest
    yield (
        f"blocks of {m.block_rows:,} rows x {m.row_bits} bits: {b.faulty:,} of {len(b.counts):,} have a fault; mean "
        f"{b.mean:.4g}, variance {b.variance:.4g}, most {b.counts.max(initial=0):,}"
    )
    k = "none (no more than by chance)" if b.dispersion is None else f"{b.dispersion:.3g}"
    yield f"negative-binomial dispersion k, by moments: {k}"
    five = b.share_of_top(0.05)
    ten = b.share_of_top(0.1)
    yield f"the worst 5 % of the blocks hold {five:.1%} of the faults, the worst 10 % {ten:.1%}"


def _columns(found: Fit) -> Iterator[str]:
    c = found.columns
    where = "block, bit"
    if c.period > 1:
        where += f", row modulo {c.period}"
    faulty = int((c.counts > 0).sum())
    yield (
        f"columns ({where}): {faulty:,} of {len(c.counts):,} have a fault; {c.clustered:,} with "
        f"{c.least} or more hold {c.share:.1%} of the faults, {c.lone_share:.1%} are alone in theirs"
    )


def _independence(found: Fit) -> Iterator[str]:
    verdict = "would explain the counts of blocks" if found.independent else "are REJECTED"
    yield f"independent cells {verdict}: index of dispersion {_test(found.independence)}"
    yield f"spatial pattern: {found.profile.spatial.kind}"


def _test(test: Test) -> str:
    p = f"p = {test.p:.2g}" if test.p > 0 else "p < 1e-300"  # the smallest double is not far below
    return f"{test.statistic:,.4g}, chi-squared with {test.freedom:,} degrees of freedom, {p}"


def _bits(found: Fit) -> Iterator[str]:
    b = found.bits
    yield f"bit positions, lowest first: {' '.join(map(str, b.counts.tolist()))}"
    yield f"all alike, if faults were independent: {_test(b.naive)}"
    yield f"corrected for faults that share columns (design effect {b.design_effect:.3g}): {_test(b.test)}"
    yield "bit weights: " + ("fitted" if b.differ else "none, the difference is no more than chance")


def _comparison(found: Fit, drawn: Sequence[Statistics]) -> Iterator[str]:
    yield f"{len(drawn)} devices drawn from the fitted profile, mean and central 98 %, beside the measured one:"
    for row in compared(found, drawn):
        low, high = row["interval"]
        line = f"  {row['what']:<44} {row['measured']:10.4g}   drawn {row['mean']:8.4g}  [{low:.4g}, {high:.4g}]"
        yield line if row["inside"] else f"{line}   OUTSIDE"


def compared(found: Fit, drawn: Sequence[Statistics]) -> list[dict[str, Any]]:
    """Each statistic of the measured device beside drawn ones: mean, central 98 %, and whether it lies inside.

    A dispersion is left out where some device's counts vary no more than by chance.
    """
    measured = statistics(found.blocks, found.columns)
    rows: list[dict[str, Any]] = []
    for key, (what, _) in STATISTICS.items():
        values = [one[key] for one in drawn]
        if not np.isfinite([*values, measured[key]]).all():
            continue
        low, high = interval(values)
        row = {
            "statistic": key,
            "what": what,
            "measured": measured[key],
            "mean": sum(values) / len(values),
            "interval": [low, high],
            "inside": low <= measured[key] <= high,
        }
        rows.append(row)
    return rows


def as_data(found: Fit, drawn: Sequence[Statistics] = ()) -> dict[str, Any]:
    """The same as plain data, for JSON."""
    b = found.blocks
    c = found.columns
    bits = found.bits
    # JSON has no infinity, which a dispersion may be
    counted = {key: value if np.isfinite(value) else None for key, value in statistics(b, c).items()}
    return {
        "dumps": [_dump_data(m) for m in found.measurements],
        "points": [_point_data(p) for p in found.profile.rate.points],
        "persisting": [vars(p) for p in found.persisting],
        "blocks": {"n": len(b.counts), "faulty": b.faulty, "mean": b.mean, "variance": b.variance},
        "columns": {"n": len(c.counts), "period": c.period, "at_least": c.least, "clustered": c.clustered},
        "statistics": counted,
        "independence": vars(found.independence) | {"independent": found.independent},
        "bits": {"counts": bits.counts.tolist(), "naive": vars(bits.naive), "corrected": vars(bits.test)},
        "drawn": compared(found, drawn) if drawn else [],
        "profile": found.profile.model_dump(mode="json"),
    }


def _dump_data(m: Measurement) -> dict[str, Any]:
    faults, cells = rate(m)
    flip, at_0, at_1 = m.by_kind()
    return {
        "source": m.source,
        "at": dict(m.at),
        "faults": faults,
        "rate": faults / cells,
        "flip": flip,
        "stuck_at_0": at_0,
        "stuck_at_1": at_1,
        "rows": m.rows,
        "row_bits": m.row_bits,
        "cells": m.cells,
        "listed": m.listed,
        "listed_cells": m.listed_cells,
    }


def _point_data(point: RatePoint) -> dict[str, Any]:
    return {"at": dict(point.at), "n_faults": point.n_faults, "n_bits": point.n_bits, "rate": point.measured}
