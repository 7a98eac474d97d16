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
        # a process hits cells that hold 0, or that hold 1, or both: so it strikes words of all zeros, then of all ones
        hit_zeros = _faulty(values, draw, _NO_BITS, bit_width)
        hit_ones = _faulty(values, draw, _ALL_BITS, bit_width)
        hit = np.concatenate([hit_zeros, hit_ones])
        found.append(hit)
        if elements:
            # late bits come from the word that the same element produced before, if this is not its first
            word = hit % words
            before = previous_words(word, *elements)
            sources = hit - word + before
            found.append(sources[before >= 0])
    return np.unique(np.concatenate(found))


def _parts(program: Sequence[int]) -> Iterator[tuple[Words, list[int]]]:
    """Each process as a program of its own, and the array of late bits, which are drawn as those of a mask are."""
    for kind, site, body in processes(program):
        elements: list[int] = []
        drawn = body
        if kind == LATE:
            # a late process changes words only where two codes differ; as a mask it changes each that it hits
            kind = _MASK
            elements = body[1:5]
            drawn = [body[0], *body[5:]]
        yield np.array([kind, site, len(drawn), *drawn], dtype=np.int64), elements


def _faulty(values: NDArray[np.float16], draw: native.Draw, zero_point: float, bit_width: int) -> Words:
    grid = np.array([1.0, zero_point])
    one, zero = grid.ctypes.data, grid.ctypes.data + grid.itemsize
    codes = native.format(one, 1, 1, zero, 1, 1, bit_width, False)
    return native.faulty_words(_FLOAT16, values.ctypes.data, draw, codes)
