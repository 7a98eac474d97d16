"""The table of ops: it has all that the library, ONNX and QONNX have to do with, and what it says of each is true."""

import ast
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference
from qonnx.custom_op.registry import is_custom_op

import hwfault
from hwfault.graph import ops
from hwfault.graph.run.qonnx_ops import custom_op
from tests.helpers.graph.ops import QONNX, load

PACKAGE = Path(hwfault.__file__).parent
REGISTER = Path(__file__).parents[2] / "export" / "src" / "ort_register.cc"
STRINGS = {
    node.value
    for path in (PACKAGE / "graph").rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
}


def test_each_op_has_one_row():
    named = [op.name for op in ops.TABLE]
    assert len(named) == len(set(named))


def test_the_library_and_the_table_have_the_same_ops():
    """`native` says that there is a kernel; onnxruntime does not tell what a library registered, its source does."""
    source = REGISTER.read_text(encoding="utf-8")
    registered = set(re.findall(r"new Op<(\w+)", source))
    assert len(registered) > 10
    assert registered == set(ops.names(lambda op: op.native))
    of_qonnx = re.search(r"for \(const char\* domain : \{([^}]*)\}\)", source)
    assert tuple(re.findall(r'"([^"]+)"', of_qonnx[1])) == (ops.QUANT_DOMAIN, *ops.OLD_DOMAINS)
    assert set(re.findall(r'add\("([^"]+)"', source)) == {ops.DOMAIN}


def test_ops_of_qonnx_that_are_named_have_a_row():
    named = {text for text in STRINGS if text.isidentifier() and is_custom_op(ops.QUANT_DOMAIN, text)}
    assert {"Quant", "Trunc", "DebugMarker"} <= named
    for name in named:
        assert ops.of(name).home == "qonnx", name
    assert set(custom_op) == set(ops.names(lambda op: op.home == "hwfault"))


def test_ops_of_onnx_are_onnxs():
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    for op in ops.TABLE:
        assert (op.name in known) == (op.home == "onnx"), op.name


def test_an_op_that_nobody_knows_has_no_property():
    assert ops.of("Sparkle") == ops.Op("")
    assert ops.of("QLinearAdd").own_integers


def test_properties_go_together():
    for op in ops.TABLE:
        assert op.exact or op.grid != "keeps", f"{op.name} moves or picks, and so all engines agree"
        assert op.grid == "makes" or not op.quantizer, op.name
        assert op.fault_inputs is None or (op.home == "hwfault" and op.native), op.name


# who names ops

LISTS = (ast.Tuple, ast.List, ast.Set)


def op_names(node):
    """The names of ops in a collection that is written down, or in a text that is split into one."""
    held = []
    if isinstance(node, LISTS):
        held = node.elts
    elif isinstance(node, ast.Dict):
        held = [*node.keys, *node.values]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split":
        text = node.func.value
        held = [ast.Constant(word) for word in text.value.split()] if isinstance(text, ast.Constant) else []
    texts = [entry.value for entry in held if isinstance(entry, ast.Constant)]
    return [text for text in texts if isinstance(text, str) and ops.of(text) is not ops.of("")]


def collections_of_ops(source):
    """The places in a source where two or more ops are named together."""
    return [(node.lineno, found) for node in ast.walk(ast.parse(source)) if len(found := op_names(node)) > 1]


@pytest.mark.parametrize("room", ["graph", "proof"])
def test_nobody_else_has_a_list_of_ops(room):
    for path in (PACKAGE / room).rglob("*.py"):
        if path != PACKAGE / "graph" / "ops.py":
            assert not collections_of_ops(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "source",
    [
        '("Add", "Sub")',
        'x in {"Relu", y, "Clip"}',
        '{"Add": 1, "Conv": 2}',
        '"Add Relu".split()',
        '[1, ["Add", "Mul"]]',
    ],
)
def test_the_walk_sees_every_list_of_ops(source):
    assert len(collections_of_ops(source)) == 1
    assert not collections_of_ops(
        source.replace("Relu", "?").replace("Sub", "?").replace("Mul", "?").replace("Conv", "?")
    )


# what the table says of ops, asked of ONNX, onnxruntime and the library


def infer(node, shapes, kinds, out):
    """The shape that ONNX infers for a node's first output."""
    inputs = [helper.make_tensor_value_info(n, k, s) for n, k, s in zip(node.input, kinds, shapes, strict=True)]
    outputs = [helper.make_tensor_value_info(node.output[0], out, None)]
    opset = helper.make_opsetid("", max(17, onnx.defs.get_schema(node.op_type).since_version))
    model = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=[opset])
    (found,) = shape_inference.infer_shapes(model, strict_mode=True).graph.output
    return [extent.dim_value for extent in found.type.tensor_type.shape.dim]


