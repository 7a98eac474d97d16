"""Processes of a site, described by the numbers of the specification, and the fault programs they become."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hwfault.stream.tables import accepts, encode_table, size_table

VECTORS = json.loads((Path(__file__).parents[2] / "stream" / "vectors.json").read_text(encoding="utf-8"))
ALL = 1 << 22


@dataclass(frozen=True)
class Bit:
    """Bit flips: (h, accept01, accept10) for each plane."""

    site: int
    planes: tuple[tuple[float, int, int], ...]

    def program(self) -> tuple[int, ...]:
        body = [x for h, accept01, accept10 in self.planes for x in (accept01, accept10, *encode_table(h))]
        return (0, self.site, len(body), *body)


@dataclass(frozen=True)
class Cluster:
    """Clusters: the axis ("bit" or "word"), the size thresholds C, and h for each plane."""

    site: int
    axis: str
    thresholds: tuple[int, ...]
    rates: tuple[float, ...]

    def program(self) -> tuple[int, ...]:
        tables = [x for h in self.rates for x in encode_table(h)]
        body = [int(self.axis == "word"), len(self.thresholds), *self.thresholds, *tables]
        return (1, self.site, len(body), *body)


@dataclass(frozen=True)
class Mask:
    """Words XORed with a constant."""

    site: int
    rate: float
    mask: int

    def program(self) -> tuple[int, ...]:
        body = (self.mask, *encode_table(self.rate))
        return (2, self.site, len(body), *body)


@dataclass(frozen=True)
class Random:
    """Words replaced by another code."""

    site: int
    rate: float

    def program(self) -> tuple[int, ...]:
        body = encode_table(self.rate)
        return (3, self.site, len(body), *body)


Process = Bit | Cluster | Mask | Random


def program(processes: Sequence[Process]) -> tuple[int, ...]:
    """The fault program of several processes."""
    return tuple(x for process in processes for x in process.program())


def symmetric(site: int, rates: Sequence[float]) -> Bit:
    """Flips in both directions, one rate for each plane."""
    return Bit(site, tuple((h, ALL, ALL) for h in rates))


@cache
def vector_process(index: int) -> Process:
    """The process of case `index` of vectors.json."""
    case: dict[str, Any] = VECTORS["cases"][index]
    site = case["site_number"]
    if case["kind"] == "bit":
        return Bit(site, tuple(accepts(p01, p10) for p01, p10 in zip(case["p01"], case["p10"], strict=True)))
    if case["kind"] == "cluster":
        return Cluster(site, case["axis"], size_table(case["sizes"]), tuple(case["p"]))
    return Mask(site, case["p"], case["mask"]) if case["kind"] == "mask" else Random(site, case["p"])
