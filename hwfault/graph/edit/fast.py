"""Graphs that are only run: what is known beforehand is computed beforehand, and onnxruntime's own fusions work again.

onnxruntime neither folds custom ops nor fuses across them. A quantizer of constants is therefore computed once, by the
very op that would compute it at each run; then a layer and the BatchNormalization behind it are one layer to
onnxruntime. Where faults strike the weights, which keeps them from being constants, the gain of the BatchNormalization
goes into the weights and into the scale that the faults read: their codes, and so the faults, stay the same. Where the
seed is known beforehand, so are the faulty weights, which are constants then; permanent faults always are.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hwfault.graph import ops
from hwfault.graph.edit.editing import Edit, FreshNames, copy_model, count_of, read_names
from hwfault.graph.ops import DOMAIN, FAULT_OPS
from hwfault.graph.read.external import check_in_memory
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.qonnxgraph import Constants, attribute, replace_nodes, set_metadata
from hwfault.graph.read.shapes import read_by
from hwfault.stream.check import signed64

Array = NDArray[Any]

Compute = Callable[[ModelProto], list[Array]]
"""Runs a graph without inputs: its outputs."""

_MOST_INTEGER = 1 << 20
"""Integers up to this size survive the roundings of a gain on both sides of their division."""


FOR_SEED = f"{DOMAIN}.for_seed"
"""Metadata key of a graph that holds the faulty weights of one seed: that seed."""


def only_to_run(model: ModelProto, compute: Compute, seed: int | None = None) -> ModelProto:
    """The same graph for running only: quantized constants, BatchNormalization folded into layers with faulty weights.

    `compute` runs what makes the constants. With a seed, which the metadata then name, the faults of weights are
    constants as well. Which faults strike and the codes of weights do not change; values behind a folded
    BatchNormalization are those of another order of rounding, as with onnxruntime's own fusions. The graph no longer
    fits its plan's checks. The log `hwfault` is told what was changed; `prepare_to_run` returns it.
    Raises GraphError for a graph with tensors in other files.
    """
    return prepare_to_run(model, compute, seed).log_changes()


def prepare_to_run(model: ModelProto, compute: Compute, seed: int | None = None) -> Edit:
    """The same graph as by `only_to_run`, with a sentence for each kind of change."""
    check_in_memory(model)
    out = copy_model(model)
    _release_maps(out)
    computed = _compute_constants(out, compute, seed)
    folded = _fold_normalizations(out)
    changes = [f"{count_of(count, 'node')} {op} of constants computed beforehand" for op, count in computed.items()]
    if folded:
        changes.append(f"{count_of(folded, 'BatchNormalization')} folded into layers with faulty weights")
    if seed is not None:
        set_metadata(out, {FOR_SEED: str(seed)})
        changes.append(f"the faults of constants are those of seed {seed}")
    return Edit(out, changes)


def _release_maps(model: ModelProto) -> None:
    """Takes away what keeps qonnx from folding the maps of parameters: their last inputs, which they never read."""
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type == "FaultMap":
            del node.input[6:]


def _compute_constants(model: ModelProto, compute: Compute, seed: int | None) -> Counter[str]:
    """Replaces quantizers and faults of constants by their values, in place; how many of each op."""
    ready = _find_computable(model, seed)
    if not ready:
        return Counter()
    done = {name for node in ready for name in node.output}
    rest = [node for node in model.graph.node if not done.intersection(node.output)]
    # the values that others read, all in one run
    read = sorted(read_names(rest) & done)
    values = _compute(model, ready, read, compute, seed)
    replace_nodes(model, rest)
    for name, value in zip(read, values, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    _drop_unread(model)
    return Counter(node.op_type for node in ready)


def _find_computable(model: ModelProto, seed: int | None) -> list[NodeProto]:
    """The quantizers and faults whose inputs are constants, or made by others of them; none makes an output."""
    constants = Constants(model)
    outputs = {info.name for info in model.graph.output}  # whose makers have to stay nodes
    known = {""}  # inputs that are left out
    if seed is not None:
        known |= {SEED, FIRST_SAMPLE}
    ready: list[NodeProto] = []
    for node in model.graph.node:
        computed = all(name in constants or name in known for name in node.input)
        if computed and _is_foldable(node) and not outputs.intersection(node.output):
            ready.append(node)
            known.update(node.output)
    return ready


def _is_foldable(node: NodeProto) -> bool:
    if node.domain == DOMAIN:
        return node.op_type in FAULT_OPS and not attribute(node, "batched", 1)
    return ops.of(node.op_type).foldable


def _compute(
    model: ModelProto, nodes: list[NodeProto], names: list[str], compute: Compute, seed: int | None
) -> list[Array]:
    """What nodes make of constants, computed by onnxruntime itself."""
    part = copy_model(model)
    needed = {name for node in nodes for name in node.output}.union(Constants(model).names)
    replace_nodes(part, [node for node in model.graph.node if needed.intersection(node.output)])
    for field in (part.graph.input, part.graph.output, part.graph.value_info, part.metadata_props):
        del field[:]
    for name in names:
        part.graph.output.append(helper.make_empty_tensor_value_info(name))
    # parameters have sample number 0
    for name, number in ((SEED, signed64(seed or 0)), (FIRST_SAMPLE, 0)):
        part.graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), name))
    _drop_unread(part)
    if not names:
        return []  # nothing is read: there is no graph without outputs to be run
    return compute(part)


def _drop_unread(model: ModelProto) -> None:
    """Takes away the constants that nobody reads."""
    read = read_names(model.graph.node) | {info.name for info in model.graph.output}
    unread = {tensor.name for tensor in model.graph.initializer} - read
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in unread]
    inputs = [info for info in model.graph.input if info.name not in unread]
    del model.graph.initializer[:], model.graph.input[:]
    model.graph.initializer.extend(kept)
    model.graph.input.extend(inputs)


class _Layer(NamedTuple):
    """A convolution whose weights pass through fault nodes, and the BatchNormalization that alone reads it."""

    faults: list[NodeProto]
    conv: NodeProto
    norm: NodeProto


def _fold_normalizations(model: ModelProto) -> int:
    """Folds every BatchNormalization that can be, in place; how many."""
    constants = Constants(model)
    fresh = FreshNames(model)
    folded = 0
    for number, layer in enumerate(list(_find_layers(model))):
        made = _fold(constants, layer)
        if made is not None:
            names = [fresh.take(f"{DOMAIN}_folded{number}.{key}") for key in _Folded._fields]
            _put_in(model, layer, made, names)
            folded += 1
    _drop_unread(model)
    return folded


def _find_layers(model: ModelProto) -> Iterator[_Layer]:
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in read_by(node))
    readers.update(info.name for info in model.graph.output)
    for norm in model.graph.node:
        if norm.op_type != "BatchNormalization" or len(norm.output) != 1:
            continue
        conv = makers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv" or readers[conv.output[0]] != 1:
            continue
        faults = _find_faults(conv.input[1], makers)
        if faults and all(readers[node.output[0]] == 1 for node in faults):
            yield _Layer(faults, conv, norm)


def _find_faults(weights: str, makers: Mapping[str, NodeProto]) -> list[NodeProto]:
    """The fault nodes that a layer's weights pass through, in the order in which they run."""
    faults: list[NodeProto] = []
    maker = makers.get(weights)
    while maker is not None and maker.domain == DOMAIN and maker.op_type in FAULT_OPS:
        faults.insert(0, maker)
        maker = makers.get(maker.input[0])
    return faults


