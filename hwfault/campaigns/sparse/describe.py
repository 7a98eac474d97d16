"""Brevitas network or QONNX graph -> the description that the native library runs.

It goes by way of the exported graph of integer arithmetic: there every rounding stands as an operation of its own, in
the order in which PyTorch does it under `integer_arithmetic`, whatever the network's forward looks like in Python.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, NodeProto

from hwfault.campaigns.sparse.biases import bias_sites
from hwfault.campaigns.sparse.builder import Value
from hwfault.campaigns.sparse.description import Description, WeightSite
from hwfault.campaigns.sparse.known import Known, know
from hwfault.campaigns.sparse.lowering import Layer, Lowering
from hwfault.campaigns.sparse.values import value_sites
from hwfault.codes import CodeFormat, encode, integers
from hwfault.errors import GraphError, HwfaultError, expect_kind
from hwfault.graph.ops import of
from hwfault.graph.read.integer import is_integer, left
from hwfault.graph.read.qonnxgraph import site_name
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.program.names import first_run
from hwfault.program.processes import Site
from hwfault.program.selectors import names_of
from hwfault.stream.native.network import GoldenRun

if TYPE_CHECKING:
    from torch import nn

Network: TypeAlias = "nn.Module | ModelProto | Description"
_CHECKED = 2
"""How many images show that the description computes what the graph does."""


def describe(network: Network, example: ArrayLike) -> Description:
    """The description of a network (in evaluation, whatever its mode), or of a graph of integer arithmetic.

    `example` is a batch of float32 inputs, samples along axis 0; its first images are run by both the graph and the
    native library, and have to give the same outputs. What comes as a description is returned. Raises GraphError, in
    one sentence that names the layer or operation and says why, for what the description cannot carry: nothing is ever
    approximated.
    """
    if isinstance(network, Description):
        return network
    batch = images_of(example)
    graph = network if isinstance(network, ModelProto) else _exported(network, batch[:_CHECKED])
    _check_integer(graph)
    found = _described(graph, batch[:1])
    _check_same(found, graph, batch[:_CHECKED])
    return found


def _exported(network: "nn.Module", example: NDArray[np.float32]) -> ModelProto:
    """The graph of integer arithmetic of a network; raises what exporting it does."""
    import torch  # which a graph does without
    from torch import nn

    from hwfault.graph.export.of_network import export

    expect_kind(network, nn.Module, "the network", "a Brevitas network or a QONNX graph")
    return export(network, torch.from_numpy(example.copy()), arithmetic="integer")


def images_of(images: ArrayLike) -> NDArray[np.float32]:
    """A batch as float32 values with samples along axis 0; raises HwfaultError for an empty one."""
    batch = np.ascontiguousarray(images, np.float32)
    if batch.ndim < 2 or not len(batch):
        raise HwfaultError(f"the images have the shape {batch.shape}, expected (images, ...) with an image or more")
    return batch


def _check_integer(graph: ModelProto) -> None:
    if not is_integer(graph):
        raise GraphError(
            "the graph computes in float, so that its sums may differ from engine to engine; export the network with "
            "arithmetic='integer'"
        )
    for name, why in left(graph).items():
        raise GraphError(f"the sparse engine cannot carry {name!r}, which is not computed on integers: {why}")
    inputs = {info.name for info in graph.graph.input} - {tensor.name for tensor in graph.graph.initializer}
    if len(inputs) != 1 or len(graph.graph.output) != 1:
        raise GraphError(
            f"the graph has {len(inputs)} inputs and {len(graph.graph.output)} outputs, expected one of each for the "
            "sparse engine, and no faults"
        )


def _described(graph: ModelProto, image: NDArray[np.float32]) -> Description:
    known = know(graph, image)
    listed = {site.name: site for site in sites(graph) if site.kind == "weight"}
    lowering = Lowering(graph, known, _Bounds(listed, known))
    output = lowering.values.get(graph.graph.output[0].name)
    if not isinstance(output, Value):
        raise GraphError("the graph's output is no tensor of values that depends on its input")
    builder = lowering.builder
    output = builder.turned(output, last=False)
    if output.tensor != len(builder.nodes):  # the last node gives the outputs
        table = np.arange(output.size).reshape(output.shape)
        builder.move([output], table, "output")
    found, refused = _weight_sites(listed, lowering, known)
    values, refused_values = value_sites(graph, known, lowering.quantized)
    biases, refused_biases = bias_sites(graph, known, _bias_quantizers(graph), lowering.addends)
    return Description(
        nodes=tuple(builder.nodes),
        constants=builder.constants,
        weights=builder.weights,
        shape=image.shape[1:],
        outputs=output.size,
        sites=found,
        refused=refused,
        values=values,
        biases=biases,
        refused_others=refused_values | refused_biases,
    )


def _bias_quantizers(graph: ModelProto) -> dict[str, tuple[Site, list[NodeProto]]]:
    """The sites of biases with the nodes that make their values."""
    listed = {site.name: site for site in sites(graph) if site.kind == "bias"}
    found: dict[str, tuple[Site, list[NodeProto]]] = {name: (site, []) for name, site in listed.items()}
    for node in graph.graph.node:
        site = site_of(node, listed) if of(node.op_type).quantizer else None
        if site is not None:
            found[site.name][1].append(node)
    return found


class _Bounds:
    """The largest magnitude that codes of a quantizer's weights have; None for one that is no site of weights."""

    def __init__(self, listed: Mapping[str, Site], known: Known) -> None:
        self._listed, self._known = listed, known

    def __call__(self, quantizer: NodeProto) -> int | None:
        site = site_of(quantizer, self._listed)
        if site is None:
            return None
        form = CodeFormat(site.bit_width, site.signed)
        zero_points = _zero_points(quantizer, self._known)
        ends = np.abs([form.low - zero_points, form.high - zero_points])
        return int(ends.max())


