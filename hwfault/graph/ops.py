"""What is true of the ops of ONNX, QONNX and hwfault: one row an op, asked for by its name.

Whoever reads or edits a graph asks `of(node.op_type)` for a property and keeps no names of ops of its own. A name says
the same in every domain that has it, so that rows are found by name alone; an op without a row has no property.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

DOMAIN = "hwfault"
"""Domain of hwfault's own ops, and prefix of every metadata key that hwfault writes."""
QUANT_DOMAIN = "qonnx.custom_op.general"
OLD_DOMAINS = ("onnx.brevitas", "finn.custom_op.general", "finn")
"""Older names of QUANT_DOMAIN, which the library registers as well."""
CHANNELS_LAST = "qonnx.custom_op.channels_last"
"""Domain of ONNX' own ops on values whose channels lie last."""
MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own ops, and of its versions of some of ONNX'."""
STANDARD_DOMAINS = ("", "ai.onnx")
"""Two names of the one domain of ONNX' own ops."""

Home = Literal["onnx", "microsoft", "qonnx", "hwfault", "elsewhere"]
GridRule = Literal["", "makes", "keeps", "keeps sign"]
ShapeRule = Literal["", "same", "broadcast"]
Channels = Literal["", "first", "last", "last before"]
_Moved = Literal["stay", "no samples", "permute", "fold", "squeeze", "join", "pick", "pick behind", "slice", "repeat"]
_Mixed = Literal["pad", "reduce", "reduce one", "recur", "rows of their own", "sort", "mix", "mix at", "mix axes"]
_Put = Literal["mix behind", "reverse", "put", "put rows", "new axis", "multiply", "sum", "not followed"]
Samples = _Moved | _Mixed | _Put
Extent = Literal["", "passes", "picks", "computes"]
Bodies = Literal["", "branches", "rounds", "slices"]


class Layer(NamedTuple):
    """What an op that adds up products of inputs and weights has for faults."""

    weights: int = 1
    """The input that its weights are."""
    accumulates: bool = False
    """Whether its sums can be a site, as its weights can."""
    datatype: str = ""
    """QONNX' name of the integers that its weights always are; empty where the graph has to say it."""


class Operand(NamedTuple):
    """An input of ONNX' own integers: the words of a layer, a bias, or what a quantizer has made."""

    place: int
    zero_point: int | None = None
    """The input that says which integer means 0, of the same type; None: none does."""


