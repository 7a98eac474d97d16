"""Tables of single cells: from records, or from a CSV file, which is hostile until it was read."""

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from hwfault.errors import FileError, nearest
from hwfault.records import Record
from hwfault.stream.fault_map import Kind

Ints = NDArray[np.int64]

LARGEST_TABLE = 1 << 25
"""The bytes of the largest file that is taken for a table of cells."""
NO_NUMBER = -1
"""What stands for a sample or step that is not given."""
KINDS = {"flip": Kind.FLIP, "stuck_0": Kind.STUCK_AT_0, "stuck_1": Kind.STUCK_AT_1}
"""What a cell does, by the words for it."""

_NEEDED, _OPTIONAL = ("site", "word", "bit", "kind"), ("sample", "step")
_COLUMNS = (*_NEEDED, *_OPTIONAL)
_LINE = "site,word,bit,kind[,sample][,step]"
_NUMBER = re.compile(r"[0-9]{1,18}")
_MOST_SAMPLES = 1 << 32
_LONGEST_TRIAL = 64
_LONGEST_NAME, _LONGEST_LINE, _MOST_NAMES = 1000, 4096, 1 << 16


class Cell(Record):
    """One faulty bit: of word `word` (in C order within a sample) of a site, bit 0 being the lowest.

    It flips, or is stuck at 0 or 1, in every sample; or in the one `sample` of that number, of a weight or bias in the
    one training `step`, which is 0 in evaluation.
    """

    site: Annotated[str, Field(min_length=1)]
    word: Annotated[StrictInt, Field(ge=0, lt=1 << 36)]
    bit: Annotated[StrictInt, Field(ge=0, lt=32)]
    kind: Literal["flip", "stuck_0", "stuck_1"]
    sample: Annotated[StrictInt, Field(ge=0, lt=1 << 32)] | None = None
    step: Annotated[StrictInt, Field(ge=0, lt=1 << 32)] | None = None


class CellTable(NamedTuple):
    """Cells in columns of one length: `site` is an index into `names`, `kind` a value of Kind, `place` where it stands.

    `sample` and `step` are NO_NUMBER where they are not given. `source` says in words what the places are counted in.
    """

    source: str
    names: tuple[str, ...]
    site: Ints
    word: Ints
    bit: Ints
    kind: Ints
    sample: Ints
    step: Ints
    place: Ints

    def where(self, row: int) -> str:
        """Where a cell stands, in words."""
        return f"{self.source} {self.place[row]}"


class TrialTable(NamedTuple):
    """Cells of several trials: `trial` says of each row which of `names` it is of, in the order of their first rows."""

    names: tuple[str, ...]
    trial: Ints
    cells: CellTable


