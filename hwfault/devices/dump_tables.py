"""Lists of faulty cells: CSV and NPZ of (address, bit, kind)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError, nearest
from hwfault.npz import arrays_in
from hwfault.stream.fault_map import Kind

Ints = NDArray[np.int64]

_KINDS = {kind.name.lower(): int(kind) for kind in Kind} | {str(int(kind)): int(kind) for kind in Kind}
_COLUMNS = ("address", "bit", "kind")
_SIZES = ("rows", "row_bits")
_LARGEST_ARRAYS = 1 << 31
_MOST_CELLS = 1 << 36
_SIZE = re.compile(r"\b(rows|row_bits)\s*[=:]\s*(\d+)")


@dataclass(frozen=True)
class FoundCells:
    """Faulty cells as a file lists them; see `dumps.Measurement` for the counts."""

    address: Ints
    bit: Ints
    kind: Ints
    rows: int
    row_bits: int
    held_1: int
    held_0: int
    listed: int
    listed_cells: int


def place(content: bytes, at: int) -> str:
    """The line and column, from 1, of a byte of a text."""
    line = content.count(b"\n", 0, at) + 1
    column = at - content.rfind(b"\n", 0, at)  # -1 in the first line, which makes its columns count from 1 too
    return f"line {line}, column {column}"


def csv(source: str, content: bytes, rows: int | None, row_bits: int | None) -> FoundCells:
    """A table with the columns address, bit and, unless all are flips, kind; `# rows=N row_bits=M` tells the size.

    `kind` is flip, stuck_at_0 or stuck_at_1, or its number 0, 1, 2. Raises FileError with line and column.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FileError(f"{source}: {place(content, error.start)}: not UTF-8 text, expected a CSV table") from None
    said: dict[str, int] = {}
    for line in lines:
        if line.startswith("#"):
            said.update((name, int(n)) for name, n in _SIZE.findall(line))
    cells = np.array(list(_rows(source, lines)), np.int64).reshape(-1, 3)
    address, bit, kind = cells.T
    return _found(source, (address, bit, kind), rows or said.get("rows"), row_bits or said.get("row_bits"))


def _rows(source: str, lines: list[str]) -> Iterator[tuple[int, int, int]]:
    header: list[str] | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(",")
        if header is None:
            header = _header(source, number, [f.strip() for f in fields])
        else:
            yield _cell(f"{source}: line {number}", header, fields)
    if header is None:
        raise FileError(f"{source}: no header, expected the line address,bit,kind")


def _header(source: str, number: int, names: list[str]) -> list[str]:
    for name in names:
        if name not in _COLUMNS:
            raise FileError(f"{source}: line {number}: unknown column {name!r}: {nearest(name, _COLUMNS)}")
    if not {"address", "bit"} <= set(names) or len(set(names)) != len(names):
        raise FileError(f"{source}: line {number}: the columns {', '.join(names)}, expected address, bit and kind")
    return names


def _cell(where: str, header: list[str], fields: list[str]) -> tuple[int, int, int]:
    if len(fields) != len(header):
        raise FileError(f"{where}: {len(fields)} values, expected {len(header)} ({', '.join(header)})")
    found = {"kind": int(Kind.FLIP)}
    column = 1
    for name, text in zip(header, fields, strict=True):
        found[name] = _value(f"{where}, column {column}", name, text.strip())
        column += len(text) + 1  # the comma
    return found["address"], found["bit"], found["kind"]


def _value(where: str, name: str, text: str) -> int:
    if name == "kind":
        if text not in _KINDS:
            raise FileError(f"{where}: the kind {text!r}: {nearest(text, [k.name.lower() for k in Kind])}")
        return _KINDS[text]
    if not re.fullmatch(r"[0-9]{1,18}|0[xX][0-9a-fA-F]{1,15}", text):
        raise FileError(f"{where}: {text!r} as {name}, expected a whole number (decimal, or hexadecimal with 0x)")
    hexadecimal = text[:2].lower() == "0x"
    return int(text, 16 if hexadecimal else 10)  # not base 0, which refuses 007


def npz(source: str, content: bytes, rows: int | None, row_bits: int | None) -> FoundCells:
    """Arrays address, bit and, unless all are flips, kind (n,), and perhaps rows and row_bits (scalars), all integers.

    Nothing is unpickled, and memory is taken only after the headers fit the content. Raises FileError.
    """
    try:
        arrays = arrays_in(BytesIO(content), (*_COLUMNS, *_SIZES), _LARGEST_ARRAYS)
    except FileError as error:
        raise FileError(f"{source}: {error}") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "iu":
            raise FileError(f"{source}: the array {name} holds {array.dtype}, expected whole numbers")
    for name in ("address", "bit"):
        if name not in arrays:
            raise FileError(f"{source}: no array {name!r}, expected address, bit and kind; it has {', '.join(arrays)}")
    all_flips = np.zeros(arrays["address"].shape)
    columns = [arrays.get(name, all_flips).astype(np.int64) for name in _COLUMNS]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise FileError(f"{source}: arrays of the shapes {[c.shape for c in columns]}, expected one length")
    said = {}
    for name in _SIZES:
        if name in arrays and arrays[name].size:
            said[name] = int(arrays[name].ravel()[0])
    address, bit, kind = columns
    return _found(source, (address, bit, kind), rows or said.get("rows"), row_bits or said.get("row_bits"))


def _found(source: str, columns: tuple[Ints, Ints, Ints], rows: int | None, row_bits: int | None) -> FoundCells:
    address, bit, kind = columns
    if rows is None or row_bits is None:
        raise FileError(
            f"{source}: a list of faulty cells does not tell the memory's size; give --rows and --row-bits, or write "
            "them into the file (# rows=N row_bits=M, or arrays rows and row_bits)"
        )
    for name, values, end in (("address", address, rows), ("bit", bit, row_bits), ("kind", kind, len(Kind))):
        wrong = values[(values < 0) | (values >= end)]
        if len(wrong):
            raise FileError(f"{source}: the {name} {wrong[0]}, expected 0 to {end - 1}")
    cells = rows * row_bits
    if not 0 < cells <= _MOST_CELLS:
        raise FileError(f"{source}: a memory of {rows} rows of {row_bits} bits, expected 1 to {_MOST_CELLS} cells")
    # a list does not say what was written: every cell counts as tested with a 1 and with a 0
    return FoundCells(
        address,
        bit,
        kind,
        rows,
        row_bits,
        held_1=cells,
        held_0=cells,
        listed=len(address),
        listed_cells=cells,
    )
