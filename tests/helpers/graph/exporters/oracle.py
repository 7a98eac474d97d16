"""What a graph of ONNX' own integers computes, node by node, in float64 and integers.

Each node is given what the session under test gave it, so that one rounding does not carry on to the next node.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hwfault.graph.run.session import run, session
from tests.helpers.graph.exporters.census import count

Array = NDArray[Any]
CLOSE = 1e-5
ROUNDING = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Sub", "Div", "Softmax", "Sigmoid", "GlobalAveragePool", "Clip")


class Difference(NamedTuple):
    """A node whose output is not the oracle's: how many numbers differ, and whether rounding explains all of them."""

    node: str
    numbers: int
    of: int
    rounding: bool


def compare(model: ModelProto, x: Array) -> list[Difference]:
    """The nodes whose outputs in a session differ from what they are said to compute, given the session's inputs."""
    seen = tensors_of(model, x)
    opsets = list(model.opset_import)
    differences = []
    for node in model.graph.node:
        given = [seen[name] if name else None for name in node.input]
        expected = compute(node, given, opsets)
        for name, exact in zip(node.output, expected, strict=False):
            if not name:
                continue
            difference = _compare(node, seen[name], exact)
            if difference is not None:
                differences.append(difference)
    return differences


def numbers(model: ModelProto, x: Array) -> int:
    """How many numbers the nodes of a graph make."""
    seen = tensors_of(model, x)
    return sum(seen[name].size for node in model.graph.node for name in node.output if name)


def tensors_of(model: ModelProto, x: Array) -> dict[str, Array]:
    """Every tensor of a graph in a session without optimisation."""
    watched = ModelProto()
    watched.CopyFrom(model)
    made = {name for node in model.graph.node for name in node.output if name}
    made -= {info.name for info in model.graph.output}
    narrow = set(count(model).narrow)  # which onnxruntime hands to nobody
    for name in sorted(narrow):
        watched.graph.node.append(helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.UINT8))
    shown = sorted(f"{name}_wide" if name in narrow else name for name in made)
    watched.graph.output.extend(ValueInfoProto(name=name) for name in shown)
    running = session(watched, threads=1, graph_optimization="none")
    names = [entry.name for entry in running.get_outputs()]
    values = dict(zip(names, run(running, x), strict=True))
    values |= {name: values[f"{name}_wide"].astype(ml_dtypes.uint4) for name in narrow}
    values |= {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values[model.graph.input[0].name] = x
    return values


def compute(node: NodeProto, given: list[Array | None], opsets: list[Any]) -> list[Array]:
    """What a node makes: real numbers before the rounding where it makes integers of them."""
    op = node.op_type
    if op == "QuantizeLinear":
        return [_quantized(_wide(given[0]), node, given[1], given[2] if len(given) > 2 else None)]
    if op in ("QLinearConv", "QLinearMatMul", "QGemm") or (op.startswith("QLinear")):
        return [_on_integers(node, given, opsets)]
    if op in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat"):
        return [_matmul_to_float(node, given, opsets)]
    kinds = {"f"}
    wide = [None if v is None else v.astype(np.float64) if v.dtype.kind in kinds and _adds(op) else v for v in given]
    return [np.asarray(made) for made in by_onnx(node, wide, opsets)]


def _adds(op: str) -> bool:
    """Whether the reference evaluator is asked in float64."""
    return op in (
        "Conv",
        "Gemm",
        "MatMul",
        "Add",
        "Mul",
        "Sub",
        "Div",
        "Softmax",
        "Sigmoid",
        "GlobalAveragePool",
        "Clip",
    )


def by_onnx(node: NodeProto, given: list[Array | None], opsets: list[Any]) -> list[Array]:
    """What onnx's reference evaluator makes of one node."""
    alone = NodeProto()
    alone.CopyFrom(node)
    feeds = {name: value for name, value in zip(node.input, given, strict=True) if name and value is not None}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    out = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    if node.op_type == "DequantizeLinear":  # the evaluator has none before 19, which says the same of these
        opsets = [helper.make_opsetid("", 21)]
    graph = helper.make_graph([alone], "one", infos, out)
    made = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets, ir_version=10)).run(None, feeds)
    return list(made)


def _compare(node: NodeProto, got: Array, exact: Array) -> Difference | None:
    """How an output differs from the exact numbers; None where it does not."""
    assert got.shape == exact.shape, (node.name, got.shape, exact.shape)
    if got.dtype == ml_dtypes.uint4:
        got, exact = got.astype(np.uint8), np.clip(exact, 0, 15)
    if got.dtype.kind in "iu" and exact.dtype.kind == "f":  # codes, whose numbers before the rounding are known
        limits = np.iinfo(got.dtype)
        inside = np.clip(exact, limits.min, limits.max)
        differing = got != np.rint(inside)
        explained = np.abs(got.astype(np.float64) - inside) <= 0.5 + CLOSE * (1 + np.abs(inside))
    else:
        differing = got != exact.astype(got.dtype)
        scale = np.abs(exact).max() if exact.size and got.dtype.kind == "f" else 0
        explained = np.abs(got.astype(np.float64) - exact) <= CLOSE * scale
    if not differing.any():
        return None
    return Difference(f"{node.op_type} {node.name}", int(differing.sum()), got.size, bool(explained.all()))


