"""Fault maps: permanent faults as explicit rows of words and masks (fault-stream specification, section 7)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as to_tensors
from safetensors.numpy import save as to_bytes

from hwfault.codes import Codes
from hwfault.errors import FileError, ModelError
from hwfault.files import write_atomically
from hwfault.inputs import read_regular

FORMAT = "hwfault-map/1"
ALL_ONES = np.uint32(0xFFFFFFFF)
LARGEST_MAP = 1 << 32
"""The bytes of the largest file that is taken for a fault map."""
_MOST_WORDS = 1 << 36  # the words that 26 bits of block number reach

Words = NDArray[np.int64]
Kinds = NDArray[np.uint8]


class Kind(IntEnum):
    """What a faulty cell does."""

    FLIP = 0
    STUCK_AT_0 = 1
    STUCK_AT_1 = 2


@dataclass(frozen=True, eq=False)
class FaultMap:
    """`code' = (code & and_mask) ^ xor_mask` at the rows' words, strictly ascending, of a tensor or memory.

    `bit_width` (1 to 32) is that of the words, `words` how many there are; word (n,) is int64, and_mask and xor_mask
    (n,) are uint32. `provenance` says in text where the map comes from. Raises ModelError for rows that do not fit.
    """

    bit_width: int
    words: int
    word: Words
    and_mask: Codes
    xor_mask: Codes
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_size(self.bit_width, self.words)
        for name, dtype in (("word", np.int64), ("and_mask", np.uint32), ("xor_mask", np.uint32)):
            object.__setattr__(self, name, _whole_numbers(name, getattr(self, name), dtype))
        _check_rows(self)

    @classmethod
    def from_cells(
        cls,
        words: int,
        bit_width: int,
        word: ArrayLike,
        bit: ArrayLike,
        kind: ArrayLike,
        provenance: Mapping[str, str] | None = None,
    ) -> Self:
        """The map of single cells, in any order; where a cell is named twice the first stands.

        `kind` holds values of Kind. Raises ModelError for a cell outside the memory or an unknown kind.
        """
        _check_size(bit_width, words)
        w, b, k = (np.asarray(x, dtype=np.int64).ravel() for x in (word, bit, kind))
        _check_cells(words, bit_width, w, b, k)
        # the first of equal cells, as numpy sorts stably
        cell, first = np.unique(w * bit_width + b, return_index=True)
        k = k[first]
        bits = np.uint32(1) << (cell % bit_width).astype(np.uint32)
        # (code & and_mask) ^ xor_mask: a stuck bit is cleared, and set again where it is stuck at 1; a flip is set only
        cleared = np.where(k != Kind.FLIP, bits, 0)
        changed = np.where(k != Kind.STUCK_AT_0, bits, 0)
        # cells of one word lie together, and make one row
        rows, start = np.unique(cell // bit_width, return_index=True)
        if len(start):
            cleared = np.bitwise_or.reduceat(cleared, start)
            changed = np.bitwise_or.reduceat(changed, start)
        and_mask = ALL_ONES ^ cleared.astype(np.uint32)
        xor_mask = changed.astype(np.uint32)
        return cls(bit_width, words, rows, and_mask, xor_mask, dict(provenance or {}))

    def cells(self) -> tuple[Words, Words, Kinds]:
        """(word, bit, kind) of every faulty cell, ascending."""
        bits = np.arange(self.bit_width, dtype=np.uint32)
        kept = (self.and_mask[:, None] >> bits & 1).astype(bool)
        changed = (self.xor_mask[:, None] >> bits & 1).astype(bool)
        row, bit = np.nonzero(~kept | changed)
        # a bit that is not kept is cleared, and is 1 if it is changed then
        stuck = np.where(changed[row, bit], Kind.STUCK_AT_1, Kind.STUCK_AT_0)
        kind = np.where(kept[row, bit], Kind.FLIP, stuck)
        return self.word[row], bit.astype(np.int64), kind.astype(np.uint8)

    def apply(self, codes: Codes) -> Codes:
        """The codes (..., words) with the map's faults, in NumPy; raises ModelError for another number of words."""
        if codes.shape[-1] != self.words:
            raise ModelError(
                f"a fault map of {self.words} words for {codes.shape[-1]}, expected a map of the same memory"
            )
        out = codes.copy()
        out[..., self.word] = (codes[..., self.word] & self.and_mask) ^ self.xor_mask
        return out

    def then(self, other: "FaultMap") -> "FaultMap":
        """This map and then the other, as one map; raises ModelError for words of another number or width."""
        if (self.bit_width, self.words) != (other.bit_width, other.words):
            raise ModelError(
                f"maps of {self.words} words of {self.bit_width} bits and {other.words} of {other.bit_width} do not "
                "compose, expected two maps of one memory"
            )
        word = np.union1d(self.word, other.word)
        and_mask, xor_mask = np.full(len(word), ALL_ONES), np.zeros(len(word), np.uint32)
        for part in (self, other):
            at = np.searchsorted(word, part.word)
            and_mask[at] &= part.and_mask
            xor_mask[at] = (xor_mask[at] & part.and_mask) ^ part.xor_mask
        return FaultMap(self.bit_width, self.words, word, and_mask, xor_mask, dict(self.provenance))

    def __len__(self) -> int:
        """How many words have a faulty cell."""
        return len(self.word)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FaultMap):
            return NotImplemented
        mine, theirs = ((m.bit_width, m.words, dict(m.provenance)) for m in (self, other))
        rows = ("word", "and_mask", "xor_mask")
        return mine == theirs and all(np.array_equal(getattr(self, r), getattr(other, r)) for r in rows)

    __hash__ = None  # type: ignore[assignment]

    def save(self, path: Path | str) -> None:
        """Writes the map as a safetensors file, atomically; raises FileError."""
        rows: dict[str, NDArray[Any]] = {"word": self.word, "and_mask": self.and_mask, "xor_mask": self.xor_mask}
        size = {"format": FORMAT, "bit_width": str(self.bit_width), "words": str(self.words)}
        told = {"provenance": json.dumps(dict(self.provenance)), "sha256": _digest(self)}
        write_atomically(path, _in_order(to_bytes(rows, metadata=size | told)))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The map that `save` wrote; raises FileError for anything else.

        Of a file without a digest, as hwfault 0.4.0 wrote them, only what no map can have is noticed.
        """
        return cls.from_bytes(read_regular(path, LARGEST_MAP, "a fault map"), str(path))

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> Self:
        """The map in the content of a file that `save` wrote; raises as `load` does, and names the source."""
        try:
            tensors, metadata = to_tensors(content), _metadata(content)
            if metadata.get("format") != FORMAT:
                raise FileError(
                    f"{source}: a safetensors file, but no fault map (format {metadata.get('format')!r}, expected "
                    f"{FORMAT!r})"
                )
            word, and_mask, xor_mask = (_column(tensors, name) for name in ("word", "and_mask", "xor_mask"))
            provenance = {str(k): str(v) for k, v in dict(json.loads(metadata["provenance"])).items()}
            size = _decimal(metadata["bit_width"]), _decimal(metadata["words"])
            loaded = cls(*size, word, and_mask, xor_mask, provenance)
            if metadata.get("sha256", _digest(loaded)) != _digest(loaded):
                raise FileError(
                    f"{source}: this fault map was damaged or edited, its content has not the SHA-256 that it names; "
                    "get it again"
                )
            return loaded
        except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"{source}: not a fault map ({error}); expected a file as hwfault writes it") from None


def _metadata(content: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file, which the library has read before and found whole."""
    end = 8 + int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8:end]).get("__metadata__") or {}
    return found


