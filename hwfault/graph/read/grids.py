"""Which integers the tensors of a graph hold: their scale, zero point, width and sign, read off what makes them."""

import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from hwfault.codes import CodeFormat, decode, encode
from hwfault.errors import GraphError
from hwfault.graph.read.qonnxgraph import Constants, attribute
from hwfault.program.accumulators import largest_magnitude

Array = NDArray[Any]

_FLOAT_BITS, _SURE_BITS = 24, 20
"""Integers of so many bits are float32 numbers; those of the second come back from their values with any scale."""
_FARTHEST = 1 << 23
"""The largest zero point to which a float32 can add an integer of a narrow word without losing it."""

_NAMED = {"BINARY": (1, False, 1.0), "BIPOLAR": (1, True, 1.0), "TERNARY": (2, True, 1.0)}
_INTEGER = re.compile(r"(?P<unsigned>U?)INT(?P<width>[0-9]{1,9})")
_FIXED = re.compile(r"FIXED< *(?P<width>[0-9]{1,9}) *, *(?P<before_point>-?[0-9]{1,9}) *>")
_OF_NO_INTEGERS = re.compile(r"FLOAT(16|32)|SCALEDINT<[0-9]+>|FLOAT<[0-9]+,[0-9]+(,[0-9]+)?>")
"""Names of qonnx's datatypes, as it writes them; qonnx itself need not be installed."""


class NoGridError(Exception):
    """Why a tensor holds no integers that can be struck, on its way to whoever lists or plans sites."""


class IntegerGrid(NamedTuple):
    """What a tensor's integers are worth: value = (integer - zero_point) * scale.

    `names` are the graph's tensors that hold scale and zero point as they are, where it has them.
    """

    scale: Array
    zero_point: Array
    bit_width: int
    signed: bool
    names: tuple[str | None, str | None] = (None, None)
    own: bool = False
    """Whether the tensor holds ONNX' own integers, which are the codes: its scale is 1 and its zero point 0."""

    @property
    def largest(self) -> int:
        """The largest magnitude of an integer, zero point taken off, that the width allows."""
        return largest_magnitude(self.bit_width, signed=self.signed, symmetric=not self.zero_point.any())

    @property
    def whole(self) -> bool:
        """Whether all zero points are integers, and so what layers add up."""
        return bool((self.zero_point == np.rint(self.zero_point)).all())

    @property
    def needs_stream(self) -> bool:
        """Whether codes are those of version 1.1 of the fault stream: of fractional zero points, and of wide words."""
        return not self.whole or not self.comes_back()

    def comes_back(self) -> bool:
        """Whether every code, as a float32 value, is read as itself again: what steps one behind the other need."""
        if self.own:
            return True
        integers = 1 << (self.bit_width - int(self.signed))
        highest = integers + float(np.abs(self.zero_point).max(initial=0))
        if highest <= 1 << _SURE_BITS:
            return True
        if highest > 1 << _FLOAT_BITS or not self.whole:
            return False
        mantissas, _ = np.frexp(np.asarray(self.scale, np.float32))
        return bool((mantissas == 0.5).all())  # a multiplication by a power of two rounds nothing

    def holds(self, values: Array) -> bool:
        """Whether values lie on the grid, to the bit."""
        fmt = CodeFormat(self.bit_width, self.signed)
        if self.own:
            return bool((values >= fmt.low).all() and (values <= fmt.high).all())
        codes = encode(values, self.scale, self.zero_point, fmt)
        return np.array_equal(decode(codes, self.scale, self.zero_point, fmt), values)


def check_steps(site: str, grid: IntegerGrid, steps: int) -> None:
    """Raises GraphError where several nodes strike words whose codes their values do not hold between them."""
    if steps > 1 and not grid.comes_back():
        raise GraphError(
            f"{steps} kinds of faults strike the site {site!r}, one node each, and float32 values do not hold its "
            f"codes of {grid.bit_width} bits from one node to the next; expected one kind of faults, or fewer bits"
        )


