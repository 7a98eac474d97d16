"""Graphs made hostile: one or a few changes at random, drawn from a generator that a case's number seeds."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}

INTEGERS = (0, 1, -1, 2, 3, 5, 31, 32, 33, 64, 255, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, 1 << 62)
INTEGERS += ((1 << 63) - 1, -(1 << 63), -(1 << 31))
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"), 33.0, 2.0**31)
TEXTS = (b"", b"ROUND", b"saturate", b"wrap", b"NHWC", b"C", b"held", b"\xff\xfe", b"secded", b"x" * 300)
LENGTHS = (0, 1, 2, 3, 4, 7, -1, 1 << 20, 1 << 31, 1 << 40, 1 << 62, (1 << 63) - 1)


def hostile(model: ModelProto, rng: random.Random) -> bytes:
    """The bytes of a graph after one to three changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(_CHANGES)(model, rng)
    content = model.SerializeToString()
    return _broken(content, rng) if rng.random() < 0.15 else content


def _broken(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    way = rng.randrange(4)
    if way == 0:
        return bytes(data[: rng.randrange(len(data) + 1)])
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data))
        if way == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 2:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        else:
            length, to = rng.randrange(1, 20), rng.randrange(len(data))
            data[to : to + rng.choice((0, length))] = data[at : at + length]
    return bytes(data)


def _attribute(model: ModelProto, rng: random.Random) -> None:
    """Another value, of the same type or of another; or none; or one more."""
    node = rng.choice(model.graph.node)
    if not node.attribute:
        return
    at = rng.randrange(len(node.attribute))
    old = node.attribute[at]
    if old.type == AttributeProto.INTS and rng.random() < 0.7:
        _number_in(old, rng)
        return
    values: list[Any] = [rng.choice(INTEGERS), rng.choice(FLOATS), rng.choice(TEXTS)]
    values += [[rng.choice(INTEGERS) for _ in range(rng.randrange(1, 9))], [0.5, 1.0], [b"a", b"b"]]
    values += [helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])]
    same = {AttributeProto.INT: values[0], AttributeProto.FLOAT: values[1], AttributeProto.STRING: values[2]}
    new = same[old.type] if old.type in same and rng.random() < 0.7 else rng.choice(values)
    made = helper.make_attribute(old.name, new)
    del node.attribute[at]
    if rng.random() < 0.95:
        node.attribute.insert(at, made)


def _number_in(attribute: AttributeProto, rng: random.Random) -> None:
    numbers = list(attribute.ints)
    at, way = rng.randrange(len(numbers) + 1), rng.randrange(4)
    if way == 0 or not numbers:
        numbers.insert(at, rng.choice(INTEGERS))
    elif way == 1:
        del numbers[at : at + rng.choice((1, 1, 3))]
    elif way == 2:
        numbers[at - 1] = rng.choice(INTEGERS)
    else:
        numbers[at - 1] = max(min(numbers[at - 1] + rng.choice((-1, 1)), (1 << 63) - 1), -(1 << 63))
    del attribute.ints[:]
    attribute.ints.extend(numbers)