def _column(tensors: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    values = tensors[name]
    expected = np.int64 if name == "word" else np.uint32
    if values.dtype != expected or values.ndim != 1:
        raise ValueError(f"{name} is {values.dtype} of {values.ndim} axes, expected {np.dtype(expected)} of one")
    return values


def _decimal(text: str) -> int:
    """A number as `save` writes it: int() alone takes signs, spaces and underscores, which damage may bring."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _digest(m: FaultMap) -> str:
    """The SHA-256 of the numbers and texts that a map holds, by which a file shows that it was damaged."""
    provenance = sorted((str(key), str(text)) for key, text in m.provenance.items())
    told = json.dumps([int(m.bit_width), int(m.words), provenance]).encode()
    rows = (m.word.astype("<i8"), m.and_mask.astype("<u4"), m.xor_mask.astype("<u4"))
    return sha256(b"\n".join([told, *(column.tobytes() for column in rows)])).hexdigest()


def _in_order(file: bytes) -> bytes:
    """A safetensors file with its header's keys sorted: the library writes metadata in another order each time."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def _whole_numbers(name: str, values: ArrayLike, dtype: type) -> NDArray[Any]:
    given, limits = np.asarray(values), np.iinfo(dtype)
    whole = given.size == 0 or (
        given.dtype.kind in "iu" and limits.min <= int(given.min()) and int(given.max()) <= limits.max
    )
    if not whole:
        raise ModelError(f"the fault map's {name} must be integers from {limits.min} to {limits.max}")
    return np.ascontiguousarray(given, dtype=dtype)


def _check_size(bit_width: int, words: int) -> None:
    if not 1 <= bit_width <= 32:
        raise ModelError(f"a fault map of words of {bit_width} bits, expected 1 to 32")
    if not 0 <= words <= _MOST_WORDS:
        raise ModelError(f"a fault map of {words} words, expected 0 to 2^36")


def _check_rows(m: FaultMap) -> None:
    lengths = {m.word.shape, m.and_mask.shape, m.xor_mask.shape}
    if len(lengths) != 1 or m.word.ndim != 1:
        raise ModelError(f"word, and_mask and xor_mask have the shapes {lengths}, expected one length")
    if len(m.word) and (m.word[0] < 0 or m.word[-1] >= m.words):
        wrong = m.word[0] if m.word[0] < 0 else m.word[-1]
        raise ModelError(f"the fault map names word {wrong} of a memory of {m.words} words")
    if np.any(np.diff(m.word) <= 0):
        raise ModelError("the fault map's words must be strictly ascending")
    if np.any(m.xor_mask.astype(np.uint64) >> np.uint64(m.bit_width)):
        raise ModelError(f"the fault map's xor_mask has bits beyond the {m.bit_width} of a word")


def _check_cells(words: int, bit_width: int, word: Words, bit: Words, kind: Words) -> None:
    if not word.shape == bit.shape == kind.shape:
        raise ModelError(f"{word.size} words, {bit.size} bits and {kind.size} kinds, expected one of each for a cell")
    outside = (word < 0) | (word >= words) | (bit < 0) | (bit >= bit_width)
    if outside.any():
        i = int(outside.argmax())
        raise ModelError(
            f"the cell (word {word[i]}, bit {bit[i]}) lies outside a memory of {words} words of {bit_width} bits"
        )
    if np.any((kind < 0) | (kind > 2)):
        raise ModelError(f"the kind of fault {kind[(kind < 0) | (kind > 2)][0]}, expected 0 flip, 1 or 2 stuck at 0, 1")
