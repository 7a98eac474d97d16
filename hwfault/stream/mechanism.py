"""The mechanisms by which faults strike values, and what each takes: one record for every engine.

An engine takes the operands of a mechanism under these names: the torch operators `hwfault::strike` and `hwfault::zero`
as two lists in this order, Triton's kernels as parameters, the C functions in the structs of hwfault.h, and the ops of
graphs as inputs and attributes. None of them reads another's declaration; a test compares them with these.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from hwfault.errors import PlanError

T = TypeVar("T")

Type = Literal["int64", "int32", "floating", "int", "ints"]
"""Elements of a tensor, or a number, or as many numbers as there are left."""


@dataclass(frozen=True)
class Operand:
    """One operand: a tensor of a shape, or numbers where `shape` is empty.

    `c` is the field of a struct of hwfault.h that holds it, `node` the input or attribute of an op of graphs.
    """

    name: str
    type: Type
    shape: str
    meaning: str
    c: str
    node: str


class StreamOperands(NamedTuple, Generic[T]):
    """Processes that the stream draws."""

    samples: T
    seed: T
    program: T
    scale: T
    zero_point: T
    bit_width: int
    signed: int
    representation: int


class MapOperands(NamedTuple, Generic[T]):
    """The rows of a fault map: permanent faults, and intermittent ones."""

    period: T
    seed: T
    word: T
    and_mask: T
    xor_mask: T
    scale: T
    zero_point: T
    bit_width: int
    signed: int
    representation: int
    threshold: int
    site: int


class ProtectedOperands(NamedTuple, Generic[T]):
    """Processes, then rows of a map, in the sub-words of a memory with check bits."""

    samples: T
    period: T
    seed: T
    program: T
    word: T
    and_mask: T
    xor_mask: T
    number: T
    cells: T
    scale: T
    zero_point: T
    bit_width: int
    signed: int
    representation: int
    protection: int
    data_bits: int
    slot: int
    on_detected: int
    threshold: int
    site: int


class ArrayOperands(NamedTuple, Generic[T]):
    """A layer that an array of processing elements adds up."""

    x: T
    w: T
    order: T
    events: T
    groups: int
    width: int
    saturate: int
    step: int
    pass_steps: int
    walk: tuple[int, ...]


class ClipOperands(NamedTuple, Generic[T]):
    """Integers kept within a range."""

    samples: T
    scale: T
    zero_point: T
    bit_width: int
    signed: int
    representation: int
    low: int
    high: int
    below: int
    above: int


@dataclass(frozen=True)
class Mechanism:
    """One mechanism: its operands in their order, tensors before numbers, and by what it is known to engines.

    `record` holds the operands by name. `nodes` are the ops of graphs, `functions` the C functions that strike values
    and that zero gradients ("" for none), `kernel` the Triton kernel that does both. `counts` is how many numbers it
    counts while it strikes. `keeps_changes`: a backward pass is told which words were changed, and needs no operands.
    """

    name: str
    record: type[Any]
    tensors: tuple[Operand, ...]
    numbers: tuple[Operand, ...]
    nodes: tuple[str, ...]
    functions: tuple[str, str]
    kernel: str = ""
    counts: int = 0
    keeps_changes: bool = False

    def named(self, tensors: Any, numbers: Any) -> Any:
        """The operands by name, from the two lists of them; raises PlanError for lists of other lengths."""
        rest = (*tensors, *numbers)
        whole = len(tensors) == len(self.tensors)
        if self.numbers[-1].type == "ints":
            fixed = len(self.tensors) + len(self.numbers) - 1
            whole, rest = whole and len(rest) >= fixed, (*rest[:fixed], tuple(rest[fixed:]))
        if not whole or len(rest) != len(self.tensors) + len(self.numbers):
            raise PlanError(
                f"{len(tensors)} tensors and {len(numbers)} numbers for the mechanism {self.name!r}, expected "
                f"{', '.join(operand.name for operand in self.tensors)} and "
                f"{', '.join(operand.name for operand in self.numbers)}"
            )
        return self.record(*rest)

    def listed(self, operands: Any) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """The two lists of operands that are given by name."""
        tensors, numbers = operands[: len(self.tensors)], operands[len(self.tensors) :]
        return tensors, (*numbers[:-1], *numbers[-1]) if self.numbers[-1].type == "ints" else numbers


_SAMPLES = Operand(
    "samples",
    "int64",
    "(batch,)",
    "number of each element of axis 0; one: all is one sample",
    "draw.sample",
    "first_sample",
)
_HOW_MANY = Operand("samples", "int64", "(batch,)", "as above; only how many there are is read", "", "")
_PERIOD = Operand("period", "int64", "(batch,)", "refresh period of each element", "map.period", "first_sample")
_SEED = Operand("seed", "int64", "()", "the bits of the unsigned 64 bit seed", "draw.seed", "seed")
_MAP_SEED = Operand("seed", "int64", "()", "the bits of the unsigned 64 bit seed", "map.seed", "seed")
_PROGRAM = Operand("program", "int64", "(n,)", "fault program (hwfault.stream.reference)", "draw.program", "program")
_ROWS = (
    Operand("word", "int64", "(rows,)", "words within a sample, strictly ascending", "map.word", "word"),
    Operand("and_mask", "int32", "(rows,)", "the bits that a word keeps", "map.and_mask", "and_mask"),
    Operand("xor_mask", "int32", "(rows,)", "the bits that are inverted then", "map.xor_mask", "xor_mask"),
)
_TABLE = (
    Operand(
        "number", "int64", "(k,)", "memory words of a layout, ascending; none: linear", "protection.number", "number"
    ),
    Operand(
        "cells",
        "int64",
        "(k, data_bits)",
        "32 word + bit of the code word behind each data bit, or -1",
        "protection.cells",
        "cells",
    ),
)
_GRID = (
    Operand("scale", "floating", "one axis not 1", "aligned to the values' last axes", "format.scale", "scale"),
    Operand("zero_point", "floating", "one axis not 1", "aligned likewise", "format.zero_point", "zeropt"),
)
_FORMAT = (
    Operand("bit_width", "int", "", "of a word, 1 to 32", "format.bit_width", "bit_width"),
    Operand("signed", "int", "", "0 or 1", "format.is_signed", "signed"),
    Operand("representation", "int", "", "index into REPRESENTATIONS", "format.representation", "representation"),
)
_ACTIVITY = (
    Operand("threshold", "int", "", "activity, 0 to 2^32 (always); 2^33: sampled", "map.threshold", "threshold"),
    Operand("site", "int", "", "site number of the activity's draws", "map.site", "site"),
)
_MEMORY = (
    Operand("protection", "int", "", "1 + index into protection.KINDS", "protection.kind", "protection"),
    Operand("data_bits", "int", "", "of a memory word, 1 to 64", "protection.data_bits", "data_bits"),
    Operand("slot", "int", "", "bits that a code word takes", "protection.slot", "slot"),
    Operand("on_detected", "int", "", "0: the data become 0, 1: they stay", "protection.on_detected", "on_detected"),
)
_RANGE = (
    Operand("low", "int", "", "the least integer that stays", "range.low", "low"),
    Operand("high", "int", "", "the largest one", "range.high", "high"),
    Operand("below", "int", "", "what lesser ones become", "range.below", "below"),
    Operand("above", "int", "", "what larger ones become", "range.above", "above"),
)
_LAYER = (
    Operand("x", "floating", "the layer's", "the integers of its inputs", "", "x"),
    Operand("w", "floating", "the layer's", "the integers of its weights", "", "w"),
    Operand("order", "int64", "(products,)", "of the products; none: 0, 1, 2, ...", "array.order", "order"),
    Operand("events", "int64", "(n, 8)", "stuck bits (hwfault.stream.array)", "array.events", "events"),
)
_ADDING = (
    Operand("groups", "int", "", "of a convolution", "layer.groups", "group"),
    Operand("width", "int", "", "bits of an accumulator", "array.width", "width"),
    Operand("saturate", "int", "", "0: it wraps, 1: it saturates", "array.saturate", "overflow"),
    Operand("step", "int", "", "products that are added up at once", "array.step", "step"),
    Operand("pass_steps", "int", "", "steps of a pass; 0: one pass", "array.pass_steps", "pass_steps"),
    Operand("walk", "ints", "", "stride, padding and dilation of each axis; none: linear", "layer.axes", "strides"),
)

STREAM = Mechanism(
    "stream",
    StreamOperands,
    (_SAMPLES, _SEED, _PROGRAM, *_GRID),
    _FORMAT,
    ("TransientFaults",),
    ("hwfault_inject", "hwfault_zero_faulty"),
    "strike_kernel",
)
MAP = Mechanism(
    "map",
    MapOperands,
    (_PERIOD, _MAP_SEED, *_ROWS, *_GRID),
    (*_FORMAT, *_ACTIVITY),
    ("FaultMap", "IntermittentFaults"),
    ("hwfault_apply_map", "hwfault_zero_map"),
    "map_kernel",
)
PROTECTED = Mechanism(
    "protected",
    ProtectedOperands,
    (_SAMPLES, _PERIOD, _SEED, _PROGRAM, *_ROWS, *_TABLE, *_GRID),
    (*_FORMAT, *_MEMORY, *_ACTIVITY),
    ("ProtectedFaults",),
    ("hwfault_protected", "hwfault_zero_protected"),
    counts=3,
)
ARRAY = Mechanism(
    "array",
    ArrayOperands,
    _LAYER,
    _ADDING,
    ("ArrayFaults",),
    ("hwfault_accumulate", ""),
    keeps_changes=True,
)

CLIP = Mechanism(
    "clip",
    ClipOperands,
    (_HOW_MANY, *_GRID),
    (*_FORMAT, *_RANGE),
    ("ClippedRange",),
    ("hwfault_clip", "hwfault_zero_clipped"),
)

MECHANISMS = {mechanism.name: mechanism for mechanism in (STREAM, MAP, PROTECTED, ARRAY, CLIP)}
"""Every mechanism by its name."""


def mechanism_named(name: str) -> Mechanism:
    """The mechanism of a name; raises PlanError for any other."""
    if name not in MECHANISMS:
        raise PlanError(f"the mechanism is {name!r}, expected one of {', '.join(MECHANISMS)}")
    return MECHANISMS[name]