def _wide(values: Array | None) -> Array:
    assert values is not None
    return values.astype(np.float64)


def _along(values: Array, node: NodeProto, rank: int, axis: int | None = None) -> Array:
    """Numbers along one axis of values of that rank."""
    if values.ndim != 1 or values.size == 1:
        return values.reshape(()) if values.size == 1 else values
    own = next((a.i for a in node.attribute if a.name == "axis"), 1) if axis is None else axis
    return values.reshape([-1 if i == own % rank else 1 for i in range(rank)])


def _quantized(values: Array, node: NodeProto, scale: Array | None, zero: Array | None) -> Array:
    """Real numbers of codes: x / scale, rounded, + zero point; a zero point is even or odd, and the tie with it."""
    worth = _wide(scale)
    blocks = next((a.i for a in node.attribute if a.name == "block_size"), 0)
    assert not blocks, "no case quantizes in blocks"
    added = np.zeros(1) if zero is None else _wide(zero)
    return np.rint(_near(values / _along(worth, node, values.ndim))) + _along(added, node, values.ndim)


def _near(values: Array) -> Array:
    """Numbers as float32 has them: x / scale is worked out in it."""
    return values.astype(np.float32).astype(np.float64)


def _dequantized(values: Array, scale: Array, zero: Array | None, along: tuple[int, ...] | None = None) -> Array:
    shape = along if along is not None and scale.size > 1 else ()
    worth = _wide(scale).reshape(shape) if scale.size == 1 or along else _wide(scale)
    taken = np.zeros(()) if zero is None else _wide(zero)
    taken = taken.reshape(shape if taken.size > 1 else ())
    return (_wide(values) - taken) * worth


def _on_integers(node: NodeProto, given: list[Array | None], opsets: list[Any]) -> Array:
    """What a layer of QOperator is said to compute, in float64, before it is rounded."""
    op = node.op_type
    twin = helper.make_node(op.removeprefix("QLinear") if op != "QGemm" else "Gemm", [], ["y"])
    twin.attribute.extend(a for a in node.attribute if a.name != "channels_last")
    if op in ("QLinearConv", "QLinearMatMul", "QGemm"):
        reads, scale, zero = _operands_of_layer(op, node, given)
    elif op == "QLinearConcat":
        scale, zero = given[0], given[1]
        triples = [given[i : i + 3] for i in range(2, len(given), 3)]
        reads = [_dequantized(*triple) for triple in triples]
    elif op in ("QLinearAdd", "QLinearMul"):
        reads = [_dequantized(*given[:3]), _dequantized(*given[3:6])]
        scale, zero = given[6], given[7] if len(given) > 7 else None
    else:
        reads = [_dequantized(*given[:3])]
        scale, zero = given[3], given[4] if len(given) > 4 else None
        if op == "QLinearSoftmax":
            del twin.attribute[:]
            twin.attribute.extend(a for a in node.attribute if a.name == "axis")
    twin.input.extend(f"in{i}" for i in range(len(reads)))
    (made,) = by_onnx(twin, reads, [o for o in opsets if o.domain in ("", "ai.onnx")])
    if scale is None:
        return made
    return made / _wide(scale).reshape(()) + (0 if zero is None else _wide(zero).reshape(()))


def _operands_of_layer(op: str, node: NodeProto, given: list[Array | None]) -> Any:
    """The real operands of a layer that adds up products, and the scale and zero point of what it makes."""
    x, x_scale, x_zero, w, w_scale, w_zero, *rest = given
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    along = {"QLinearConv": (-1, 1, 1, 1), "QGemm": (-1, 1) if transposed else (1, -1)}.get(op, (1, -1))
    reads = [_dequantized(x, x_scale, x_zero), _dequantized(w, w_scale, w_zero, along)]
    if op == "QLinearMatMul":
        return reads, rest[0], rest[1]
    if op == "QGemm":
        bias, scale, zero = [*rest, None, None, None][:3]
    else:
        scale, zero, bias = [*rest, None][:3]
    if bias is not None:
        reads.append(_wide(bias) * _wide(x_scale).reshape(()) * _wide(w_scale).reshape(-1))
    return reads, scale, zero


def _matmul_to_float(node: NodeProto, given: list[Array | None], opsets: list[Any]) -> Array:
    if node.op_type == "MatMulIntegerToFloat":
        a, b, a_scale, b_scale, a_zero, b_zero, bias = [*given, *[None] * 7][:7]
        left = _dequantized(a, a_scale, a_zero)
    else:
        a, b, b_scale, b_zero, bias = [*given, *[None] * 5][:5]
        one = helper.make_node("DynamicQuantizeLinear", ["a"], ["q", "s", "z"])
        q, scale, zero = by_onnx(one, [a], [o for o in opsets if o.domain in ("", "ai.onnx")])
        left = _dequantized(q, scale, zero)
    made = left @ _dequantized(b, b_scale, b_zero, (1, -1))
    return made if bias is None else made + bias