class _Numbers(NamedTuple):
    """What a layer and the BatchNormalization behind it read, all of it constants."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    weights: Array
    scale: Array
    zero_point: Array
    bias: Array | None


class _Folded(NamedTuple):
    """What the layer alone reads, once the BatchNormalization is folded into it."""

    weights: Array
    scale: Array
    bias: Array


def _read_numbers(constants: Constants, layer: _Layer) -> _Numbers | None:
    """The numbers of a layer; None where some are no constants, or its fault nodes have different scales."""
    names = [*layer.norm.input[1:5], *layer.faults[0].input[:3], *layer.conv.input[2:3]]
    known = []
    for name in names:
        value = constants.get(name)
        if value is None:
            return None
        known.append(value)
    gamma, beta, mean, variance, weights, scale, zero_point, *bias = known
    for node in layer.faults[1:]:
        other = constants.get(node.input[1])
        if other is None or not np.array_equal(other, scale):
            return None
    return _Numbers(gamma, beta, mean, variance, weights, scale, zero_point, bias[0] if bias else None)


def _fold(constants: Constants, layer: _Layer) -> _Folded | None:
    """A layer with its BatchNormalization inside; None where its numbers are no constants or a gain loses codes."""
    given = _read_numbers(constants, layer)
    if given is None:
        return None
    epsilon = np.float32(attribute(layer.norm, "epsilon", 1e-5))
    gain = (given.gamma / np.sqrt(given.variance + epsilon)).astype(np.float32)
    # the gain of an output goes into its weights, and into the scale by which the faults read their codes
    gains = gain.reshape(-1, *[1] * (given.weights.ndim - 1))
    weights = given.weights * gains
    scale = given.scale
    if scale.size == 1:
        scale = np.broadcast_to(scale, gains.shape)
    scale = scale * gains
    if scale.shape != gains.shape:
        return None  # a scale along other axes than the outputs
    if not _keeps_codes(given.weights, given.scale, weights, scale, given.zero_point):
        return None
    # what the normalization adds, and the layer's own bias with the gain, is the bias from now on
    bias: Array = given.beta - given.mean * gain
    if given.bias is not None:
        bias = bias + given.bias * gain
    return _Folded(weights, scale, bias)


def _put_in(model: ModelProto, layer: _Layer, made: _Folded, names: Sequence[str]) -> None:
    """Has a layer and its faults read what was made, under these names, in place; the BatchNormalization goes."""
    for name, values in zip(names, made, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    weights, scale, bias = names
    layer.faults[0].input[0] = weights
    for node in layer.faults:
        node.input[1] = scale
    del layer.conv.input[2:]
    layer.conv.input.append(bias)
    layer.conv.output[0] = layer.norm.output[0]
    model.graph.node.remove(layer.norm)


def _keeps_codes(weights: Array, scale: Array, new_weights: Array, new_scale: Array, zero: Array) -> bool:
    """Whether the faults find the same integers, also where they put others."""
    if weights.dtype != np.float32:
        return False
    smallest = np.finfo(np.float32).tiny
    if not np.isfinite(new_scale).all() or not (np.abs(new_scale) > smallest).all():
        return False
    with np.errstate(all="ignore"):
        before = np.rint(weights / scale + zero)
        after = np.rint(new_weights / new_scale + zero)
    # codes that are put there by faults are rounded once on the way: small ones come back from it
    are_small = np.abs(before) + np.abs(zero) < _MOST_INTEGER
    return bool(are_small.all()) and np.array_equal(before, after)