def grid_of(
    node: NodeProto, constants: Constants, *, signed_input: bool | None = None, offset: float = 0.0
) -> IntegerGrid:
    """The grid of what a node of GRID_OPS makes; raises NoGridError where it is not known before the graph runs.

    `signed_input`: the sign of the integers that it reads, which version 1 of Trunc takes on, if they are known.
    `offset`: what is added to the counts of thresholds behind a MultiThreshold.
    """
    if node.op_type == "MultiThreshold":
        return _of_thresholds(node, constants, offset)
    if node.op_type == "Trunc":
        return _of_truncation(node, constants, signed_input)
    if node.op_type == "BipolarQuant":
        (scale,) = _read(node, constants, ("scale",))
        return _grid_held(node, (scale, np.zeros((), np.float32)), (1, None), 1, True)
    scale, zero_point, width = _read(node, constants, ("scale", "zero point", "bit width"))
    signed = bool(attribute(node, "signed", 1))
    return _grid_held(node, (scale, zero_point), (1, 2), _width(width), signed)


def _grid_held(
    node: NodeProto,
    numbers: tuple[Array, Array],
    held_by: tuple[int | None, int | None],
    bit_width: int,
    signed: bool,
) -> IntegerGrid:
    """The grid of a scale and a zero point, held by inputs of a node; those of another type than float32 are no use."""
    names = [
        None if at is None or values.dtype != np.float32 else node.input[at]
        for values, at in zip(numbers, held_by, strict=True)
    ]
    scale, zero_point = (np.asarray(values, np.float32) for values in numbers)
    return IntegerGrid(scale, zero_point, bit_width, signed, (names[0], names[1]))


def _read(node: NodeProto, constants: Constants, labels: tuple[str, ...]) -> list[Array]:
    """The constants behind the first input, one for each label."""
    if len(node.input) <= len(labels) or not node.output:
        raise NoGridError(
            f"it has {len(node.input)} inputs and {len(node.output)} outputs, expected {len(labels) + 1} and 1"
        )
    return [_constant(label, name, constants) for label, name in zip(labels, node.input[1:], strict=False)]


def read_scale(name: str, constants: Constants) -> Array:
    """A constant that a tensor's integers are multiplied by, in float32; raises NoGridError for what can be none."""
    return np.asarray(_constant("scale", name, constants), np.float32)


def read_zero_point(name: str, constants: Constants) -> Array:
    """A constant that is taken off a tensor's integers, in the same way."""
    return np.asarray(_constant("zero point", name, constants), np.float32)


def _constant(label: str, name: str, constants: Constants) -> Array:
    values = constants.get(name)
    if values is None:
        raise NoGridError(f"its {label} {name!r} is computed by the graph, expected a constant")
    if values.dtype.kind not in "fiu":
        raise NoGridError(f"its {label} holds {values.dtype}, expected numbers")
    if "scale" in label and not (np.isfinite(values) & (values != 0)).all():
        raise NoGridError(f"its {label} is 0 or not finite")
    if "zero point" in label and not (np.abs(values.astype(np.float64)) <= _FARTHEST).all():
        farthest = values.ravel()[np.abs(values).argmax()]
        raise NoGridError(
            f"its {label} is {farthest:.9g}, where float32 does not tell one integer from "
            f"the next; expected at most {_FARTHEST} in magnitude"
        )
    if sum(extent != 1 for extent in values.shape) > 1:
        raise NoGridError(
            f"its {label} has shape {list(values.shape)}, expected one value for the tensor or for each channel"
        )
    return values


def _width(values: Array) -> int:
    width = float(values.item()) if values.size == 1 else float("nan")
    if width not in range(1, 33):  # which no fraction is in
        raise NoGridError(f"its bit width is {width}, expected an integer from 1 to 32")
    return int(width)


def _of_truncation(node: NodeProto, constants: Constants, signed_input: bool | None) -> IntegerGrid:
    """Version 1 keeps the scale; version 2 has one of its own, and divides the zero point by the ratio of both."""
    if len(node.input) < 6:
        scale, zero_point, _, width = _read(node, constants, ("scale", "zero point", "input width", "bit width"))
        if signed_input is None:
            raise NoGridError("the sign of its integers is not known: no quantizer lies before it")
        return _grid_held(node, (scale, zero_point), (1, 2), _width(width), signed_input)
    labels = ("scale", "zero point", "input width", "output scale", "bit width")
    scale, zero_point, _, after, width = _read(node, constants, labels)
    with np.errstate(all="ignore"):
        ratio = np.exp2(np.round(np.log2(after / scale)))
        moved = np.asarray(zero_point / ratio, np.float32)
    if (moved != np.round(moved)).any():
        raise NoGridError("its zero point is no integer on the scale of its output")
    kept = 2 if zero_point.dtype == np.float32 and np.array_equal(moved, zero_point) else None
    return _grid_held(node, (after, moved), (4, kept), _width(width), bool(attribute(node, "signed", 1)))


