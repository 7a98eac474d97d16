"""The C functions of protected memories (export/include/hwfault.h), for NumPy arrays and for raw pointers."""

from collections.abc import Sequence
from ctypes import Structure, byref, c_int32, c_int64, c_void_p
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.codes import Codes
from hwfault.errors import HwfaultError, ModelError
from hwfault.stream import native
from hwfault.stream.native import Draw, Format, Map
from hwfault.stream.protection import KINDS, NO_MAP, Layout, MapRows, Memory


class Protection(Structure):
    """A protected memory, and the table of its layout if that is not linear."""

    _fields_ = (
        ("kind", c_int32),
        ("data_bits", c_int32),
        ("slot", c_int32),
        ("on_detected", c_int32),
        ("number", c_void_p),
        ("cells", c_void_p),
        ("rows", c_int64),
    )


@cache
def _function(name: str, pointers: int) -> Any:
    """A function of a dtype, so many pointers, and the number of threads."""
    function = getattr(native.library(), name)
    function.restype, function.argtypes = c_int64, [c_int32, *[c_void_p] * pointers, c_int32]
    return function


def protection(memory: Memory, number: int, cells: int, rows: int) -> Protection:
    """A protection from raw pointers to the int64 numbers and cells of a table; no rows: the linear layout."""
    return Protection(KINDS.index(memory.kind) + 1, memory.data_bits, memory.slot, memory.due, number, cells, rows)


def protected(
    dtype: int,
    x: int,
    out: int,
    draw: Draw,
    map: Map,
    format: Format,
    protection: Protection,
    counts: int,
    threads: int,
) -> int:
    """Writes x with what the decoder lets through to out, and 3 int64 counts; returns the number of words changed."""
    structs = (byref(draw), byref(map), byref(format), byref(protection))
    return native._checked(_function("hwfault_protected", 7)(dtype, x, out, *structs, counts, threads))


def zero_protected(
    dtype: int,
    gradient: int,
    out: int,
    x: int,
    draw: Draw,
    map: Map,
    format: Format,
    protection: Protection,
    threads: int,
) -> int:
    """Writes the gradient with zeros at the words that `protected` changes to out; returns the number of those."""
    structs = (byref(draw), byref(map), byref(format), byref(protection))
    return native._checked(_function("hwfault_zero_protected", 7)(dtype, gradient, out, x, *structs, threads))


def protect_codes(
    codes: Codes,
    memory: Memory,
    *,
    bit_width: int,
    program: Sequence[int] = (),
    seed: int = 0,
    samples: ArrayLike,
    rows: MapRows = NO_MAP,
    periods: ArrayLike | None = None,
    layout: Layout | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The codes (batch, words) after the faults of their memories, and (corrected, detected, miscorrected) in all.

    As `hwfault.stream.protection.protect_codes`, for a batch with one number and one period (0) for each element.
    """
    batch, words = codes.shape
    flat = np.array(program, dtype=np.int64)
    numbers, period = (
        _one_a_row(codes, samples),
        _one_a_row(codes, np.zeros(len(codes)) if periods is None else periods),
    )
    number, cells = _table(layout, memory)
    one, zero, counts = np.ones(1), np.zeros(1), np.zeros(3, dtype=np.int64)
    draw = native.draw(seed, _at(numbers), batch, words, _at(flat), flat.size)
    masks = _at(rows.word), _at(rows.and_mask), _at(rows.xor_mask)
    map = Map(batch, words, *masks, len(rows.word), rows.threshold, 0, rows.site, _at(period))
    grid = native.format(_at(one), 1, 1, _at(zero), 1, 1, bit_width, False)
    kept = protection(memory, _at(number), _at(cells), len(number))
    x = codes.astype(np.float64, order="C")  # which holds every code
    protected(1, _at(x), _at(x), draw, map, grid, kept, _at(counts), 1)
    return x.astype(np.uint32), counts


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data


def _one_a_row(codes: Codes, numbers: ArrayLike) -> NDArray[np.int64]:
    given = np.ascontiguousarray(numbers, dtype=np.int64)
    if given.shape != codes.shape[:1]:
        raise HwfaultError(f"{given.shape} numbers for codes of shape {codes.shape}, expected one a row")
    return given


def _table(layout: Layout | None, memory: Memory) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers and cells of a layout; raises ModelError if it is not for words of the memory's data bits."""
    if layout is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if layout.cells.shape[1] != memory.data_bits:
        raise ModelError(f"a layout of {layout.cells.shape[1]} bits for memory words of {memory.data_bits} data bits")
    return layout.number, layout.cells
