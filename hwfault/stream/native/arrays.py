"""The C functions for NumPy arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.codes import Codes
from hwfault.errors import HwfaultError, ModelError
from hwfault.stream.array import Array, Layer
from hwfault.stream.native import pointers
from hwfault.stream.native.header import Draw, Format, Map
from hwfault.stream.native.loading import library
from hwfault.stream.protection import NO_MAP, Layout, MapRows, Memory
from hwfault.stream.reference import Hits
from hwfault.stream.tables import Table, encode_table

_FIRST_ROOM = 1024


def philox(counter: ArrayLike, key: int) -> NDArray[np.uint32]:
    """Philox4x32-10 of one counter (4,) under a 64 bit key: (4,) words."""
    words = np.ascontiguousarray(counter, dtype=np.uint32)
    out = np.empty(4, dtype=np.uint32)
    library().hwfault_philox(_at(words), key, _at(out))
    return out


def hits(*, seed: int, site: int, sample: int, words: int, plane: int, probability: float) -> Hits:
    """Word positions (int64) and aux (uint32) of the hits of one plane, in stream order."""
    return plane_hits(seed, site, sample, words, plane, encode_table(probability))


def plane_hits(seed: int, site: int, sample: int, words: int, plane: int, table: Table) -> Hits:
    """The same from a count table as a fault program holds it."""
    numbers = np.array(table, dtype=np.int64)
    which = (seed, site, sample & 0xFFFFFFFF, words, plane, _at(numbers), numbers.size)

    def find(room: int, word: NDArray[Any], aux: NDArray[Any]) -> int:
        found: int = library().hwfault_hits(*which, room, _at(word), _at(aux))
        return found

    word, aux = _with_room(find, np.int64, np.uint32)
    return word, aux


def faulty_words(dtype: int, x: int, draw: Draw, format: Format) -> NDArray[np.int64]:
    """The words that become faulty in x (a raw pointer) as element * words + word, ascending."""

    def find(room: int, position: NDArray[Any]) -> int:
        found: int = library().hwfault_faulty_words(dtype, x, draw, format, room, _at(position), None, None)
        return found

    (position,) = _with_room(find, np.int64)
    return position


def _with_room(find: Callable[..., int], *types: type) -> list[NDArray[Any]]:
    """What `find` writes into arrays of these types; asked again with what is needed where they are too small."""
    room = _FIRST_ROOM  # the library writes what fits, and tells how many there are
    while True:
        arrays: list[NDArray[Any]] = [np.empty(room, dtype=kind) for kind in types]
        n = find(room, *arrays)
        if n <= room:
            return [array[:n] for array in arrays]
        room = n


def check_program(program: Sequence[int], bit_width: int) -> None:
    """Raises HwfaultError for what is no fault program of words of so many bits."""
    nothing = np.zeros((1, 0), dtype=np.uint32)  # the library checks the whole program before it looks at words
    inject_codes(nothing, program=program, seed=0, samples=[0], bit_width=bit_width)


def inject_codes(
    codes: Codes, *, program: Sequence[int], seed: int, samples: ArrayLike, bit_width: int
) -> NDArray[np.uint32]:
    """The codes (batch, words) after all processes of a program; `samples` has one number for each element."""
    out = np.array(codes, dtype=np.uint32, order="C")
    numbers = np.ascontiguousarray(samples, dtype=np.int64)
    flat = np.array(program, dtype=np.int64)
    batch, words = out.shape
    if numbers.shape != (batch,):
        raise HwfaultError(f"{numbers.shape} sample numbers for codes of shape {out.shape}, expected one a row")
    which = pointers.draw(seed, _at(numbers), batch, words, _at(flat), flat.size)
    library().hwfault_inject_codes(_at(out), which, bit_width)
    return out


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
    numbers = _one_a_row(codes, samples)
    period = _one_a_row(codes, np.zeros(len(codes)) if periods is None else periods)
    number, cells = _table(layout, memory)
    counts = np.zeros(3, dtype=np.int64)
    # the library strikes values: codes are those of the scale 1 and the zero point 0
    one = np.ones(1)
    zero = np.zeros(1)
    draw = pointers.draw(seed, _at(numbers), batch, words, _at(flat), flat.size)
    map = Map(
        batch=batch,
        words=words,
        word=_at(rows.word),
        and_mask=_at(rows.and_mask),
        xor_mask=_at(rows.xor_mask),
        rows=len(rows.word),
        threshold=rows.threshold,
        site=rows.site,
        period=_at(period),
    )
    grid = pointers.format(_at(one), 1, 1, _at(zero), 1, 1, bit_width, False)
    kept = pointers.protection(memory, _at(number), _at(cells), len(number))
    x = codes.astype(np.float64, order="C")  # which holds every code
    pointers.protected(1, _at(x), _at(x), draw, map, grid, kept, _at(counts), 1)
    return x.astype(np.uint32), counts


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


def accumulate_arrays(
    acc: NDArray[Any], x: NDArray[np.float32], w: NDArray[np.float32], layer: Layer, array: Array, threads: int = 1
) -> NDArray[Any]:
    """The accumulators acc, float32 or float64, as an array of processing elements leaves them; x and w are the layer's
    integers, and all have its shapes."""
    acc = np.ascontiguousarray(acc)
    x, w = (np.ascontiguousarray(part, np.float32) for part in (x, w))
    _check_sizes(acc, x, w, layer)
    out = np.empty_like(acc)
    dtype = {4: 0, 8: 1}[acc.dtype.itemsize]
    pointers.accumulate(dtype, _at(acc), _at(x), _at(w), _at(out), layer, array, threads)
    return out


def _check_sizes(acc: NDArray[Any], x: NDArray[Any], w: NDArray[Any], layer: Layer) -> None:
    inputs = int(np.prod([axis.input for axis in layer.axes]))
    outputs = int(np.prod([axis.output for axis in layer.axes]))
    expected = (
        layer.batch * layer.channels * outputs,
        layer.batch * layer.groups * layer.depth * inputs,
        layer.channels * layer.products,
    )
    if (acc.size, x.size, w.size) != expected:
        raise HwfaultError(
            f"{acc.size} accumulators, {x.size} inputs and {w.size} weights, expected {expected} for this layer"
        )


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data