def kind_of(schema, formal):
    """A type of numbers, if the op takes them."""
    allowed = next((c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == formal.type_str), ())
    return TensorProto.FLOAT if "tensor(float)" in allowed or formal.type_str == "tensor(float)" else TensorProto.BOOL


@pytest.mark.parametrize("name", ops.names(lambda op: op.home == "onnx" and op.elementwise))
def test_shapes_are_those_of_the_first_input_or_of_all(name):
    schema = onnx.defs.get_schema(name, max(17, onnx.defs.get_schema(name).since_version))
    count = 1 if ops.of(name).shape == "same" else max(schema.min_input, 2)
    formals = [schema.inputs[min(i, len(schema.inputs) - 1)] for i in range(count)]
    shapes = [[2, 3, 4], [3, 1], [1, 4]][:count]
    attributes = {"to": TensorProto.FLOAT} if name == "Cast" else {"fmod": 1} if name == "Mod" else {}
    node = helper.make_node(name, [f"x{i}" for i in range(count)], ["y"], **attributes)
    kinds = [kind_of(schema, formal) for formal in formals]
    assert infer(node, shapes, kinds, kind_of(schema, schema.outputs[0])) == [2, 3, 4]
    if ops.of(name).shape == "broadcast" and name != "PRelu":  # whose slopes lie along its input
        assert infer(node, shapes[::-1], kinds, kind_of(schema, schema.outputs[0])) == [2, 3, 4]


X = np.random.default_rng(5).integers(1, 100, (1, 4, 4, 6)).astype(np.float32)
KEEPS = {
    "Compress": ("Compress", {"axis": 2}, [np.array([True, False, True])]),
    "DepthToSpace": ("DepthToSpace", {"blocksize": 2}, []),
    "Expand": ("Expand", {}, [[3, 4, 4, 6]]),
    "Flatten": ("Flatten", {}, []),
    "Gather": ("Gather", {"axis": 1}, [[3, 0]]),
    "GatherElements": ("GatherElements", {"axis": 1}, [np.ones((1, 2, 4, 6), np.int64)]),
    "GatherND": ("GatherND", {}, [[[0, 1], [0, 3]]]),
    "GlobalMaxPool": ("GlobalMaxPool", {}, []),
    "Identity": ("Identity", {}, []),
    "Im2Col": ("Im2Col", {"kernel_size": [2, 2], "stride": [1, 1], "input_shape": "", "pad_amount": [1, 1, 1, 1]}, []),
    "MaxPool": ("MaxPool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, []),
    "MaxPoolNHWC": ("MaxPoolNHWC", {"kernel_shape": [2, 2], "strides": [1, 1]}, []),
    "Pad": ("Pad", {}, [[0, 0, 1, 1, 0, 0, 2, 0]]),
    "ReduceMax": ("ReduceMax", {"axes": [2]}, []),
    "ReduceMin": ("ReduceMin", {"axes": [1, 3]}, []),
    "Relu": ("Relu", {}, []),
    "Reshape": ("Reshape", {}, [[0, -1]]),
    "Slice": ("Slice", {}, [[1], [3], [2]]),
    "SpaceToDepth": ("SpaceToDepth", {"blocksize": 2}, []),
    "Split": ("Split", {"axis": 1}, [[4]]),
    "Squeeze": ("Squeeze", {}, [[0]]),
    "Tile": ("Tile", {}, [[1, 2, 1, 1]]),
    "Transpose": ("Transpose", {}, []),
    "Unsqueeze": ("Unsqueeze", {}, [[0]]),
}


def test_each_op_that_keeps_integers_is_tried():
    assert set(KEEPS) == set(ops.names(lambda op: op.grid == "keeps")) - {"DebugMarker"}  # which no engine runs


@pytest.mark.parametrize("name", KEEPS)
def test_what_keeps_integers_makes_no_others(name):
    """Every number behind it is one before it, or 0, to the bit; asked of onnxruntime with hwfault's library."""
    op, attributes, constants = KEEPS[name]
    held = [numpy_helper.from_array(np.asarray(value), f"c{i}") for i, value in enumerate(constants)]
    domain = QONNX if ops.of(name).home == "qonnx" else ""
    node = helper.make_node(op, ["x", *(tensor.name for tensor in held)], ["y"], domain=domain, **attributes)
    x, y = (
        helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in (("x", X.shape), ("y", None))
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    model = helper.make_model(helper.make_graph([node], "one", [x], [y], held), opset_imports=opsets, ir_version=8)
    values = X * np.float32(0.3) - np.float32(7.5)
    (found,) = load(model).run(None, {"x": values})
    assert found.size
    assert set(found.ravel()) <= {*values.ravel(), np.float32(0)}
