"""Graphs with quantizers in branches, loops and model functions, and the same graphs written out by hand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tests.helpers.graph.ops import QONNX

CONSTANTS = {"s": 0.25, "z": 0.0, "w": 4.0}
RANDOM = np.random.default_rng(11)
WEIGHTS = RANDOM.uniform(-1, 1, (4, 4)).astype(np.float32)


def quant(source: str, target: str, name: str = "") -> NodeProto:
    """A quantizer of 4 bits."""
    return helper.make_node(
        "Quant", [source, "s", "z", "w"], [target], name=name or f"quant_{target}", domain=QONNX, signed=1, narrow=0
    )


def info(name: str, kind: int = TensorProto.FLOAT, shape: Sequence[str | int] | None = ("n", 4)) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def layer(source: str, target: str, name: str = "") -> list[NodeProto]:
    """Quantized weights `weights`, and the layer that reads them."""
    at = name or target
    return [
        quant("weights", f"{at}_w", f"{at}.weight_quant"),
        helper.make_node("MatMul", [source, f"{at}_w"], [target]),
    ]


def body(nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> GraphProto:
    return helper.make_graph(list(nodes), "body", list(inputs), list(outputs))


def graph(
    nodes: Sequence[NodeProto],
    functions: Sequence[FunctionProto] = (),
    shape: Sequence[str | int] = ("n", 4),
    out: Sequence[str | int] = ("n", 4),
    **constants: object,
) -> ModelProto:
    """x -> a quantizer, `first` -> a -> `nodes` -> y."""
    held = {key: np.float32(value) for key, value in CONSTANTS.items()} | {"weights": WEIGHTS} | constants
    tensors = [numpy_helper.from_array(np.asarray(value), key) for key, value in held.items()]
    made = helper.make_graph(
        [quant("x", "a", "first"), *nodes], "g", [info("x", shape=shape)], [info("y", shape=out)], tensors
    )
    opsets = [helper.make_opsetid(*domain) for domain in (("", 17), (QONNX, 1), ("local", 1))]
    return helper.make_model(made, opset_imports=opsets, functions=list(functions), ir_version=9)


def loop(*, rounds: int | None = 3, asks: bool = False, ends: bool = False) -> ModelProto:
    """at = a, then in each round at = quantized(at @ quantized weights + round), whose sums are given beside."""
    given = [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("at")]
    again = [helper.make_node("Identity", ["c"], ["again"])]
    if ends:
        again = [helper.make_node("Constant", [], ["again"], value=numpy_helper.from_array(np.array(False)))]
    if asks:
        again = [helper.make_node("Less", ["i", "two"], ["again"])]
    nodes = [
        *layer("at", "sums", "layer"),
        helper.make_node("Cast", ["i"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["sums", "number"], ["moved"]),
        quant("moved", "next", "q"),
        *again,
    ]
    outputs = [info("again", TensorProto.BOOL, []), info("next"), info("sums")]
    count = {} if rounds is None else {"count": np.array(rounds)}
    most = [] if rounds is not None else [helper.make_node("Shape", ["x"], ["both"]), pick("both", "count")]
    nodes = [
        *most,
        helper.make_node("Loop", ["count", "", "a"], ["last", "all"], name="loop", body=body(nodes, given, outputs)),
        helper.make_node("ReduceSum", ["all", "zero"], ["total"], keepdims=0),
        helper.make_node("Add", ["last", "total"], ["y"]),
    ]
    return graph(nodes, zero=np.array([0]), two=np.array(2), first_axis=np.array(0), **count)


def pick(source: str, target: str) -> NodeProto:
    """The first of several numbers."""
    return helper.make_node("Gather", [source, "first_axis"], [target])


def loop_by_hand() -> ModelProto:
    """The same with three rounds, one after the other."""
    nodes = [quant("weights", "held", "layer.weight_quant")]
    at = "a"
    for i in range(3):
        end = f"#{i}" if i else ""
        nodes += [
            helper.make_node("MatMul", [at, "held"], [f"sums{i}"]),
            helper.make_node("Add", [f"sums{i}", f"number{i}"], [f"moved{i}"]),
            quant(f"moved{i}", f"next{i}", f"q{end}"),
        ]
        at = f"next{i}"
    nodes += [
        helper.make_node("Add", ["sums0", "sums1"], ["some"]),
        helper.make_node("Add", ["some", "sums2"], ["total"]),
        helper.make_node("Add", [at, "total"], ["y"]),
    ]
    return graph(nodes, **{f"number{i}": np.float32(i) for i in range(3)})


def branch(condition: bool | None = True) -> ModelProto:
    """A layer and a quantizer in one branch, another quantizer in the other one; None: the graph chooses."""
    then = body([*layer("a", "made", "layer"), quant("made", "out", "q")], [], [info("out")])
    other = body([quant("a", "half", "q"), helper.make_node("Neg", ["half"], ["out"])], [], [info("out")])
    nodes = []
    if condition is None:
        nodes = [
            helper.make_node("ReduceSum", ["x"], ["whole"], keepdims=0),
            helper.make_node("Greater", ["whole", "z"], ["chosen"]),
        ]
    constants = {} if condition is None else {"chosen": np.array(condition)}
    choose = helper.make_node("If", ["chosen"], ["y"], name="if", then_branch=then, else_branch=other)
    return graph([*nodes, choose], **constants)


def scan(samples: int = 2) -> ModelProto:
    """Three slices of a (samples, 3, 4) tensor, each quantized after what was before is added; backwards at the end."""
    inner = body(
        [
            helper.make_node("Add", ["before", "slice"], ["sum"]),
            quant("sum", "after", "q"),
            helper.make_node("Neg", ["after"], ["made"]),
        ],
        [info("before", shape=None), info("slice", shape=None)],
        [info("after", shape=None), info("made", shape=None)],
    )
    nodes = [
        pick_along("a", "start", 1),
        helper.make_node(
            "Scan",
            ["start", "a"],
            ["last", "stacked"],
            name="scan",
            body=inner,
            num_scan_inputs=1,
            scan_input_axes=[1],
            scan_output_axes=[2],
            scan_output_directions=[1],
        ),
        helper.make_node("Unsqueeze", ["last", "two_axis"], ["wide"]),
        helper.make_node("Concat", ["wide", "stacked"], ["y"], axis=2),
    ]
    return graph(nodes, shape=(samples, 3, 4), out=(samples, 4, 4), first_axis=np.array(0), two_axis=np.array([2]))


def pick_along(source: str, target: str, axis: int) -> NodeProto:
    return helper.make_node("Gather", [source, "first_axis"], [target], axis=axis)


def function(*, calls: int = 2) -> ModelProto:
    """A function of a layer and a quantizer, called several times with parameters of its own or shared ones."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    nodes = [*layer("v", "sums", "layer"), quant("sums", "r", "q")]
    made = helper.make_function("local", "Block", ["v", "weights", "s", "z", "w"], ["r"], nodes, opsets)
    names = ["a", *(f"b{i}" for i in range(1, calls)), "y"]
    called = [
        helper.make_node("Block", [names[i], "weights", "s", "z", "w"], [names[i + 1]], name=f"call{i}", domain="local")
        for i in range(calls)
    ]
    return graph(called, [made])


def samples(model: ModelProto, count: int = 5) -> NDArray[np.float32]:
    """A batch for a graph, of as many samples as it is made for."""
    extents = [extent.dim_value for extent in model.graph.input[0].type.tensor_type.shape.dim]
    shape = [extents[0] or count, *extents[1:]]
    return np.random.default_rng(5).uniform(-2, 2, shape).astype(np.float32)


def function_by_hand(x: NDArray[np.float32], calls: int = 2) -> NDArray[np.float32]:
    """What the graph of a function answers, in NumPy."""
    at = on_grid(x)
    for _ in range(calls):
        at = on_grid(at @ on_grid(WEIGHTS))
    return at


def on_grid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (np.clip(np.rint(values * 4), -8, 7) / 4).astype(np.float32)
