"""The kinds of processes, one row each: what every engine's numbers, operands and words are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hwfault.stream.reference import processes

Mechanism = Literal["stream", "map", "protected", "clip"]
"""How a process strikes: drawn by the fault stream, by the rows of a fault map, in a memory with check bits; or it
keeps words within a range."""

OperandType = Literal[
    "accept",  # 0 to 2^22: the share of hits that are taken
    "axis",  # 0 along bits, 1 along words
    "sizes",  # a number k, then k accepts that ascend
    "mask",  # bits of a word, not all 0
    "length",  # 1 to 2^31
    "table",  # a count table
    "words",  # numbers of words, ascending
    "masks",  # 32 bits for each of the words
    "threshold",  # 0 to 2^32: the share of periods in which a cell shows its fault
    "site",  # the number of 32 bits under which the process draws
    "program",  # a fault program
    "name",  # one of a few words
    "bits",  # a number of bits, 1 to 64
    "cells",  # 32 word + bit of a code word, or -1
    "integer",  # of the site's words
]


class Operand(NamedTuple):
    """One operand of a process; `per_plane`: there is one for each bit plane, or one where words are struck."""

    name: str
    type: OperandType
    per_plane: bool = False


@dataclass(frozen=True)
class Kind:
    """One kind of process.

    `number` is that on the wire, in a fault program; None where the process is none of a program's. `operands` are in
    the order of the wire: those of the whole process, then those of each plane. `reads` says which codes decide beside
    the draw whether a hit changes a word: none, the one that is struck (where the process' accepts or masks do not take
    every hit), or others. `leads_back`: beside other processes a hit may make the first code again. `words` are for
    people, with the values of some operands.
    """

    name: str
    mechanism: Mechanism
    number: int | None
    strikes: Literal["bits", "words"]
    operands: tuple[Operand, ...]
    words: str
    place: str = ""
    """What its hits fall on, where that is no word of the site."""
    reads: Literal["none", "struck", "others"] = "none"
    leads_back: bool = False
    stream: Literal["1.1"] | None = None
    """The version of the fault stream that brought it; None: the first."""
    repairs: bool = False
    """Whether what it changes is no fault, but what keeps faults from doing harm."""

    @property
    def per_process(self) -> tuple[Operand, ...]:
        """The operands that there are once."""
        return tuple(operand for operand in self.operands if not operand.per_plane)

    @property
    def per_plane(self) -> tuple[Operand, ...]:
        """The operands that each plane has."""
        return tuple(operand for operand in self.operands if operand.per_plane)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all operands."""
        return tuple(operand.name for operand in self.operands)

    def planes(self, bit_width: int) -> int:
        """How many planes are drawn in words of so many bits, each with a count table of its own."""
        return bit_width if self.strikes == "bits" else 1


_TABLE = Operand("table", "table", per_plane=True)
_ACCEPTS = (Operand("accept01", "accept", per_plane=True), Operand("accept10", "accept", per_plane=True))
_MASK = Operand("mask", "mask")
_ARRAY = tuple(Operand(name, "length") for name in ("columns", "rows", "channels", "inner"))
_ROWS = (Operand("word", "words"), Operand("and_mask", "masks"), Operand("xor_mask", "masks"))
_ACTIVITY = (Operand("threshold", "threshold"), Operand("site", "site"))
_MEMORY = (
    Operand("protection", "name"),
    Operand("data_bits", "bits"),
    Operand("slot", "bits"),
    Operand("on_detected", "name"),
)
_LAYOUT = (Operand("number", "words"), Operand("cells", "cells"))
_RANGE = tuple(Operand(name, "integer") for name in ("low", "high", "below", "above"))

KINDS = (
    Kind("bit", "stream", 0, "bits", (*_ACCEPTS, _TABLE), "bit errors", reads="struck"),
    Kind(
        "cluster",
        "stream",
        1,
        "bits",
        (Operand("axis", "axis"), Operand("sizes", "sizes"), _TABLE),
        "clusters of flips along {axis}s",
    ),
    Kind("mask", "stream", 2, "words", (_MASK, _TABLE), "words XORed with {mask:#x}"),
    Kind("random", "stream", 3, "words", (_TABLE,), "words replaced by another code", leads_back=True),
    Kind("late", "stream", 4, "words", (_MASK, *_ARRAY, _TABLE), "late bits {mask:#x}", reads="others"),
    Kind("map", "map", None, "bits", (*_ROWS, *_ACTIVITY), "faulty cells", reads="struck"),
    Kind(
        "sampled",
        "map",
        None,
        "bits",
        (*_ROWS, *_ACTIVITY),
        "faulty cells, each in one sample",
        reads="struck",
        stream="1.1",
    ),
    Kind(
        "protected",
        "protected",
        None,
        "bits",
        (*_MEMORY, Operand("program", "program"), *_ROWS, *_ACTIVITY, *_LAYOUT),
        "in memory words that {protection} protects",
        place="memory word",
        reads="others",
    ),
    Kind("clip", "clip", None, "words", _RANGE, "kept within {low} to {high}", reads="struck", repairs=True),
)
"""Every kind; those of fault programs are in the order of their numbers."""

BY_NAME = {kind.name: kind for kind in KINDS}
BY_NUMBER = {kind.number: kind for kind in KINDS if kind.number is not None}


def kinds_in(program: Sequence[int]) -> list[Kind]:
    """The kinds of the processes of a fault program, in its order."""
    return [BY_NUMBER[number] for number, _, _ in processes(program)]


def reads_other_words(program: Sequence[int]) -> bool:
    """Whether what becomes of a word depends on others, so that words cannot be struck where they lie."""
    return any(kind.reads == "others" for kind in kinds_in(program))