class _Rows:
    """Rows of a table that grows."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._names: dict[str, int] = {}
        self._numbers = array("q")

    def add(self, site: str, *numbers: int) -> None:
        """Adds word, bit, kind, sample, step and place of a cell."""
        self._numbers.extend((self._names.setdefault(site, len(self._names)), *numbers))

    def table(self) -> CellTable:
        columns = np.frombuffer(self._numbers, np.int64).reshape(-1, len(_COLUMNS) + 1).T.copy()
        return CellTable(self._source, tuple(self._names), *columns)


def table_of(cells: Sequence[Cell]) -> CellTable:
    """The table of cells that are given one by one, which are counted from 0."""
    rows = _Rows("cell")
    for place, cell in enumerate(cells):
        numbers = (NO_NUMBER if number is None else number for number in (cell.sample, cell.step))
        rows.add(cell.site, cell.word, cell.bit, KINDS[cell.kind], *numbers, place)
    return rows.table()


def read_table(content: bytes, source: str) -> CellTable:
    """The table in a CSV file with the columns site, word, bit and kind, and perhaps sample and step, in any order.

    Lines that are empty or begin with # are left out, and an empty sample or step is none. Raises FileError with the
    line for anything else.
    """
    rows = _Rows(f"{source}: line")
    for line, given in _given_lines(content, source, ()):
        rows.add(*_cell(f"{source}: line {line}", given), line)
    return _few_names(rows.table(), source)


def read_trials(content: bytes, source: str) -> TrialTable:
    """The trials in a CSV file as `read_table` reads it, which has a column `trial`, too.

    Rows with the same text there are one trial, whether or not they stand together. Raises FileError as `read_table`.
    """
    rows = _Rows(f"{source}: line")
    trials: dict[str, int] = {}
    of = array("q")
    for line, given in _given_lines(content, source, ("trial",)):
        where = f"{source}: line {line}"
        name = given["trial"]
        if not 0 < len(name) <= _LONGEST_TRIAL:
            raise FileError(f"{where}: the trial has {len(name)} characters, expected 1 to {_LONGEST_TRIAL}")
        rows.add(*_cell(where, given), line)
        of.append(trials.setdefault(name, len(trials)))
    if not trials:
        raise FileError(f"{source}: no trial behind the header, expected at least one")
    return TrialTable(tuple(trials), np.frombuffer(of, np.int64).copy(), _few_names(rows.table(), source))


def _few_names(table: CellTable, source: str) -> CellTable:
    """The table; raises FileError for one with too many sites."""
    if len(table.names) > _MOST_NAMES:
        raise FileError(f"{source}: names {len(table.names)} sites, expected at most {_MOST_NAMES}")
    return table


def _given_lines(content: bytes, source: str, more: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(number, fields by column) of the lines behind the header, which has the columns `more`, too."""
    told = ",".join([*more, _LINE])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(f"{source}: line {line}: not UTF-8 text, expected a CSV table {told}") from None
    header: list[str] | None = None
    for line, fields in _lines(text, source, told):
        where = f"{source}: line {line}"
        if header is None:
            header = _header(where, fields, more, told)
        else:
            yield line, _named(where, header, fields)
    if header is None:
        raise FileError(f"{source}: no header, expected the line {told}")


def _lines(text: str, source: str, told: str) -> Iterator[tuple[int, list[str]]]:
    """(number, fields without spaces around them) of the lines that say something."""
    for number, line in enumerate(StringIO(text, newline=None), 1):
        if len(line) > _LONGEST_LINE:  # before its fields take memory
            raise FileError(
                f"{source}: line {number}: {len(line)} characters, expected a CSV table {told} with lines of at most "
                f"{_LONGEST_LINE}"
            )
        if line.isspace() or line.lstrip().startswith("#"):
            continue
        try:
            fields = next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise FileError(f"{source}: line {number}: {error}, expected a CSV table {told}") from None
        stripped = [field.strip() for field in fields]
        if any(stripped):
            yield number, stripped


def _header(where: str, names: list[str], more: tuple[str, ...], told: str) -> list[str]:
    columns = (*more, *_COLUMNS)
    for name in names:
        if name not in columns:
            raise FileError(f"{where}: unknown column {name[:40]!r}: {nearest(name[:40], columns)}")
    if not {*more, *_NEEDED} <= set(names) or len(set(names)) != len(names):
        raise FileError(f"{where}: the columns {', '.join(names)}, expected {told}, each once")
    return names


def _named(where: str, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise FileError(f"{where}: {len(fields)} values, expected {len(header)} ({', '.join(header)})")
    return dict(zip(header, fields, strict=True))


def _cell(where: str, given: dict[str, str]) -> tuple[str, int, int, int, int, int]:
    """Site, word, bit, kind, sample and step of a line."""
    site, kind = given["site"], given["kind"]
    if not 0 < len(site) <= _LONGEST_NAME:
        raise FileError(f"{where}: the name of a site has {len(site)} characters, expected 1 to {_LONGEST_NAME}")
    if kind not in KINDS:
        raise FileError(f"{where}: the kind {kind[:40]!r}: {nearest(kind[:40], KINDS)}")
    word, bit = (_number(where, name, given[name]) for name in ("word", "bit"))
    sample, step = (_sample(where, name, given.get(name, "")) for name in _OPTIONAL)
    return site, word, bit, KINDS[kind], sample, step


def _sample(where: str, name: str, text: str) -> int:
    number = _number(where, name, text) if text else NO_NUMBER
    if number >= _MOST_SAMPLES:
        raise FileError(f"{where}: {text} as {name}, expected 0 to 2^32 - 1")
    return number


def _number(where: str, name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise FileError(f"{where}: {text[:40]!r} as {name}, expected a whole number from 0 on")
    return int(text)
