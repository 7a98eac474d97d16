"""Reading a QONNX graph: its constants, its metadata, and the names of its sites."""

import re
from collections.abc import Collection, Iterable
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.ops import DOMAIN

SITE = f"{DOMAIN}.site"
"""Metadata key of a node: the name of its site."""
PLAN, PLAN_SHA256 = f"{DOMAIN}.plan", f"{DOMAIN}.plan_sha256"
"""Metadata keys of a graph: the plan it carries, and the hash of that text."""
WORDS = f"{DOMAIN}.words_sha256"
PARAMETER = f"{DOMAIN}.parameter_sha256"  # of the network's parameter, where the graph holds other words
"""Metadata key of a parameter's quantizer: hash of its values in the order of the site's words."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata key of a node: the modules around it, a list in Python's notation, as the dynamo export writes it."""

_QUOTED = re.compile(r"'([^'\\]*)'")
_HANDLER = "export_handler"
_LONGEST_SCOPE = 4096
NUMBERS: dict[int, np.dtype[Any]] = {
    kind: helper.tensor_dtype_to_np_dtype(kind)
    for kind in (
        *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
    )
}
"""The types of numbers that NumPy has as well."""
_ATTRIBUTE_TYPES = {
    int: AttributeProto.INT,
    float: AttributeProto.FLOAT,
    bytes: AttributeProto.STRING,
    list: AttributeProto.INTS,
    tuple: AttributeProto.INTS,
    range: AttributeProto.INTS,
}


class Constants:
    """The constants of a graph by name, decoded when asked for.

    These are initializers, the outputs of Constant nodes, and what Identity and Cast make of either: exporters write
    parameters behind such nodes, too.
    """

    def __init__(self, model: ModelProto) -> None:
        self._tensors: dict[str, TensorProto] = {}
        self._casts: dict[str, tuple[np.dtype[Any], ...]] = {}
        for tensor in model.graph.initializer:
            self.hold(tensor)
        for node in model.graph.node:
            self.note(node)

    def hold(self, tensor: TensorProto) -> None:
        """Takes an initializer for one of them."""
        self._tensors[tensor.name] = tensor

    def note(self, node: NodeProto) -> None:
        """Takes the output of a node for one of them, if it is one."""
        if not node.output:
            return
        held = None
        if node.op_type == "Constant":
            held = _held_by(node)
        elif ops.of(node.op_type).passes_constants and node.input and node.input[0] in self._tensors:
            held = self._pass_on(node)
        if held is not None:
            self._tensors[node.output[0]] = held

    def _pass_on(self, node: NodeProto) -> TensorProto | None:
        """The tensor that an Identity or a Cast passes on; None for a type that is no number's."""
        source = node.input[0]
        casts = self._casts.get(source, ())
        if node.op_type == "Cast":
            number = NUMBERS.get(attribute(node, "to", 0))
            if number is None:
                return None
            casts = (*casts, number)
        self._casts[node.output[0]] = casts
        return self._tensors[source]

    @property
    def names(self) -> Collection[str]:
        return self._tensors.keys()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str) -> NDArray[Any] | None:
        if name not in self._tensors:
            return None
        try:
            values = numpy_helper.to_array(self._tensors[name])
        except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
            raise GraphError(f"the tensor {name!r} of the graph cannot be read: {error}") from None
        for number in self._casts.get(name, ()):
            with np.errstate(all="ignore"):  # whatever a Cast of a number that does not fit makes
                values = values.astype(number)
        return values

    def type_of(self, name: str) -> int:
        """The type of a constant, as ONNX numbers them; 0 for one that is none, or that is cast."""
        return self._tensors[name].data_type if name in self._tensors and not self._casts.get(name) else 0

    def shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self._tensors[name].dims) if name in self._tensors else None


def _held_by(node: NodeProto) -> TensorProto | None:
    """The tensor that a Constant node holds; None for text, and for sparse tensors."""
    if not node.attribute:
        return None
    held = node.attribute[0]
    if held.name == "value":
        tensor: TensorProto = held.t
        return tensor
    if held.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.array(helper.get_attribute_value(held), np.float32))
    if held.name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.array(helper.get_attribute_value(held), np.int64))
    return None


def site_name(node: NodeProto) -> str:
    """The name that a node tells by itself; see hwfault.graph.read.names for what the graph tells beside it.

    The node's metadata `hwfault.site`, else the module that PyTorch's dynamo export notes in its metadata, else what
    the TorchScript scope in its name says (`/features/features.0/weight_quant/export_handler/Quant` is
    `features.0.weight_quant`), else its name, or that of its output.
    """
    own = metadata(node).get(SITE) or dynamo_path(node) or called_path(node) or node.name
    return own or (node.output[0] if node.output else "")


def dynamo_path(node: NodeProto) -> str | None:
    """The path of the module in which the dynamo export says that a node lies; None where it says none."""
    text = metadata(node).get(SCOPES, "")
    scopes = _QUOTED.findall(text) if len(text) <= _LONGEST_SCOPE else []
    path: str = scopes[-2] if len(scopes) > 1 else ""  # the last one is the op itself
    return path.removesuffix(f".{_HANDLER}") or None


def called_path(node: NodeProto) -> str | None:
    """The modules that were called on the way to a node named after a TorchScript scope; None for another name.

    Scopes of nested Sequentials repeat their parent's.
    """
    if not node.name.startswith("/") or len(node.name) > _LONGEST_SCOPE:
        return None
    path: list[str] = []
    for segment in node.name.split("/")[1:-1]:
        if segment.startswith(_HANDLER):
            continue
        if path and segment.startswith(path[-1] + "."):
            path.pop()
        path.append(segment)
    return ".".join(path) or None


def standard_opset(model: ModelProto) -> int:
    """The version of ONNX' own ops that a graph is written in."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def metadata(record: ModelProto | NodeProto) -> dict[str, str]:
    """The metadata of a node or model."""
    return {entry.key: entry.value for entry in record.metadata_props}


def set_metadata(record: ModelProto | NodeProto, values: dict[str, str]) -> None:
    """Writes metadata entries, in place of those with the same keys."""
    kept = [entry for entry in record.metadata_props if entry.key not in values]
    del record.metadata_props[:]
    record.metadata_props.extend(kept)
    for key, value in values.items():
        record.metadata_props.add(key=key, value=value)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute's value, or the default; raises GraphError if its type is not that of a default other than None."""
    found = next((a for a in node.attribute if a.name == name), None)
    if found is None:
        return default
    if found.ref_attr_name:
        raise GraphError(f"the attribute {name!r} of the node {node.name!r} refers to a function's, expected a value")
    expected = _ATTRIBUTE_TYPES.get(type(default), found.type)
    if found.type != expected or found.type not in AttributeProto.AttributeType.values():
        types = AttributeProto.AttributeType
        given, wanted = (types.Name(t) if t in types.values() else str(t) for t in (found.type, expected))
        raise GraphError(
            f"the attribute {name!r} of the node {node.name!r} ({node.op_type}) is of type {given}, expected {wanted}"
        )
    return helper.get_attribute_value(found)


def replace_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Gives the graph another list of nodes."""
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def words_sha256(values: NDArray[np.float32]) -> str:
    """Hash of a parameter's values in C order."""
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