def _initializer(model: ModelProto, rng: random.Random) -> None:
    """Other lengths, other numbers, fewer or more bytes, another type, or bytes in a file elsewhere."""
    if not model.graph.initializer:
        return
    tensor, way = rng.choice(model.graph.initializer), rng.randrange(8)
    data, dims = bytearray(tensor.raw_data), list(tensor.dims)
    if way < 3 and data:
        size = len(data) // max(_count(dims), 1) or 1
        at = rng.randrange(max(len(data) // size, 1)) * size
        data[at : at + size] = _number(tensor, rng)[:size]
        tensor.raw_data = bytes(data)
    elif way == 3:
        tensor.raw_data = bytes(data[: rng.randrange(len(data) + 1)])
    elif way == 4:
        tensor.raw_data = bytes(data) + bytes(rng.randrange(1, 64))
    elif way == 5:
        tensor.data_type = rng.randrange(0, 26)
    elif way == 6:
        _lengths(tensor.dims, rng)
    else:
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", rng.choice(("/etc/hostname", "../x", "", "x", "x\0y"))


def _count(dims: list[int]) -> int:
    product = 1
    for length in dims:
        product *= length
    return product


def _number(tensor: TensorProto, rng: random.Random) -> bytes:
    if tensor.data_type in _FLOATS:
        return np.array(rng.choice(FLOATS), _FLOATS[tensor.data_type]).tobytes()
    return np.array(rng.choice(INTEGERS), np.int64).tobytes()


def _lengths(dims: Any, rng: random.Random) -> None:
    lengths = list(dims)
    at = rng.randrange(len(lengths) + 1)
    if lengths and rng.random() < 0.6:
        lengths[at - 1] = rng.choice(LENGTHS)
    elif rng.random() < 0.5:
        lengths.insert(at, rng.choice(LENGTHS))
    else:
        del lengths[at:]
    del dims[:]
    dims.extend(lengths)


def _input_shape(model: ModelProto, rng: random.Random) -> None:
    kind = rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type
    if rng.random() < 0.3:
        kind.elem_type = rng.choice((0, 1, 7, 8, 11, 99))
        return
    shape = kind.shape.dim
    if not shape or rng.random() < 0.2:
        shape.add().dim_value = rng.choice(LENGTHS)
    else:
        rng.choice(shape).dim_value = rng.choice(LENGTHS)


def _wiring(model: ModelProto, rng: random.Random) -> None:
    """An input read from elsewhere (also from behind: a cycle), left out, added, or empty."""
    node = rng.choice(model.graph.node)
    names = [name for n in model.graph.node for name in (*n.input, *n.output)] + ["", "nowhere", "x"]
    at = rng.randrange(len(node.input) + 1)
    way = rng.randrange(4)
    if way == 0 or not node.input:
        node.input.insert(at, rng.choice(names))
    elif way == 1:
        del node.input[at - 1]
    elif way == 2:
        node.input[at - 1] = rng.choice(names)
    elif node.output:
        node.output[0] = rng.choice(names)


def _nodes(model: ModelProto, rng: random.Random) -> None:
    """A node left out, doubled, of another op, of another domain, or in another place."""
    nodes, way = model.graph.node, rng.randrange(5)
    at = rng.randrange(len(nodes))
    copy = NodeProto()
    copy.CopyFrom(nodes[at])
    if way == 0 and len(nodes) > 1:
        del nodes[at]
    elif way == 1:
        nodes.append(copy)
    elif way == 2:
        nodes[at].op_type = rng.choice(("Quant", "FaultMap", "TransientFaults", "Trunc", "ArrayFaults", "Im2Col", "?"))
    elif way == 3:
        nodes[at].domain = rng.choice(("", "hwfault", "qonnx.custom_op.general", "finn", "elsewhere"))
    else:
        del nodes[at]
        nodes.insert(rng.randrange(len(nodes) + 1), copy)


def _texts(model: ModelProto, rng: random.Random) -> None:
    node, way = rng.choice(model.graph.node), rng.randrange(4)
    if way == 0:
        node.name = rng.choice(("", "a" * 500, "\0", "{}%s%n"))
    elif way == 1:
        entry = node.metadata_props.add()
        entry.key, entry.value = rng.choice(("hwfault.site", "hwfault.words_sha256")), "s"
    elif way == 2:
        entry = model.metadata_props.add()
        entry.key, entry.value = rng.choice(("hwfault.plan", "hwfault.plan_sha256")), rng.choice(("{}", "", "[[["))
    else:
        rng.choice(model.opset_import).version = rng.choice((0, 1, 9, 99, -1, 1 << 40))


_CHANGES: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    *(_attribute,) * 5,
    *(_initializer,) * 4,
    *(_input_shape,) * 2,
    *(_wiring,) * 2,
    _nodes,
    _texts,
)
