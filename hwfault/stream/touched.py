"""Which words a fault program may change, and which it must see for that, whatever codes are stored."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hwfault.stream import native
from hwfault.stream.reference import previous_words, processes

Words = NDArray[np.int64]

_MASK, LATE = 2, 4
_FLOAT16 = 2
_NO_BITS, _ALL_BITS = 0.0, 2.0**32
"""Zero points that make codes with no bit set, or all (the end of the range), of values that are all 0."""


def touched(program: Sequence[int], *, seed: int, samples: Words, words: int, bit_width: int) -> Words:
    """The words that a program may change, and those that late bits come from, as element * words + word, ascending.

    `samples` (batch,) are the elements' numbers, `words` each one's. The cost grows with the number of hits.
    """
    values = np.zeros(len(samples) * words, dtype=np.float16)  # memory that is only taken where it is looked at
    found = [np.zeros(0, dtype=np.int64)]
    for part, elements in _parts(program):
        draw = native.draw(seed, samples.ctypes.data, len(samples), words, part.ctypes.data, part.size)
        # a process hits cells that hold 0, or that hold 1, or both
        hit = np.concatenate([_faulty(values, draw, zero_point, bit_width) for zero_point in (_NO_BITS, _ALL_BITS)])
        found.append(hit)
        if elements:
            before = previous_words(hit % words, *elements)
            found.append((hit - hit % words + before)[before >= 0])
    return np.unique(np.concatenate(found))


def _parts(program: Sequence[int]) -> Iterator[tuple[Words, list[int]]]:
    """Each process as a program of its own, and the array of late bits, which are drawn as those of a mask are."""
    for kind, site, body in processes(program):
        late, elements = kind == LATE, body[1:5] if kind == LATE else []
        drawn = [body[0], *body[5:]] if late else body
        yield np.array([_MASK if late else kind, site, len(drawn), *drawn], dtype=np.int64), elements


def _faulty(values: NDArray[np.float16], draw: native.Draw, zero_point: float, bit_width: int) -> Words:
    grid = np.array([1.0, zero_point])
    one, zero = grid.ctypes.data, grid.ctypes.data + grid.itemsize
    codes = native.format(one, 1, 1, zero, 1, 1, bit_width, False)
    return native.faulty_words(_FLOAT16, values.ctypes.data, draw, codes)
