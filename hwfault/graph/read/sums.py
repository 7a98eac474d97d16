"""The accumulators of a graph: which layers add up integers, how wide their sums are, whose integers feed them."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from onnx import ModelProto, NodeProto

from hwfault.graph import ops
from hwfault.graph.ops import CHANNELS_LAST
from hwfault.graph.read.grids import NoGridError
from hwfault.graph.read.integer import adds_integers
from hwfault.graph.read.layouts import Layout, align_to_numbered, then
from hwfault.graph.read.names import SUFFIX
from hwfault.graph.read.operands import find_operands
from hwfault.graph.read.places import Places
from hwfault.graph.read.qonnxgraph import SITE, attribute, metadata
from hwfault.graph.read.shapes import whole_shape
from hwfault.graph.read.site_tensor import SiteTensor
from hwfault.program.accumulators import NoAccumulatorError, check_one_scale, check_whole, make_accumulator_site
from hwfault.program.names import first_run, run_name
from hwfault.program.processes import Site


class Sums(NamedTuple):
    """A layer that adds up integers: its site, its node, and the integers that it reads."""

    site: Site
    node: NodeProto
    weights: SiteTensor
    source: SiteTensor
    read: str
    """The tensor of the weights, faults included, before the layer's own transposition."""
    transposed: Layout
    """That transposition; empty for none."""


def find_layers(model: ModelProto) -> list[NodeProto]:
    """The nodes that add up a layer's products; in integer arithmetic some add up further parts of one, or means."""
    nodes = [node for node in model.graph.node if ops.of(node.op_type).accumulates and node.output]
    return [node for node in nodes if not adds_integers(node) or SITE in metadata(node)]


def find_summing_node(node: NodeProto, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    """The node that adds up the products of a layer whose output `node` makes; a bias may be added behind it."""
    if node.op_type != "Add":
        return node if ops.of(node.op_type).accumulates else None
    before = [makers[name] for name in node.input if name in makers]
    return next((maker for maker in before if ops.of(maker.op_type).accumulates), None)


def find_sums(model: ModelProto, places: Places) -> tuple[list[Sums], dict[str, str]]:
    """The accumulators of a graph in its order, each run of a layer, and why the other layers have none."""
    layers: dict[str, list[Sums]] = defaultdict(list)
    obstacles: dict[str, str] = {}
    for node in find_layers(model):
        name = places.names.of_layer(node)
        try:
            layers[name].append(_read_sums(name, node, places))
        except (NoGridError, NoAccumulatorError) as obstacle:
            obstacles[name] = str(obstacle)
    obstacles |= _inside_ops(model, places)
    found = {name: runs[0] for name, runs in layers.items() if len(runs) == 1}
    for name, runs in layers.items():
        if len(runs) > 1:
            found |= _tell_apart(name, runs)
    return [_count_runs(run, found) for name, run in found.items() if name not in obstacles], obstacles


def _inside_ops(model: ModelProto, places: Places) -> dict[str, str]:
    """Why layers that compute on ONNX' own integers have no accumulators that can be struck."""
    return {
        places.names.of_layer(node): (
            f"the node {node.name!r} ({node.op_type}) adds up ONNX' own integers, and its sums cannot be struck; "
            "those of a layer between DequantizeLinear and QuantizeLinear can (quant_format=QuantFormat.QDQ)"
        )
        for node in model.graph.node
        if ops.of(node.op_type).own_integers and ops.of(node.op_type).layer is not None
    }


def _tell_apart(name: str, runs: list[Sums]) -> dict[str, Sums]:
    """The nodes that have the name of one layer, by names of their own."""
    if len({run.weights.site.name for run in runs}) > 1 and SITE not in metadata(runs[0].node):
        names = [run.node.output[0] + SUFFIX for run in runs]  # layers that share a scope by accident
    else:
        names = [run_name(name, i) for i in range(len(runs))]  # of one layer, each of which adds up sums of its own
    found = {}
    for own, run in zip(names, runs, strict=True):
        site = run.site.model_copy(update={"name": own})
        found[own] = run._replace(site=site)
    return found


def _count_runs(run: Sums, found: Mapping[str, Sums]) -> Sums:
    """A run of a layer that says how many there are."""
    layer = first_run(run.site.name)
    runs = sum(first_run(name) == layer for name in found)
    if runs == 1:
        return run
    return run._replace(site=run.site.model_copy(update={"runs": runs}))


def _read_sums(name: str, node: NodeProto, places: Places) -> Sums:
    _check_node(node)
    inputs, read, transposed = find_operands(node, places)
    weights = places.weights(read)
    source = places.source(inputs)
    if weights is None:
        raise NoGridError("its weights are not quantized there")
    if source is None:
        raise NoGridError("its inputs are on the grid of no single quantizer")
    _check_order(node, weights, transposed)
    _check_scales(weights, source)
    check_whole("inputs", whole=source.grid.whole)
    check_whole("weights", whole=weights.grid.whole)
    batch, shape = places.samples_of(name, node.output[0])
    if node.op_type == "Conv" and batch is not None and batch.axis != 0:
        raise NoGridError(f"it is a convolution of {batch}, expected them along axis 0")
    site = make_accumulator_site(
        name,
        node.op_type,
        weights.site.shape or (),
        largest_input=source.grid.largest,
        largest_weight=weights.grid.largest,
        shape=whole_shape(shape),
        source=source.site.name,
    )
    return Sums(site.model_copy(update={"batch": batch}), node, weights, source, read, transposed)


def _check_node(node: NodeProto) -> None:
    if node.domain == CHANNELS_LAST:
        raise NoGridError("its channels lie last; put the faults into the graph before that")
    if len(node.input) < 2:
        raise NoGridError(f"it has {len(node.input)} inputs, expected 2")
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NoGridError("its padding (auto_pad) depends on the input's shape, expected pads")
    factors = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else (1.0, 1.0)
    if factors != (1.0, 1.0) or attribute(node, "transA", 0):
        raise NoGridError("it scales what it adds up (alpha, beta) or transposes its inputs (transA)")


def _check_order(node: NodeProto, weights: SiteTensor, transposed: Layout) -> None:
    """Raises NoGridError for weights that do not lie as the layer's op has them."""
    natural = node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0) == 1)
    expected: Layout = () if natural else (1, 0)
    fits = not weights.layout or len(transposed) in (0, len(weights.layout))
    lies = then(weights.layout, transposed) if transposed and fits else weights.layout
    if not fits or lies != expected:
        raise NoGridError(
            "it reads its weights in another order than (outputs, inputs, kernel) or, a matrix product, its transpose"
        )


def _check_scales(weights: SiteTensor, source: SiteTensor) -> None:
    check_one_scale(source.grid.scale.size)
    shape = weights.site.shape
    if shape is None or len(shape) < 2:
        raise NoGridError("the shape of its weights is not known before the graph runs")
    # a sum is worth one number only if all of its products have one scale: that of the output
    scale = align_to_numbered(weights.grid.scale, weights.layout)
    full = (1,) * (len(shape) - scale.ndim) + scale.shape
    one_an_output = (shape[0],) + (1,) * (len(shape) - 1)
    if scale.size != 1 and full != one_an_output:
        raise NoGridError(
            f"its weights have a scale of shape {list(scale.shape)}, expected one value for all, or for each output"
        )