@dataclass(frozen=True)
class Op:
    """What is true of one op."""

    name: str
    _: KW_ONLY
    home: Home = "onnx"
    native: bool = False
    """Whether hwfault's library has a kernel of it."""
    grid: GridRule = ""
    """Whether it makes integers on a grid that its node tells, or its outputs are integers of its first input (or
    zeros), or at least have their sign."""
    quantizer: bool = False
    """Whether it rounds whatever numbers it is given to the integers of its grid."""
    floats: bool = False
    """Whether it rounds to small floating-point numbers."""
    own_integers: bool = False
    """Whether it makes or reads ONNX' own integers, which are none of QONNX'."""
    operands: tuple[Operand, ...] = ()
    """The inputs that ONNX' own integers may be, of an op that says which."""
    makes: int | None = None
    """Of an op whose first output is ONNX' own integers: the input that is their zero point, -1 for none."""
    twin: str = ""
    """The op of ONNX that does the same to float numbers; its inputs are the operands."""
    exact: bool = False
    """Whether all engines find the same bits: it moves or picks numbers, or rounds each once."""
    shape: ShapeRule = ""
    """For what works element by element: whether outputs have the shape of the first input, or of all together."""
    channels: Channels = ""
    """Where channels lie in its first input and output; Im2Col, which leaves none, has them last before it."""
    flattens: bool = False
    """Whether it makes one axis of several, whose words then lie as those of its input did."""
    samples: Samples = "stay"
    """What happens to the axis of the samples (see hwfault.graph.read.moves)."""
    anywhere: bool = False
    """Whether samples stay whichever axis they lie along; what works element by element leaves them there, too, and
    others are known to do so along axis 0 only."""
    beside: bool = False
    """Whether its further inputs are indices or extents: their samples need not lie as those of the first do."""
    random: bool = False
    """Whether it answers otherwise each time, also where its inputs are constants or none."""
    extent: Extent = ""
    """What it does to the number of an axis on its way from a Shape to a Reshape."""
    passes_constants: bool = False
    """Whether a constant stays one behind it, with the same numbers as far as their type holds them."""
    layer: Layer | None = None
    adds: bool = False
    """Whether it adds an offset or a bias, or takes one off."""
    bodies: Bodies = ""
    """Of an op with bodies that can be written out: whether one of them is run, or one in rounds or slice by slice."""
    takes_part: bool = False
    """Whether integer arithmetic has it between integers and a layer that reads a part of them."""
    joins_parts: bool = False
    """Whether integer arithmetic has it between the sums of parts and the node that says what they are worth."""
    fault_inputs: tuple[str, ...] | None = None
    """Of an op that strikes codes: its inputs behind values, scale and zero point."""

    @property
    def accumulates(self) -> bool:
        """Whether it adds up products in sums that can be struck."""
        return self.layer is not None and self.layer.accumulates

    @property
    def weighted(self) -> bool:
        """Whether it reads weights that can be struck."""
        return self.layer is not None

    @property
    def elementwise(self) -> bool:
        return self.shape != ""

    @property
    def foldable(self) -> bool:
        """Whether it can be computed once and for all where its inputs are constants: onnxruntime folds its own."""
        return self.name == "Identity" or (self.home == "qonnx" and self.native)


AFFINE = "Affine"
"""The op that says what integer sums are worth, which is no fault."""
ARRAY_OP = "ArrayFaults"
"""The op that adds up a layer on an array of processing elements, before the site's fault ops."""

_DRAWN = ("seed", "first_sample")
_ROWS = ("word", "and_mask", "xor_mask")
_MEMORY = ("number", "cells")

_QUANTIZERS = (
    Op("Quant", home="qonnx", native=True, grid="makes", quantizer=True, exact=True, shape="same"),
    Op("IntQuant", home="qonnx", native=True, grid="makes", quantizer=True, exact=True, shape="same"),
    Op("BipolarQuant", home="qonnx", native=True, grid="makes", quantizer=True, exact=True, shape="same"),
    Op("Trunc", home="qonnx", native=True, grid="makes", shape="same"),
    Op("MultiThreshold", home="qonnx", native=True, grid="makes", shape="same"),
    Op("FloatQuant", home="qonnx", native=True, floats=True, shape="same"),
    Op("MXQuant", home="elsewhere", floats=True),
)
"""What makes integers or small floating-point numbers, or computes on ONNX' own integers."""

_X, _Y = Operand(0, 2), Operand(3, 5)


def _on_integers(name: str, home: Home = "microsoft", **known: Any) -> Op:
    return Op(name, home=home, own_integers=True, **known)


_OWN_INTEGERS = (
    _on_integers("QuantizeLinear", "onnx", makes=2, anywhere=True),
    _on_integers("DequantizeLinear", "onnx", operands=(_X,), anywhere=True),
    _on_integers("DynamicQuantizeLinear", "onnx", makes=-1, anywhere=True),
    _on_integers("ConvInteger", "onnx", operands=(Operand(0, 2), Operand(1, 3)), twin="Conv", layer=Layer()),
    _on_integers("MatMulInteger", "onnx", operands=(Operand(0, 2), Operand(1, 3)), twin="MatMul", layer=Layer()),
    _on_integers("QLinearConv", "onnx", operands=(_X, _Y, Operand(8)), makes=7, twin="Conv", layer=Layer(3)),
    _on_integers("QLinearMatMul", "onnx", operands=(_X, _Y), makes=7, twin="MatMul", layer=Layer(3)),
    _on_integers("QGemm", operands=(_X, _Y, Operand(6)), makes=8, twin="Gemm", layer=Layer(3)),
    *(_on_integers(f"QLinear{twin}", operands=(_X, _Y), makes=7, twin=twin) for twin in ("Add", "Mul")),
    *(
        _on_integers(f"QLinear{twin}", operands=(_X,), makes=4, twin=twin)
        for twin in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
    ),
    _on_integers("QLinearConcat", makes=1, samples="join"),
    _on_integers("DynamicQuantizeMatMul", operands=(Operand(0), Operand(1, 3)), twin="MatMul", layer=Layer()),
    _on_integers("MatMulIntegerToFloat", operands=(Operand(0, 4), Operand(1, 5)), twin="MatMul", layer=Layer()),
    _on_integers("QAttention"),
    _on_integers("MatMulNBits"),
)
"""What makes ONNX' own integers, or computes on them; their scales are of no concern to faults."""

