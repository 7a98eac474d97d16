"""What faults did at one site, as a record: faulty words, flips of each bit plane, how far the integers moved."""

import json
import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator

from hwfault.errors import FileError, ModelError
from hwfault.files import write_atomically
from hwfault.inputs import read_regular
from hwfault.records import Record

_FORMAT = "hwfault-statistics/1"
_LARGEST = 1 << 28
_DERIVED = ("rate", "flips", "rmse", "cosine")

Count = Annotated[int, Field(ge=0)]
Total = Annotated[float, Field(allow_inf_nan=False)]


class ProtectionCounts(NamedTuple):
    """Memory words that were read: corrected, detected but not corrected, and wrong without being detected."""

    corrected: int
    detected: int
    miscorrected: int


class SiteStatistics(Record):
    """What the faults of one site (or of several) did to the words that were seen there, in sums that can be added.

    `ones` and `zeros` count for each bit plane, lowest first, the flips from 0 to 1 and from 1 to 0. `no_numbers` of
    the words held no number but NaN or an infinity, which no fault strikes. The rest are sums over integers, 0 in place
    of those: of the squared change, of squares before and after, and of the product of both.
    """

    site: str
    words: Count = 0
    faulty: Count = 0
    no_numbers: Count = 0
    ones: tuple[Count, ...] = ()
    zeros: tuple[Count, ...] = ()
    squared_change: Total = 0.0
    squares_before: Total = 0.0
    squares_after: Total = 0.0
    products: Total = 0.0

    @model_validator(mode="after")
    def _both_directions(self) -> "SiteStatistics":
        if len(self.ones) != len(self.zeros):
            raise ValueError(f"{len(self.ones)} planes of flips to 1 and {len(self.zeros)} to 0, expected as many")
        return self

    @property
    def rate(self) -> float | None:
        """The share of words that are faulty; None where none was seen."""
        return self.faulty / self.words if self.words else None

    @property
    def flips(self) -> tuple[int, ...]:
        """Flipped bits of each plane, lowest first."""
        return tuple(a + b for a, b in zip(self.ones, self.zeros, strict=True))

    @property
    def rmse(self) -> float | None:
        """The root of the mean squared change over faulty words, in integer units; None where no word is faulty."""
        return math.sqrt(self.squared_change / self.faulty) if self.faulty else None

    @property
    def cosine(self) -> float | None:
        """The cosine similarity of all integers before and after; None where one side is all zeros."""
        if not (self.squares_before and self.squares_after):
            return None
        if not self.faulty:
            return 1.0
        return max(-1.0, min(1.0, self.products / (math.sqrt(self.squares_before) * math.sqrt(self.squares_after))))

    def to_data(self) -> dict[str, Any]:
        """The sums and what follows from them, as JSON tells it; of words without a number only if there are any."""
        sums = self.model_dump(mode="json", exclude=None if self.no_numbers else {"no_numbers"})
        return sums | {key: getattr(self, key) for key in _DERIVED}

    @classmethod
    def from_data(cls, data: Any, source: str = "statistics") -> "SiteStatistics":
        """The record that `to_data` told; raises ModelError for anything else."""
        sums = {k: v for k, v in data.items() if k not in _DERIVED} if isinstance(data, dict) else data
        return cls.parse(sums, source)


def total(records: Iterable[SiteStatistics], site: str = "all sites") -> SiteStatistics:
    """The sums of several records as one; planes are added from the lowest on."""
    found = list(records)
    keys = ("words", "faulty", "no_numbers", "squared_change", "squares_before", "squares_after", "products")
    sums = {key: sum(getattr(record, key) for record in found) for key in keys}
    planes = {
        key: tuple(map(sum, zip_longest(*(getattr(record, key) for record in found), fillvalue=0)))
        for key in ("ones", "zeros")
    }
    return SiteStatistics(site=site, **sums, **planes)


def merged(*parts: Sequence[SiteStatistics]) -> tuple[SiteStatistics, ...]:
    """The statistics of several trials or ranks, site by site, in the order in which sites first occur."""
    found: dict[str, list[SiteStatistics]] = {}
    for record in (record for part in parts for record in part):
        found.setdefault(record.site, []).append(record)
    return tuple(total(records, site) for site, records in found.items())


def table(records: Sequence[SiteStatistics]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people, a row for each site and one for all; flips from the highest plane to the lowest."""
    columns = ["site", "words", "faulty", "rate", "RMSE", "cosine", "flips by bit, highest first"]
    rows = [*records, total(records)] if len(records) != 1 else records
    told = [_row(record) for record in rows]
    if any(record.no_numbers for record in records):
        columns.insert(3, "no number")
        for record, row in zip(rows, told, strict=True):
            row.insert(3, f"{record.no_numbers:,}")
    return columns, told


def _row(record: SiteStatistics) -> list[str]:
    numbers = [(record.rate, ".4%"), (record.rmse, ".3f"), (record.cosine, ".6f")]
    told = ["-" if value is None else format(value, how) for value, how in numbers]
    return [record.site, f"{record.words:,}", f"{record.faulty:,}", *told, " ".join(map(str, reversed(record.flips)))]


def save(path: Path | str, records: Sequence[SiteStatistics]) -> None:
    """Writes statistics as JSON, atomically; `load` gives back the same records. Raises FileError."""
    data = {"format": _FORMAT, "sites": [record.to_data() for record in records]}
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def load(path: Path | str) -> tuple[SiteStatistics, ...]:
    """The statistics in a JSON file that `save` wrote; raises FileError for anything else."""
    try:
        data = json.loads(read_regular(path, _LARGEST, "statistics"))
        if not isinstance(data, dict) or data.keys() != {"format", "sites"} or data["format"] != _FORMAT:
            raise FileError(f"{path}: not statistics of the format {_FORMAT!r}")
        return tuple(SiteStatistics.from_data(site, f"sites.{i}") for i, site in enumerate(data["sites"]))
    except (ModelError, ValueError, TypeError, RecursionError) as error:
        raise FileError(f"{path}: not statistics: {error}") from None
