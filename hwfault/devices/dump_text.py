"""Memory dumps as hex text or raw bytes: the KC705 study's, and pairs of what was written and what was read."""

import numpy as np
from numpy.typing import NDArray

from hwfault.devices.dump_tables import FoundCells, Ints, place
from hwfault.errors import FileError
from hwfault.stream.fault_map import Kind

Bytes = NDArray[np.uint8]

_NOT_HEX, _BREAK = 255, 254
_WORD_DIGITS, _BLOCK_WORDS = 4, 1024
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


def _digit_table() -> Bytes:
    table = np.full(256, _NOT_HEX, np.uint8)
    for text in (b"0123456789abcdef", b"0123456789ABCDEF"):
        table[list(text)] = np.arange(16)
    table[[10, 13]] = _BREAK
    return table


_DIGITS = _digit_table()


def digits(source: str, content: bytes) -> Bytes:
    """The values of a hex text's digits, line breaks left out; raises FileError for any other character."""
    values = _DIGITS[np.frombuffer(content, np.uint8)]
    wrong = np.flatnonzero(values == _NOT_HEX)
    if len(wrong):
        at = int(wrong[0])
        raise FileError(f"{source}: {place(content, at)}: {chr(content[at])!r}, expected a hexadecimal digit")
    return values[values < _BREAK]


def kc705(source: str, content: bytes) -> FoundCells:
    """A dump of the KC705 study: ASCII hex, 4096 digits a block of 1024 words of 16 bits, all ones but the faults.

    Both bytes of each word are equal, a trap of how the memory was read: 8 bits are kept. Raises FileError.
    """
    found = digits(source, content)
    per_block = _WORD_DIGITS * _BLOCK_WORDS
    if not len(found) or len(found) % per_block:
        raise FileError(
            f"{source}: {len(found)} hexadecimal digits, expected a multiple of {per_block}, {_BLOCK_WORDS} words of "
            f"{_WORD_DIGITS} digits for each block; the nearest are {len(found) // per_block * per_block} and "
            f"{(len(found) // per_block + 1) * per_block}"
        )
    both = _joined(found)
    high = both[::2]
    low = both[1::2]
    _check_doubled(source, high, low)
    # all ones were written, so that a 0 is a fault, and a cell that loses its 0 cannot be seen
    address, bit = _set_bits(~low)
    cells = 8 * len(low)
    faults = len(address)
    kind = np.full(faults, Kind.STUCK_AT_0, np.int64)
    return FoundCells(
        address,
        bit,
        kind,
        rows=len(low),
        row_bits=8,
        held_1=cells,
        held_0=0,
        listed=2 * faults,
        listed_cells=2 * cells,
    )


def _check_doubled(source: str, high: Bytes, low: Bytes) -> None:
    different = np.flatnonzero(high != low)
    if len(different):
        word = int(different[0])
        raise FileError(
            f"{source}: word {word % _BLOCK_WORDS} of block {word // _BLOCK_WORDS} is {high[word]:02X}{low[word]:02X}, "
            "but in dumps of the KC705 study both bytes of each word are equal; give a dump of another kind as a pair "
            "of files, what was written and what was read (WRITTEN:READ)"
        )


def _set_bits(values: Bytes) -> tuple[Ints, Ints]:
    """(index, bit) of every bit that is 1."""
    where = np.flatnonzero(values)  # most bytes have none: only the others are taken apart
    index, bit = np.nonzero(np.unpackbits(values[where, None], axis=1, bitorder="little"))
    return where[index].astype(np.int64), bit.astype(np.int64)


def pair(source: str, written: bytes, read: bytes, format: str, row_bits: int) -> FoundCells:
    """What differs between the pattern written and what was read; cell = 8 * byte + bit, rows of `row_bits` cells.

    Both files are hex text, two digits a byte in the order of addresses, or raw bytes. Raises FileError.
    """
    before = _bytes(source, written, format)
    after = _bytes(source, read, format)
    if len(before) != len(after):
        raise FileError(
            f"{source}: {len(before)} bytes were written and {len(after)} read, expected as many; is one file cut off?"
        )
    cells = 8 * len(before)
    if not cells or cells % row_bits:
        raise FileError(f"{source}: {cells} cells, expected a whole number of rows of {row_bits} bits (--row-bits)")
    index, bit = _set_bits(before ^ after)
    held_1 = before[index] >> bit & 1
    kind = np.where(held_1, Kind.STUCK_AT_0, Kind.STUCK_AT_1).astype(np.int64)
    cell = 8 * index + bit
    ones = int(_ONES[before].sum())
    return FoundCells(
        cell // row_bits,
        cell % row_bits,
        kind,
        rows=cells // row_bits,
        row_bits=row_bits,
        held_1=ones,
        held_0=cells - ones,
        listed=len(cell),
        listed_cells=cells,
    )


def _bytes(source: str, content: bytes, format: str) -> Bytes:
    raw = np.frombuffer(content, np.uint8)
    if format == "binary_pair" or (format == "pair" and (_DIGITS[raw] == _NOT_HEX).any()):
        return raw
    found = digits(source, content)
    if len(found) % 2:
        raise FileError(f"{source}: {len(found)} hexadecimal digits, expected two for each byte")
    return _joined(found)


def _joined(digits: Bytes) -> Bytes:
    """Bytes of two digits each, the higher one first."""
    joined: Bytes = (digits[::2] << 4 | digits[1::2]).astype(np.uint8)
    return joined
