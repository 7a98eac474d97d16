"""Measured maps: lists of faulty cells, pairs of memory dumps, and the hex dumps of the KC705 study."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwfault.devices import dump_tables, dump_text
from hwfault.devices.device import places
from hwfault.errors import FileError, ModelError, nearest
from hwfault.inputs import read_regular
from hwfault.profiles.library import parse_operating_point
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.mapping import memory_word_bits

Ints = NDArray[np.int64]

FORMATS = ("kc705", "csv", "npz", "pair", "hex_pair", "binary_pair")
"""How dumps are written; a pair's two files are hex text or raw bytes, told by their content under `pair`."""

_LARGEST_FILE = 1 << 30
_PROBE = 4096
_HEX = frozenset(b"0123456789abcdefABCDEF\r\n")
_MOSTLY = 0.7
_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Measurement:
    """The faulty cells of one memory as one measurement found them.

    `held_1` and `held_0` count the cells in which a loss of a 1, and of a 0, could have been seen. `listed` counts each
    fault as often as the file lists it, of `listed_cells`. `at` is the operating point, {} if none was given.
    """

    map: FaultMap
    row_bits: int
    block_rows: int
    held_1: int
    held_0: int
    listed: int
    listed_cells: int
    source: str
    at: Mapping[str, float] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        return self.map.words * self.map.bit_width

    @property
    def rows(self) -> int:
        return self.cells // self.row_bits

    @property
    def file(self) -> str:
        """The file's name, or both of a pair, without folders."""
        return _names(self.source)

    def faults(self) -> tuple[Ints, Ints, Ints]:
        """(row, column, kind) of every faulty cell, ascending."""
        return places(self.map, self.row_bits)

    def by_kind(self) -> tuple[int, int, int]:
        """How many cells flip, are stuck at 0, are stuck at 1."""
        flip, at_0, at_1 = np.bincount(self.faults()[2], minlength=3).tolist()
        return flip, at_0, at_1

    @property
    def observable(self) -> tuple[Kind, ...]:
        """The kinds of faults that could be seen."""
        if self.held_1 and self.held_0:
            return Kind.FLIP, Kind.STUCK_AT_0, Kind.STUCK_AT_1
        # a flip shows only where cells that held a 1 and cells that held a 0 were looked at
        if self.held_1:
            return (Kind.STUCK_AT_0,)
        if self.held_0:
            return (Kind.STUCK_AT_1,)
        return ()


def _names(source: str) -> str:
    return ":".join(Path(part).name for part in source.split(":"))


def _text(at: Mapping[str, float]) -> str:
    return ",".join(f"{axis}={value:g}" for axis, value in at.items())


def parse_dump(text: str) -> tuple[str, dict[str, float]]:
    """`DUMP@axis=value,...` as the file (or `WRITTEN:READ`, a pair of files) and its operating point, {} without one.

    Raises ModelError for an operating point that cannot be read.
    """
    return (text, {}) if Path(text).exists() else parse_operating_point(text)


def load_dump(
    source: Path | str,
    *,
    format: str | None = None,
    rows: int | None = None,
    row_bits: int | None = None,
    block_rows: int | None = None,
    at: Mapping[str, float] | None = None,
) -> Measurement:
    """The measurement of a file, or of a pair `WRITTEN:READ`; the format is told by the content where not named.

    `rows` and `row_bits` are the memory's size: lists of cells need it unless they tell it themselves, pairs have rows
    of 8 bits unless told otherwise, elsewhere it is checked. A block has `block_rows` rows, 1024 if not given.
    Raises FileError for a file that is not what it should be, ModelError for an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise ModelError(f"the format of {source} is {format!r}: {nearest(format, FORMATS)}")
    paths = _paths(str(source), format)
    contents = [_content(path) for path in paths]
    found = _read(str(source), contents, format or _detect(str(source), contents[0], len(paths)), rows, row_bits)
    _check_rows(str(source), found, rows, row_bits)
    # a map has words of at most 32 bits, of which a row takes several: the cells keep their numbers
    width = memory_word_bits(found.row_bits)
    words = found.rows * found.row_bits // width
    cell = found.address * found.row_bits + found.bit
    provenance = {
        "measured": _names(str(source)),
        "row_bits": str(found.row_bits),
        "operating_point": _text(at or {}),
    }
    fault_map = FaultMap.from_cells(words, width, cell // width, cell % width, found.kind, provenance)
    return Measurement(
        map=fault_map,
        row_bits=found.row_bits,
        block_rows=block_rows or min(_BLOCK_ROWS, found.rows),
        held_1=found.held_1,
        held_0=found.held_0,
        listed=found.listed,
        listed_cells=found.listed_cells,
        source=str(source),
        at=dict(at or {}),
    )


def _paths(source: str, format: str | None) -> list[Path]:
    """One file, or the two of a pair."""
    whole = Path(source)
    written, colon, read = source.partition(":")
    if not colon or whole.exists():  # a file's name may have a colon
        if format is not None and format.endswith("pair"):
            raise FileError(f"{source}: one file, expected a pair, WRITTEN:READ, for the format {format!r}")
        return [whole]
    if format is not None and not format.endswith("pair"):
        raise FileError(f"{source}: a pair of files, expected one file for the format {format!r}")
    return [Path(written), Path(read)]


def _content(path: Path) -> bytes:
    return read_regular(path, _LARGEST_FILE, "a dump of a memory")


def _detect(source: str, content: bytes, files: int) -> str:
    if files == 2:
        return "pair"
    probe = content[:_PROBE]
    if probe.startswith(b"PK"):
        return "npz"
    first_line = probe.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0]
    if b"address" in first_line or first_line.startswith(b"#"):
        return "csv"
    # mostly, not all: a dump with a stray character gets the reader's error, which names its line and column
    digits = sum(byte in _HEX for byte in probe)
    if probe and digits >= _MOSTLY * len(probe):
        return "kc705"
    raise FileError(
        f"{source}: not a dump that hwfault knows by its content; expected hex text of the KC705 study, a table of "
        "address,bit,kind (.csv or .npz) or a pair WRITTEN:READ; name its format if it is one of these"
    )


def _read(
    source: str, contents: list[bytes], format: str, rows: int | None, row_bits: int | None
) -> dump_tables.FoundCells:
    if format == "kc705":
        return dump_text.kc705(source, contents[0])
    if format.endswith("pair"):
        written, read = contents
        return dump_text.pair(source, written, read, format, row_bits or 8)
    table = dump_tables.csv if format == "csv" else dump_tables.npz
    return table(source, contents[0], rows, row_bits)


def _check_rows(source: str, found: dump_tables.FoundCells, rows: int | None, row_bits: int | None) -> None:
    for what, given, expected in (("rows", found.rows, rows), ("bits a row", found.row_bits, row_bits)):
        if expected is not None and given != expected:
            raise FileError(f"{source}: a memory of {given} {what}, expected {expected}")
