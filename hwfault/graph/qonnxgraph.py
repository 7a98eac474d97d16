"""Reading a QONNX graph: its constants, its quantizer nodes and the site each of them is."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.plan import Site
from hwfault.profiles.selectors import SiteKind

DOMAIN = "hwfault"
"""Domain of the fault ops, and prefix of every metadata key that hwfault writes."""
SITE = f"{DOMAIN}.site"
"""Metadata key of a node: the name of its site."""
WORDS = f"{DOMAIN}.words_sha256"
"""Metadata key of a parameter's quantizer: hash of its values in the order of the site's words."""
QUANT_DOMAIN = "qonnx.custom_op.general"
QUANT_OPS = ("Quant", "IntQuant", "BipolarQuant")

_ATTRIBUTE_TYPES = {
    int: AttributeProto.INT,
    float: AttributeProto.FLOAT,
    bytes: AttributeProto.STRING,
    list: AttributeProto.INTS,
}
_SUFFIX_KINDS: dict[str, SiteKind] = {"weight_quant": "weight", "bias_quant": "bias", "input_quant": "input"}


class Constants:
    """The constants of a graph by name: initializers and the outputs of Constant nodes, decoded when asked for."""

    def __init__(self, model: ModelProto) -> None:
        self._tensors: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str) -> NDArray[Any] | None:
        if name not in self._tensors:
            return None
        try:
            return numpy_helper.to_array(self._tensors[name])
        except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
            raise GraphError(f"the tensor {name!r} of the graph cannot be read: {error}") from None

    def shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self._tensors[name].dims) if name in self._tensors else None


class GraphSite(NamedTuple):
    """A site and the node that quantizes it; a quantizer that runs twice has two nodes, both of the same site."""

    site: Site
    node: NodeProto


def graph_sites(model: ModelProto) -> list[GraphSite]:
    """Every quantizer node of a QONNX graph that can be a site, in the graph's order.

    A site's name is the node's metadata `hwfault.site`, else what the TorchScript scope in the node's name says
    (`/features/features.0/weight_quant/export_handler/Quant` is `features.0.weight_quant`), else the node's name.
    Raises GraphError if the graph has no quantizer node at all.
    """
    constants = Constants(model)
    return [GraphSite(describe(node, constants), node) for node in quantizers(model) if not _obstacle(node, constants)]


def quantizers(model: ModelProto) -> list[NodeProto]:
    """The quantizer nodes of a graph; raises GraphError if there is none."""
    nodes = [node for node in model.graph.node if node.op_type in QUANT_OPS]
    if not nodes:
        raise GraphError(
            f"the graph has none of the nodes {', '.join(QUANT_OPS)}, so it holds no quantized integers to strike; "
            "expected a QONNX graph, as hwfault's or Brevitas' export writes it"
        )
    return nodes


def describe(node: NodeProto, constants: Constants) -> Site:
    """The site that a quantizer node is; raises GraphError if its integers are not known before it runs."""
    name, obstacle = site_name(node), _obstacle(node, constants)
    if obstacle:
        raise GraphError(f"the node {node.name!r} (site {name!r}) cannot be a site: {obstacle}")
    bipolar = node.op_type == "BipolarQuant"
    shape = constants.shape(node.input[0])
    return Site(
        name=name,
        kind=_kind(name, shape),
        bit_width=1 if bipolar else int(_bit_width(node, constants)),
        signed=bipolar or bool(attribute(node, "signed", 1)),
        shape=shape,
    )


def _obstacle(node: NodeProto, constants: Constants) -> str | None:
    """Why a quantizer node cannot be a site, None if it can."""
    expected = 2 if node.op_type == "BipolarQuant" else 4
    if len(node.input) < expected or not node.output:
        return f"it has {len(node.input)} inputs and {len(node.output)} outputs, expected {expected} and 1"
    named = zip(("scale", "zero point", "bit width"), node.input[1:], strict=False)
    for label, name in named:
        shape = constants.shape(name)
        if shape is None:
            return f"its {label} {name!r} is computed by the graph, expected a constant"
        if sum(extent != 1 for extent in shape) > 1:
            return f"its {label} has shape {list(shape)}, expected one value for the tensor or for each channel"
    width = 1 if node.op_type == "BipolarQuant" else _bit_width(node, constants)
    return None if width in range(1, 33) else f"its bit width is {width}, expected an integer from 1 to 32"


def _bit_width(node: NodeProto, constants: Constants) -> float:
    width = constants.get(node.input[3])
    return float(width.item()) if width is not None and width.size == 1 else float("nan")


def _kind(name: str, shape: tuple[int, ...] | None) -> SiteKind:
    kind = _SUFFIX_KINDS.get(name.rpartition(".")[2])
    if shape is None:
        return "input" if kind == "input" else "activation"
    return kind if kind in ("weight", "bias") else "weight" if len(shape) > 1 else "bias"


def site_name(node: NodeProto) -> str:
    """The name of the site that a node is."""
    return metadata(node).get(SITE) or _from_scope(node.name)


def _from_scope(node_name: str) -> str:
    """Module path of a node named after a TorchScript scope; scopes of nested Sequentials repeat their parent's."""
    if not node_name.startswith("/"):
        return node_name
    path: list[str] = []
    for segment in node_name.split("/")[1:-1]:
        if segment.startswith("export_handler"):
            continue
        if path and segment.startswith(path[-1] + "."):
            path.pop()
        path.append(segment)
    return ".".join(path) or node_name


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
