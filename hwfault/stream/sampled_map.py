"""Maps of faults in single samples: rows that name the sample in which they strike (specification, section 7)."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.codes import Codes
from hwfault.errors import ModelError
from hwfault.stream.fault_map import FaultMap, Kinds, Words
from hwfault.stream.tables import SAMPLED_WORDS

_SAMPLES = 1 << 32


@dataclass(frozen=True, eq=False)
class SampledMap:
    """`code' = (code & and_mask) ^ xor_mask` at the rows' words in the rows' samples, and nowhere else.

    `bit_width` (1 to 32) is that of the words, `words` (below 2^31) how many a sample has. The rows (n,) ascend by
    sample (0 to 2^32 - 1) and then word, each of them once. Raises ModelError for rows that do not fit.
    """

    bit_width: int
    words: int
    sample: Words
    word: Words
    and_mask: Codes
    xor_mask: Codes

    def __post_init__(self) -> None:
        _check_size(self.words)
        sample, word = (np.ascontiguousarray(_integers(rows), np.int64) for rows in (self.sample, self.word))
        if sample.shape != word.shape or sample.ndim != 1:
            raise ModelError(f"sample and word have the shapes {sample.shape} and {word.shape}, expected one length")
        _check_within("sample", sample, _SAMPLES)
        _check_within("word", word, self.words)
        key = sample * SAMPLED_WORDS + word
        if np.any(np.diff(key) <= 0):
            raise ModelError("the rows must ascend by sample and then word, each of them once")
        # what is left to ask of masks is the same as in a map of as many words as there are rows
        masks = FaultMap(self.bit_width, len(key), np.arange(len(key)), self.and_mask, self.xor_mask)
        own = {"sample": sample, "word": word, "and_mask": masks.and_mask, "xor_mask": masks.xor_mask}
        for name, rows in own.items():
            object.__setattr__(self, name, rows)

    @classmethod
    def from_cells(
        cls, words: int, bit_width: int, sample: ArrayLike, word: ArrayLike, bit: ArrayLike, kind: ArrayLike
    ) -> Self:
        """The map of single cells, in any order; of a cell that is named twice in a sample the first stands.

        `kind` holds values of hwfault.stream.fault_map.Kind. Raises ModelError for a cell outside the samples.
        """
        _check_size(words)
        s, w = (np.asarray(rows, np.int64).ravel() for rows in (sample, word))
        _check_within("sample", s, _SAMPLES)
        _check_within("word", w, words)
        key, row = np.unique(s * SAMPLED_WORDS + w, return_inverse=True)
        masks = FaultMap.from_cells(len(key), bit_width, row, bit, kind)
        return cls(bit_width, words, *np.divmod(key, SAMPLED_WORDS), masks.and_mask, masks.xor_mask)

    @classmethod
    def from_keys(cls, words: int, bit_width: int, key: Words, and_mask: Codes, xor_mask: Codes) -> Self:
        """The map of which engines have these rows; see `key`."""
        return cls(bit_width, words, *np.divmod(key, SAMPLED_WORDS), and_mask, xor_mask)

    @property
    def key(self) -> Words:
        """The rows' numbers as engines take them: 2^31 sample + word."""
        return self.sample * SAMPLED_WORDS + self.word

    def at(self, sample: int) -> FaultMap:
        """The rows of one sample, whose number is taken mod 2^32, as a map of it."""
        begin, end = np.searchsorted(self.sample, np.array([0, 1]) + sample % _SAMPLES)
        rows = slice(begin, end)
        return FaultMap(self.bit_width, self.words, self.word[rows], self.and_mask[rows], self.xor_mask[rows])

    def cells(self) -> tuple[Words, Words, Words, Kinds]:
        """(sample, word, bit, kind) of every faulty cell, ascending."""
        row, bit, kind = FaultMap(self.bit_width, len(self), np.arange(len(self)), self.and_mask, self.xor_mask).cells()
        return self.sample[row], self.word[row], bit, kind

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.word)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampledMap):
            return NotImplemented
        rows = ("sample", "word", "and_mask", "xor_mask")
        sizes = (self.bit_width, self.words) == (other.bit_width, other.words)
        return sizes and all(np.array_equal(getattr(self, r), getattr(other, r)) for r in rows)

    __hash__ = None  # type: ignore[assignment]


def _integers(values: ArrayLike) -> NDArray[Any]:
    given = np.asarray(values)
    if given.size and given.dtype.kind not in "iu":
        raise ModelError(f"rows of type {given.dtype}, expected integers")
    return given


def _check_size(words: int) -> None:
    if not 0 <= words < SAMPLED_WORDS:
        raise ModelError(f"samples of {words} words, expected fewer than 2^31 where faults name their sample")


def _check_within(what: str, values: Words, end: int) -> None:
    outside = (values < 0) | (values >= end)
    if outside.any():
        raise ModelError(f"the {what} {values[int(outside.argmax())]}, expected 0 to {end - 1}")