_LAYERS = (
    Op("Conv", channels="first", layer=Layer(accumulates=True)),
    Op("ConvTranspose", channels="first", layer=Layer()),
    Op("Gemm", samples="multiply", layer=Layer(accumulates=True)),
    Op("MatMul", samples="multiply", layer=Layer(accumulates=True)),
    Op("Einsum", samples="sum"),
    Op("XnorPopcountMatMul", home="qonnx", native=True, samples="multiply", layer=Layer(datatype="BINARY")),
)
"""What adds up products."""

_MOVES = (
    Op("Cast", exact=True, shape="same", passes_constants=True, extent="passes", takes_part=True, joins_parts=True),
    Op("Compress", grid="keeps", exact=True, samples="pick"),
    Op("Concat", exact=True, samples="join"),
    Op("Constant", exact=True),
    Op("ConstantOfShape", exact=True),
    Op("DebugMarker", home="qonnx", grid="keeps", exact=True, shape="same"),
    Op("DepthToSpace", grid="keeps", exact=True, channels="first"),
    Op("Expand", grid="keeps", exact=True, samples="repeat"),
    Op("Flatten", grid="keeps", exact=True, flattens=True, samples="fold"),
    Op("Gather", grid="keeps", exact=True, samples="pick", beside=True, extent="picks", takes_part=True),
    Op("GatherElements", grid="keeps", exact=True, samples="pick", beside=True),
    Op("GatherND", grid="keeps", exact=True, samples="pick behind"),
    Op("Identity", grid="keeps", exact=True, shape="same", passes_constants=True),
    Op("Im2Col", home="qonnx", native=True, grid="keeps", exact=True, channels="last before"),
    Op("NonZero", exact=True, samples="no samples"),
    Op("OneHot", exact=True, samples="new axis"),
    Op("Pad", grid="keeps", exact=True, samples="pad"),
    Op("Reshape", grid="keeps", exact=True, flattens=True, samples="fold", beside=True),
    Op("ReverseSequence", exact=True, samples="reverse", beside=True),
    Op("Scatter", exact=True, samples="put"),
    Op("ScatterElements", exact=True, samples="put"),
    Op("ScatterND", exact=True, samples="put rows"),
    Op("Shape", exact=True, samples="no samples"),
    Op("Size", exact=True, samples="no samples"),
    Op("Slice", grid="keeps", exact=True, samples="slice", extent="picks", takes_part=True),
    Op("SpaceToDepth", grid="keeps", exact=True, channels="first"),
    Op("Split", grid="keeps", exact=True, samples="join"),
    Op("Squeeze", grid="keeps", exact=True, flattens=True, samples="squeeze", extent="passes"),
    Op("Tile", grid="keeps", exact=True, samples="repeat"),
    Op("Transpose", grid="keeps", exact=True, samples="permute", takes_part=True),
    Op("Unsqueeze", grid="keeps", exact=True, samples="squeeze", extent="passes"),
)
"""What moves numbers, or counts them."""