def site_of(node: NodeProto, listed: Mapping[str, Site]) -> Site | None:
    """The weight site that a quantizer of a graph is."""
    name = first_run(site_name(node))
    for site in listed.values():
        if name in names_of(site):
            return site
    return None


def _zero_points(node: NodeProto, known: Known) -> NDArray[np.float32]:
    if node.op_type == "BipolarQuant":
        return np.zeros((), np.float32)
    found: NDArray[np.float32] = known.constants[node.input[2]]
    return found


def _weight_sites(
    listed: Mapping[str, Site], lowering: Lowering, known: Known
) -> tuple[dict[str, WeightSite], dict[str, str]]:
    """The sites whose flips can be carried, and why others cannot."""
    readers: dict[str, list[Layer]] = {name: [] for name in listed}
    for layer in lowering.layers:
        node = lowering.origin.get(layer.source)
        site = None if node is None else site_of(node, listed)
        if site is not None:
            readers[site.name].append(layer)
    found: dict[str, WeightSite] = {}
    refused: dict[str, str] = {}
    for name, layers in readers.items():
        if len(layers) != 1:
            names = ", ".join(repr(layer.name) for layer in layers) or "none"
            refused[name] = f"the layers that read it are {len(layers)} ({names}), expected one"
            continue
        quantizer = lowering.origin[layers[0].source]
        made = _weight_site(listed[name], layers[0], quantizer, known)
        if made is None:
            refused[name] = f"its words are not the weights of {layers[0].name!r} in their order"
        else:
            found[name] = made
    return found, refused


def _weight_site(site: Site, layer: Layer, quantizer: NodeProto, known: Known) -> WeightSite | None:
    """The site with its codes; None if these are not the layer's weights."""
    form = CodeFormat(site.bit_width, site.signed)
    zero_points = _zero_points(quantizer, known)
    values = known.constants[quantizer.output[0]]
    codes = encode(values, known.constants[quantizer.input[1]], zero_points, form)
    if not np.array_equal(integers(codes, form) - zero_points, layer.weights.reshape(codes.shape)):
        return None
    return WeightSite(site, layer.node, codes.reshape(-1), form)


def _check_same(found: Description, graph: ModelProto, images: NDArray[np.float32]) -> None:
    """Raises GraphError unless the native library computes what the graph does."""
    flat = images.reshape(len(images), -1)
    own = GoldenRun(found.parsed(), flat, len(found.nodes), found.outputs).outputs
    (expected,) = run(session(graph, threads=1), images)
    if not np.array_equal(own, expected.reshape(own.shape)):
        raise GraphError(
            "the sparse engine's description of the network does not compute what the network does on the example; "
            "please report it, with the network"
        )
