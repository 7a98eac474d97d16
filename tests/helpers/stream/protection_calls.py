"""The C functions of protected memories on stored numbers of any type, through raw pointers."""

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat
from hwfault.stream import native
from hwfault.stream.protection import MapRows, Memory
from tests.helpers.stream.capi import pointer
from tests.helpers.stream.protection_cases import Case, by_reference
from tests.helpers.stream.values import DTYPES, Grid

MAP, DRAW, FORMAT, PROTECTION = range(4)


class Call:
    """The structs of one call on x (batch, words), and the arrays that they point into."""

    def __init__(self, x: NDArray, dtype: str, grid: Grid, case: Case, samples: NDArray, periods: NDArray) -> None:
        self.x, self.dtype, self.counts = np.ascontiguousarray(x), DTYPES[dtype], np.full(3, -1, np.int64)
        self.program, self.grid = np.array(case.program, np.int64), grid
        self.samples, self.periods = (np.ascontiguousarray(n, np.int64) for n in (samples, periods))
        self.rows, self.layout = case.rows, case.layout
        batch, words = x.shape
        self.draw = native.draw(
            case.seed, pointer(self.samples), batch, words, pointer(self.program), self.program.size
        )
        columns = (pointer(getattr(case.rows, name)) for name in ("word", "and_mask", "xor_mask"))
        drawn = (case.rows.threshold, 0, case.rows.site, pointer(self.periods))
        self.map = native.Map(batch, words, *columns, len(case.rows.word), *drawn)
        scale = pointer(grid.scale), grid.scale.size, grid.scale_inner
        zero_point = pointer(grid.zero_point), grid.zero_point.size, grid.zero_point_inner
        self.format = native.format(*scale, *zero_point, grid.fmt.bit_width, grid.fmt.signed)
        table = (0, 0, 0)
        if case.layout is not None:
            table = pointer(case.layout.number), pointer(case.layout.cells), len(case.layout.number)
        self.protection = native.protection(case.memory, *table)

    @property
    def structs(self):
        return self.draw, self.map, self.format, self.protection

    def protected(self, threads: int = 1, out: NDArray | None = None) -> tuple[NDArray, int]:
        """The values after, written to `out`, and the number of words changed."""
        out = np.empty_like(self.x) if out is None else out
        changed = native.protected(
            self.dtype, pointer(self.x), pointer(out), *self.structs, pointer(self.counts), threads
        )
        return out, changed

    def zeroed(self, gradient: NDArray, threads: int = 1) -> tuple[NDArray, int]:
        """The gradient with zeros at the words changed, and their number."""
        out = np.empty_like(gradient)
        pointers = (pointer(gradient), pointer(out), pointer(self.x))
        return out, native.zero_protected(self.dtype, *pointers, *self.structs, threads)


def struck(codes: NDArray, case: Case, samples: NDArray, periods: NDArray) -> tuple[NDArray, NDArray]:
    """The codes (batch, words) after the faults and the counts, by the reference."""
    out, total = codes.copy(), np.zeros(3, np.int64)
    for i, (row, sample, period) in enumerate(zip(codes, samples, periods, strict=True)):
        one = Case(
            row, case.bits, case.memory, case.processes, case.seed, int(sample), case.rows, int(period), case.layout
        )
        out[i], counts = by_reference(one)
        total += counts
    return out, total


def plain(words: int, memory: Memory, rows: MapRows | None = None, bits: int = 4) -> Call:
    """A call on two samples of zeros under a map."""
    case = Case(np.zeros(words, np.uint32), bits, memory, **({} if rows is None else {"rows": rows}))
    grid = Grid(CodeFormat(bits, False), np.ones(1), 1, np.zeros(1), 1)
    return Call(np.zeros((2, words), np.float32), "float32", grid, case, np.arange(2), np.arange(2))