_PICKS = (
    Op("And", exact=True, shape="broadcast"),
    Op("ArgMax", exact=True, samples="reduce one"),
    Op("ArgMin", exact=True, samples="reduce one"),
    Op("Clip", exact=True, shape="same"),
    Op("Equal", exact=True, shape="broadcast"),
    Op("GlobalMaxPool", grid="keeps", exact=True, channels="first"),
    Op("Greater", exact=True, shape="broadcast"),
    Op("GreaterOrEqual", exact=True, shape="broadcast"),
    Op("Less", exact=True, shape="broadcast"),
    Op("LessOrEqual", exact=True, shape="broadcast"),
    Op("Max", exact=True, shape="broadcast"),
    Op("MaxPool", grid="keeps", exact=True, channels="first"),
    Op("MaxPoolNHWC", home="qonnx", native=True, grid="keeps", exact=True, channels="last"),
    Op("Min", exact=True, shape="broadcast"),
    Op("Not", exact=True, shape="same"),
    Op("Or", exact=True, shape="broadcast"),
    Op("ReduceMax", grid="keeps", exact=True, samples="reduce"),
    Op("ReduceMin", grid="keeps", exact=True, samples="reduce"),
    Op("Relu", grid="keeps", exact=True, shape="same"),
    Op("Sign", exact=True, shape="same"),
    Op("TopK", exact=True, samples="sort"),
    Op("Unique", exact=True, samples="rows of their own"),
    Op("Where", exact=True, shape="broadcast"),
)
"""What compares numbers and picks some."""

_ROUNDS_ONCE = (
    Op("Abs", exact=True, shape="same"),
    Op("Add", exact=True, shape="broadcast", extent="computes", adds=True, joins_parts=True),
    Op("Ceil", exact=True, shape="same"),
    Op("Div", exact=True, shape="broadcast", extent="computes"),
    Op("Floor", exact=True, shape="same"),
    Op("LeakyRelu", exact=True, shape="same"),
    Op("Mul", exact=True, shape="broadcast", extent="computes"),
    Op("Neg", exact=True, shape="same"),
    Op("PRelu", exact=True, shape="broadcast"),
    Op("Round", exact=True, shape="same"),
    Op("Sqrt", exact=True, shape="same"),
    Op("Sub", exact=True, shape="broadcast", extent="computes", adds=True),
)
"""What rounds each number once, as IEEE 754 has it."""

_ROUNDS_IN_ITS_WAY = (
    Op("Elu", shape="same"),
    Op("Selu", shape="same"),
    Op("Celu", shape="same"),
    Op("Dropout", anywhere=True),
    Op("Gelu", shape="same"),
    Op("HardSwish", shape="same"),
    Op("Mish", shape="same"),
    Op("Reciprocal", shape="same"),
    Op("Softsign", shape="same"),
    Op("ThresholdedRelu", shape="same"),
    Op("Sigmoid", shape="same"),
    Op("HardSigmoid", shape="same"),
    Op("Tanh", shape="same"),
    Op("Softplus", shape="same"),
    Op("Exp", shape="same"),
    Op("Log", shape="same"),
    Op("Erf", shape="same"),
    Op("Mod", shape="broadcast"),
    Op("Pow", shape="broadcast"),
    Op("Mean", shape="broadcast"),
    Op("Sum", shape="broadcast"),
    Op("ReduceL1", samples="reduce"),
    Op("ReduceL2", samples="reduce"),
    Op("ReduceLogSum", samples="reduce"),
    Op("ReduceLogSumExp", samples="reduce"),
    Op("ReduceProd", samples="reduce"),
    Op("ReduceSumSquare", samples="reduce"),
    Op("ReduceMean", grid="keeps sign", samples="reduce"),
    Op("ReduceSum", grid="keeps sign", samples="reduce"),
    Op("AveragePool", grid="keeps sign", channels="first"),
    Op("GlobalAveragePool", grid="keeps sign", channels="first"),
    Op("LpPool", channels="first"),
    Op("GlobalLpPool", channels="first"),
    Op("Softmax", samples="mix"),
    Op("LogSoftmax", samples="mix"),
    Op("Hardmax", samples="mix"),
    Op("LpNormalization", samples="mix"),
    Op("CumProd", samples="mix at"),
    Op("CumSum", samples="mix at"),
    Op("DFT", samples="mix at"),
    Op("MeanVarianceNormalization", samples="mix axes"),
    Op("LayerNormalization", samples="mix behind"),
    Op("LRN", channels="first"),
    Op("BatchNormalization", channels="first"),
    Op("InstanceNormalization", channels="first"),
    Op("GRU", samples="recur"),
    Op("LSTM", samples="recur"),
    Op("RNN", samples="recur"),
    Op("MaxRoiPool", samples="rows of their own"),
    Op("NonMaxSuppression", samples="rows of their own"),
    Op("RoiAlign", samples="rows of their own"),
    Op("QuantAvgPool2d", home="qonnx", native=True, grid="keeps sign"),
)
"""What each engine may round in its own way, or add up in its own order."""

