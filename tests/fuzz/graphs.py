"""Small graphs that hold every op of the library, to be broken (fuzzing) or run from many threads (races)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.stream.protection import Memory
from tests.helpers.stream.programs import ALL, Bit, Cluster, Mask, Random, program

QONNX, HWFAULT = "qonnx.custom_op.general", "hwfault"
INTS = AttributeProto.INTS
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32")
"""The types of words that are integers themselves."""
KINDS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    **{f"tensor({kind})": np.dtype(kind) for kind in INTEGERS},
}
"""The types of inputs, as sessions name them."""
Shape = tuple[int | str, ...]
Constants = dict[str, NDArray[Any]]

BITS = (Bit(7, ((0.05, ALL, ALL),) * 4),)
MIXED = (Bit(3, ((0.02, ALL, 5), (0.0, 0, 0), (1.0, 9, ALL), (0.1, ALL, ALL))), Mask(4, 0.02, 5), Random(5, 0.03))
BURSTS = (Cluster(9, "word", (1 << 20, 1 << 21), (0.01,) * 4), Cluster(10, "bit", (1 << 21,), (0.02,) * 4))
LATE = (4, 11, 8, 7, 2, 3, 4, 5, 2, 1 << 30, 1 << 31)
"""Late bits of an array of 2 columns and 3 rows, in samples of 4 channels of 5 words."""
STRIKE: dict[str, Any] = {"bit_width": 4, "signed": 1, "batched": 1}
ROWS: Constants = {
    "word": np.array([0, 3, 7, 19]),
    "and_mask": np.array([15, 7, 14, 0]),
    "xor_mask": np.array([1, 0, 8, 3]),
}


def value(name: str, shape: Shape | None, kind: int = TensorProto.FLOAT) -> Any:
    """What a graph says of an input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    nodes: list[NodeProto], shape: Shape, constants: Constants, inputs: tuple[Any, ...] = (), kind: int | None = None
) -> ModelProto:
    """A graph from x, of that shape, to the last node's output; both are of the type of its constants or the `kind`."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    if kind is None:
        kind = TensorProto.DOUBLE if any(t.data_type == TensorProto.DOUBLE for t in tensors) else TensorProto.FLOAT
    outputs = [value(nodes[-1].output[0], None, kind)]
    body = helper.make_graph(nodes, "hostile", [value("x", shape, kind), *inputs], outputs, tensors)
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", 17), (QONNX, 1), (HWFAULT, 1))]
    return helper.make_model(body, opset_imports=opsets, ir_version=10)


def node(op: str, inputs: str, output: str = "y", domain: str = QONNX, **attributes: Any) -> NodeProto:
    """A node; lists of integers may be empty."""
    made = helper.make_node(op, inputs.split(), [output], name=f"the {op} of {output}", domain=domain)
    for name, given in attributes.items():
        made.attribute.append(helper.make_attribute(name, given, attr_type=INTS if isinstance(given, list) else None))
    return made


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values if len(values) > 1 else values[0], np.float32)


QUANT: Constants = {"scale": f32(0.25), "zero": f32(0), "bits": f32(4)}
NUMBERS = (value("seed", (), TensorProto.INT64), value("sample", (), TensorProto.INT64))
IMAGE: Shape = ("N", 4, 5, 3)


def quant() -> ModelProto:
    channels: Constants = {"scale": np.full((4, 1, 1), 0.5, np.float32), "zero": f32(1), "bits": f32(4)}
    return graph([node("Quant", "x scale zero bits", signed=1, narrow=0, rounding_mode="ROUND")], IMAGE, channels)


def int_quant() -> ModelProto:
    each: Constants = {"scale": f32(0.5, 1, 2), "zero": f32(0, 1, 0), "bits": f32(3)}
    return graph([node("IntQuant", "x scale zero bits", signed=0, narrow=1, rounding_mode="HALF_UP")], ("N", 3), each)


def bipolar() -> ModelProto:
    return graph([node("BipolarQuant", "x scale")], ("N", 4), {"scale": f32(0.5)})


def trunc() -> ModelProto:
    constants = QUANT | {"out_scale": f32(1), "out_bits": f32(2)}
    return graph([node("Trunc", "x scale zero bits out_scale out_bits", signed=1)], ("N", 6), constants)


def float_quant() -> ModelProto:
    constants = {"scale": f32(1), "e": f32(4), "m": f32(3), "bias": f32(7), "most": f32(448)}
    return graph([node("FloatQuant", "x scale e m bias most", has_nan=1, saturation=1)], ("N", 6), constants)


def threshold() -> ModelProto:
    steps = np.arange(12, dtype=np.float32).reshape(4, 3)
    made = node("MultiThreshold", "x steps", out_scale=0.5, out_bias=-1.0, data_layout="NCHW", out_dtype="INT4")
    return graph([made], IMAGE, {"steps": steps})


def im2col() -> ModelProto:
    made = node("Im2Col", "x", stride=[1, 2], kernel_size=[2, 3], pad_amount=[1, 1, 1, 1], dilations=[1, 1])
    return graph([made], IMAGE, {})


def xnor() -> ModelProto:
    ones = (np.arange(12).reshape(4, 3) % 2).astype(np.float32)
    return graph(
        [node("Sign", "x", "s", ""), node("Relu", "s", "b", ""), node("XnorPopcountMatMul", "b w")],
        ("N", 4),
        {"w": ones},
    )


def average() -> ModelProto:
    made = node("QuantAvgPool2d", "x", kernel=2, stride=1, ibits=4, obits=4, signed=0, data_layout="NCHW")
    return graph([made], ("N", 2, 4, 4), {})


def largest() -> ModelProto:
    made = node("MaxPoolNHWC", "x", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1)
    return graph([made], IMAGE, {})


def wrapped() -> ModelProto:
    made = node("MaxPool", "x", domain="qonnx.custom_op.channels_last", kernel_shape=[2, 2], strides=[1, 1])
    return graph([made, node("MaxPoolNHWC", "y", "z", kernel_shape=[2, 2], auto_pad="SAME_UPPER")], IMAGE, {})


def transient(numbers: tuple[int, ...], shape: Shape = ("N", 20)) -> Callable[[], ModelProto]:
    """A graph of transient faults behind a quantizer."""

    def made() -> ModelProto:
        faults = node("TransientFaults", "q scale zero seed sample", "y", HWFAULT, program=list(numbers), **STRIKE)
        quantizer = node("Quant", "x scale zero bits", "q", signed=1, narrow=0, rounding_mode="ROUND")
        return graph([quantizer, faults], shape, QUANT, NUMBERS)

    return made


def fault_map() -> ModelProto:
    grid: Constants = {"scale": np.full((1, 5), 0.5), "zero": np.zeros(())}
    made = node("FaultMap", "x scale zero word and_mask xor_mask", "y", HWFAULT, **STRIKE)
    return graph([made], ("N", 4, 5), grid | ROWS)


def intermittent() -> ModelProto:
    inputs = "x scale zero word and_mask xor_mask seed sample"
    own = {"threshold": 1 << 31, "site": 7, "refresh": "batch", "representation": 2}
    return graph([node("IntermittentFaults", inputs, "y", HWFAULT, **own, **STRIKE)], ("N", 20), QUANT | ROWS, NUMBERS)


def protected(table: bool) -> Callable[[], ModelProto]:
    """A graph of a protected memory, with transient faults or with a table of cells."""

    def made() -> ModelProto:
        count = 3 if table else 0
        cells = np.arange(count * 8, dtype=np.int64) // 4 * 32 + np.arange(count * 8) % 4
        layout: Constants = {"number": np.arange(count), "cells": cells.reshape(count, 8)}
        own: dict[str, Any] = {"protection": "secded", "data_bits": 8, "slot": 4, "on_detected": "due"}
        numbers = program((Bit(5, ((0.05, ALL, ALL),) * 13),))  # 8 data and 5 check bits
        own |= {"threshold": 1 << 31, "site": 7, "refresh": "inference", "program": [] if table else list(numbers)}
        inputs = "x scale zero word and_mask xor_mask seed sample number cells"
        rows = {name: column[:2] for name, column in ROWS.items()}
        return graph(
            [node("ProtectedFaults", inputs, "y", HWFAULT, **own, **STRIKE)], ("N", 20), QUANT | rows | layout, NUMBERS
        )

    return made


def array(saturate: bool) -> Callable[[], ModelProto]:
    """A convolution whose array has a stuck bit."""

    def made() -> ModelProto:
        weights = (np.arange(36).reshape(2, 2, 3, 3) % 5 - 2).astype(np.float32)
        own: dict[str, Any] = {
            "strides": [1, 1],
            "pads": [1, 1, 1, 1],
            "dilations": [1, 1],
            "order": list(range(17, -1, -1)),
        }
        own |= {"events": [2, 1, 3, 0, 2, 1, 255, 4], "group": 1, "step": 2, "pass_steps": 4, "width": 8}
        own |= {"overflow": "saturate" if saturate else "wrap", "recompute": 0, "channels_last": 0}
        rounded = node("Round", "x", "r", "")
        sums = node("Conv", "r w", "acc", "", pads=[1, 1, 1, 1], kernel_shape=[3, 3])
        return graph(
            [rounded, sums, node("ArrayFaults", "acc r w", "y", HWFAULT, **own)], ("N", 2, 4, 4), {"w": weights}
        )

    return made


def linear_array() -> ModelProto:
    own: dict[str, Any] = {key: [] for key in ("strides", "pads", "dilations", "order", "events")}
    own |= {"width": 6, "step": 3, "channels_last": 1, "recompute": 1, "overflow": "wrap"}
    weights = (np.arange(20).reshape(4, 5) % 7 - 3).astype(np.float32)
    nodes = [node("Round", "x", "r", ""), node("Gemm", "r w", "acc", "", transB=1)]
    return graph([*nodes, node("ArrayFaults", "acc r w", "y", HWFAULT, **own)], ("N", 5), {"w": weights})


def affine() -> ModelProto:
    constants: Constants = {"gain": np.full((4, 1, 1), 0.5, np.float32), "shift": f32(1, 2, 3)}
    return graph([node("Affine", "x gain shift", "y", HWFAULT)], IMAGE, constants)


def of_integers(kind: str, batched: int = 1) -> Callable[[], ModelProto]:
    """A graph through every fault op, of words that are integers of that type themselves."""

    def made() -> ModelProto:
        limits = np.iinfo(kind)
        strike: dict[str, Any] = {"bit_width": limits.bits, "signed": int(limits.min < 0), "batched": batched}
        rows, drawn, shown = "word and_mask xor_mask", "seed sample", {"threshold": 1 << 31, "site": 7}
        own: Constants = {"one": f32(1), "zero": f32(0)} | ROWS
        own |= {"number": np.zeros(0, np.int64), "cells": np.zeros((0, 8), np.int64)}
        flips = program((Bit(7, ((0.05, ALL, ALL),) * limits.bits), Mask(4, 0.02, 5), Random(5, 0.03)))
        held = Memory("secded", data_bits=limits.bits, slot=limits.bits)
        cells = program((Bit(5, ((0.05, ALL, ALL),) * held.sub_word_bits),))
        memory: dict[str, Any] = {"protection": "secded", "data_bits": limits.bits, "slot": limits.bits}
        ranges: dict[str, Any] = {"low": 1, "high": 100, "below": 1, "above": 7}
        nodes = [
            node("TransientFaults", f"x one zero {drawn}", "t", HWFAULT, program=list(flips), **strike),
            node("FaultMap", f"t one zero {rows}", "m", HWFAULT, **strike),
            node("IntermittentFaults", f"m one zero {rows} {drawn}", "i", HWFAULT, **shown, **strike),
            node(
                "ProtectedFaults",
                f"i one zero {rows} {drawn} number cells",
                "p",
                HWFAULT,
                program=list(cells),
                **memory,
                **strike,
            ),
            node("ClippedRange", "p one zero", "y", HWFAULT, **ranges, **strike),
        ]
        given = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return graph(nodes, ("N", 4, 5), own, NUMBERS, given)

    return made


def elsewhere(make: Callable[[], ModelProto], shape: Shape, **lying: int) -> Callable[[], ModelProto]:
    """The same graph of an x of another shape, whose samples do not lie along axis 0."""

    def made() -> ModelProto:
        model = make()
        model.graph.input[0].CopyFrom(value("x", shape, model.graph.input[0].type.tensor_type.elem_type))
        for struck in model.graph.node:
            if struck.domain == HWFAULT:
                struck.attribute.extend(helper.make_attribute(name, given) for name, given in lying.items())
        return model

    return made


GRAPHS: dict[str, Callable[[], ModelProto]] = {
    "quant": quant,
    "int_quant": int_quant,
    "bipolar": bipolar,
    "trunc": trunc,
    "float_quant": float_quant,
    "threshold": threshold,
    "im2col": im2col,
    "xnor": xnor,
    "average": average,
    "largest": largest,
    "wrapped": wrapped,
    "bits": transient(program(BITS)),
    "mixed": transient(program(MIXED)),
    "bursts": transient(program(BURSTS)),
    "late": transient(LATE),
    "fault_map": fault_map,
    "intermittent": intermittent,
    "protected": protected(False),
    "table": protected(True),
    "array": array(False),
    "saturating": array(True),
    "linear_array": linear_array,
    "affine": affine,
    **{f"{kind} words": of_integers(kind) for kind in INTEGERS},
    "int8 parameter": of_integers("int8", batched=0),
    "bits, tokens first": elsewhere(transient(program(BITS)), (4, "N", 5), axis=1),
    "mixed, heads": elsewhere(transient(program(MIXED)), (8, 2, 5), axis=0, rows=4, inner=2),
    "late, samples last": elsewhere(transient(LATE), (20, "N"), axis=1),
    "fault_map, tokens first": elsewhere(fault_map, (4, "N", 5), axis=1, rows=1, inner=1),
    "intermittent, windows": elsewhere(intermittent, (12, 5), axis=0, rows=4, inner=2),
    "table, samples last": elsewhere(protected(True), (20, "N"), axis=1),
    "uint8 words, samples last": elsewhere(of_integers("uint8"), (4, 5, "N"), axis=2),
    "linear_array, tokens": elsewhere(linear_array, (12, 5), axis=0, rows=4, inner=2),
}


def fitting(made: Any) -> Constants:
    """Arrays that a session takes: zeros and ones, 2 samples where the batch is free."""
    feeds: Constants = {}
    for entry in made.get_inputs():
        shape = [d if isinstance(d, int) and 0 <= d < 1 << 20 else 2 for d in entry.shape or []]
        feeds[entry.name] = np.ones(shape, KINDS[entry.type])
    return feeds