def _of_thresholds(node: NodeProto, constants: Constants, offset: float) -> IntegerGrid:
    """Counts of thresholds reached, times out_scale, plus out_bias and offset; out_dtype says how they are stored."""
    scale = np.float32(attribute(node, "out_scale", 1.0))
    bias = np.float32(attribute(node, "out_bias", 0.0) + offset)
    name = attribute(node, "out_dtype", b"").decode(errors="replace")
    thresholds = constants.shape(node.input[1]) if len(node.input) > 1 else None
    if not thresholds or not node.output:
        raise NoGridError("its thresholds are computed by the graph, expected a constant")
    if not np.isfinite([scale, bias]).all():
        raise NoGridError(f"its out_scale is {scale:g} and its out_bias {bias:g}, expected finite numbers")
    if name == "BIPOLAR":
        if scale != -2 * bias or thresholds[-1] != 1:
            raise NoGridError(
                f"its out_dtype is BIPOLAR, but it has {thresholds[-1]} thresholds, out_scale {scale:g} and out_bias "
                f"{bias:g}; expected one threshold and an out_bias of half the out_scale, negative"
            )
        return IntegerGrid(np.abs(bias), np.zeros((), np.float32), 1, True)
    width, signed, _ = read_datatype(name)
    first = bias / scale if scale > 0 else np.float32(np.nan)
    if first != np.round(first):
        raise NoGridError(f"its out_bias {bias:g} is no multiple of its out_scale {scale:g}, expected whole steps")
    # counts start at the bias: a signed range is all thresholds' counts moved down by it
    lowest = -(1 << (width - 1)) if signed else 0
    highest = lowest + (1 << width) - 1
    if first < lowest or first + thresholds[-1] > highest:
        raise NoGridError(
            f"its integers {first:g} to {first + thresholds[-1]:g} are not those of its out_dtype {name}, expected "
            f"{lowest} to {highest}"
        )
    return IntegerGrid(np.asarray(scale), np.zeros((), np.float32), width, signed)


def read_datatype(name: str) -> tuple[int, bool, float]:
    """Width, sign and scale of qonnx's integer and fixed point datatypes; raises NoGridError for others."""
    known = _read_name(name)
    if known is None:
        if _OF_NO_INTEGERS.fullmatch(name):
            raise NoGridError(f"its datatype is {name}, expected integers or fixed point")
        raise NoGridError(f"its datatype is {name!r}, which qonnx does not have")
    width, signed, _ = known
    if not 1 <= width <= 32 or (width == 1 and signed and name != "BIPOLAR"):
        raise NoGridError(f"its datatype is {name}, expected 1 to 32 bits, signed ones 2 or BIPOLAR")
    return known


def _read_name(name: str) -> tuple[int, bool, float] | None:
    """The same of any width; None for a name that is none of integers or fixed point."""
    if name in _NAMED:
        return _NAMED[name]
    if integer := _INTEGER.fullmatch(name):
        return int(integer["width"]), not integer["unsigned"], 1.0
    if fixed := _FIXED.fullmatch(name):
        width, before_point = int(fixed["width"]), int(fixed["before_point"])
        if before_point < width:
            return width, True, math.ldexp(1.0, before_point - width)
    return None


def annotations(model: ModelProto) -> dict[str, str]:
    """qonnx's datatypes of tensors, by the tensors' names."""
    found = {}
    for entry in model.graph.quantization_annotation:
        kinds = [pair.value for pair in entry.quant_parameter_tensor_names if pair.key == "finn_datatype"]
        if kinds:
            found[entry.tensor_name] = kinds[0]
    return found


def grid_of_initializer(name: str, datatype: str, constants: Constants) -> IntegerGrid:
    """The grid of weights that are integers already; raises NoGridError unless all of them are what is annotated."""
    width, signed, scale = read_datatype(datatype)
    grid = IntegerGrid(np.asarray(scale, np.float32), np.zeros((), np.float32), width, signed)
    values = constants.get(name)
    if values is None or values.dtype != np.float32 or not grid.holds(values):
        raise NoGridError(f"its values are not the float32 integers that its datatype {datatype} promises")
    return grid