_NOT_FOLLOWED = (
    Op("If", samples="not followed", bodies="branches"),
    Op("Loop", samples="not followed", bodies="rounds"),
    Op("Scan", samples="not followed", bodies="slices"),
    Op("ConcatFromSequence", samples="not followed"),
    Op("OptionalGetElement", samples="not followed"),
    Op("SequenceAt", samples="not followed"),
    Op("SequenceMap", samples="not followed"),
    Op("SplitToSequence", samples="not followed"),
)
"""What has bodies, or works on lists of tensors."""

_OF_HWFAULT = (
    Op("TransientFaults", home="hwfault", native=True, exact=True, shape="same", fault_inputs=_DRAWN),
    Op("FaultMap", home="hwfault", native=True, exact=True, shape="same", fault_inputs=_ROWS),
    Op("IntermittentFaults", home="hwfault", native=True, exact=True, shape="same", fault_inputs=_ROWS + _DRAWN),
    Op("ProtectedFaults", home="hwfault", native=True, exact=True, shape="same", fault_inputs=_ROWS + _DRAWN + _MEMORY),
    Op("ClippedRange", home="hwfault", native=True, exact=True, shape="same", fault_inputs=()),
    Op(ARRAY_OP, home="hwfault", native=True, exact=True, shape="same"),
    Op(AFFINE, home="hwfault", native=True, exact=True, shape="same"),
)

_RANDOM = (
    Op("Bernoulli", random=True),
    Op("Multinomial", random=True),
    Op("RandomNormal", random=True, samples="rows of their own"),
    Op("RandomNormalLike", random=True),
    Op("RandomUniform", random=True, samples="rows of their own"),
    Op("RandomUniformLike", random=True),
)

TABLE = (
    *_QUANTIZERS,
    *_OWN_INTEGERS,
    *_LAYERS,
    *_MOVES,
    *_PICKS,
    *_ROUNDS_ONCE,
    *_ROUNDS_IN_ITS_WAY,
    *_NOT_FOLLOWED,
    *_RANDOM,
    *_OF_HWFAULT,
)
_ROW = {op.name: op for op in TABLE}
_UNKNOWN = Op("")
_QLINEAR = Op("QLinear", home="microsoft", own_integers=True)
"""What onnxruntime and others have beside ONNX' two ops of that prefix."""


def of(name: str) -> Op:
    """The row of an op; one without any property where the table has none."""
    return _ROW.get(name) or (_QLINEAR if name.startswith("QLinear") else _UNKNOWN)


def names(has: Callable[[Op], bool]) -> tuple[str, ...]:
    """The names of the ops that have something, in the order of the table."""
    return tuple(op.name for op in TABLE if has(op))


GRID_OPS = names(lambda op: op.grid == "makes")
"""The ops whose outputs are integers on a grid that the node tells."""
FAULT_OPS = {op.name: op.fault_inputs for op in TABLE if op.fault_inputs is not None}
"""The ops that strike codes, and their inputs behind values, scale and zero point."""
