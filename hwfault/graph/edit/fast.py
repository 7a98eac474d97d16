"""Graphs that are only run: what is known beforehand is computed beforehand, and onnxruntime's own fusions work again.

onnxruntime neither folds custom ops nor fuses across them. A quantizer of constants is therefore computed once, by the
very op that would compute it at each run; then a layer and the BatchNormalization behind it are one layer to
onnxruntime. Where faults strike the weights, which keeps them from being constants, the gain of the BatchNormalization
goes into the weights and into the scale that the faults read: their codes, and so the faults, stay the same. Where the
seed is known beforehand, so are the faulty weights, which are constants then; permanent faults always are.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hwfault.graph import ops
from hwfault.graph.ops import DOMAIN, FAULT_OPS
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.qonnxgraph import Constants, attribute, replace_nodes, set_metadata
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
    fits its plan's checks.
    """
    out = ModelProto()
    out.CopyFrom(model)
    _release_maps(out)
    _compute_constants(out, compute, seed)
    _fold_normalizations(out)
    if seed is not None:
        set_metadata(out, {FOR_SEED: str(seed)})
    return out


def _release_maps(model: ModelProto) -> None:
    """Takes away what keeps qonnx from folding the maps of parameters: their last inputs, which they never read."""
    for node in model.graph.node:
        if node.domain == DOMAIN and node.op_type == "FaultMap":
            del node.input[6:]


def _compute_constants(model: ModelProto, compute: Compute, seed: int | None) -> None:
    """Replaces quantizers and faults of constants by their values."""
    constants, needed = Constants(model), {info.name for info in model.graph.output}
    known = {""} if seed is None else {"", SEED, FIRST_SAMPLE}
    ready: list[NodeProto] = []
    for node in model.graph.node:
        computed = all(name in constants or name in known for name in node.input)
        if _foldable(node) and computed and not needed.intersection(node.output):
            ready.append(node)
            known.update(node.output)
    if not ready:
        return
    done = {name for node in ready for name in node.output}
    rest = [node for node in model.graph.node if not done.intersection(node.output)]
    read = [name for name in dict.fromkeys(name for node in rest for name in node.input) if name in done]
    values = _computed(model, ready, read, compute, seed)
    replace_nodes(model, rest)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in zip(read, values, strict=True)
    )
    _drop_unread(model)


def _foldable(node: NodeProto) -> bool:
    if node.domain == DOMAIN:
        return node.op_type in FAULT_OPS and not attribute(node, "batched", 1)
    return ops.of(node.op_type).foldable


def _computed(
    model: ModelProto, nodes: list[NodeProto], names: list[str], compute: Compute, seed: int | None
) -> list[Array]:
    """What nodes make of constants, computed by onnxruntime itself."""
    part = ModelProto()
    part.CopyFrom(model)
    makers = [node for node in model.graph.node if node.op_type == "Constant"]
    replace_nodes(part, [*makers, *nodes])
    for field in (part.graph.input, part.graph.output, part.graph.value_info, part.metadata_props):
        del field[:]
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    numbers = {SEED: signed64(seed or 0), FIRST_SAMPLE: 0}  # parameters have sample number 0
    part.graph.initializer.extend(numpy_helper.from_array(np.array(n, np.int64), name) for name, n in numbers.items())
    _drop_unread(part)
    return compute(part) if names else []


def _drop_unread(model: ModelProto) -> None:
    """Takes away the constants that nobody reads."""
    read = {name for node in model.graph.node for name in node.input} | {info.name for info in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    named = {tensor.name for tensor in model.graph.initializer} - read
    inputs = [info for info in model.graph.input if info.name not in named]
    del model.graph.initializer[:], model.graph.input[:]
    model.graph.initializer.extend(kept)
    model.graph.input.extend(inputs)


class _Layer(NamedTuple):
    """A convolution whose weights pass through fault nodes, and the BatchNormalization that alone reads it."""

    faults: list[NodeProto]
    conv: NodeProto
    norm: NodeProto


def _fold_normalizations(model: ModelProto) -> None:
    constants = Constants(model)
    for number, layer in enumerate(list(_layers(model))):
        _fold(model, constants, layer, f"{DOMAIN}_folded{number}")
    _drop_unread(model)


def _layers(model: ModelProto) -> Iterator[_Layer]:
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    readers.update(info.name for info in model.graph.output)
    for norm in model.graph.node:
        conv = makers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or len(norm.output) != 1 or readers[conv.output[0]] != 1:
            continue
        faults: list[NodeProto] = []
        maker = makers.get(conv.input[1])
        while maker is not None and maker.domain == DOMAIN and maker.op_type in FAULT_OPS:
            faults.insert(0, maker)
            maker = makers.get(maker.input[0])
        if faults and all(readers[node.output[0]] == 1 for node in faults):
            yield _Layer(faults, conv, norm)


def _fold(model: ModelProto, constants: Constants, layer: _Layer, prefix: str) -> None:
    """Folds one BatchNormalization, unless its numbers are not constants or a gain would lose codes."""
    names = [*layer.norm.input[1:5], *layer.conv.input[2:], *layer.faults[0].input[:3]]
    found = [constants.get(name) for name in names]
    scales = [constants.get(node.input[1]) for node in layer.faults]
    known = [value for value in found if value is not None]
    if len(known) != len(found) or any(s is None or not np.array_equal(s, scales[0]) for s in scales):  # type: ignore[arg-type]
        return
    gamma, beta, mean, variance, *bias, weights, scale, zero = known
    gain = (gamma / np.sqrt(variance + np.float32(attribute(layer.norm, "epsilon", 1e-5)))).astype(np.float32)
    gains = gain.reshape(-1, *[1] * (weights.ndim - 1))
    new_weights, new_scale = (
        weights * gains,
        (np.broadcast_to(scale, gains.shape) if scale.size == 1 else scale) * gains,
    )
    if new_scale.shape != gains.shape or not _keeps_codes(weights, scale, new_weights, new_scale, zero):
        return
    new = {"weights": new_weights, "scale": new_scale, "bias": beta - mean * gain + (bias[0] * gain if bias else 0)}
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), f"{prefix}.{key}") for key, value in new.items()
    )
    layer.faults[0].input[0] = f"{prefix}.weights"
    for node in layer.faults:
        node.input[1] = f"{prefix}.scale"
    del layer.conv.input[2:]
    layer.conv.input.append(f"{prefix}.bias")
    layer.conv.output[0] = layer.norm.output[0]
    model.graph.node.remove(layer.norm)


def _keeps_codes(weights: Array, scale: Array, new_weights: Array, new_scale: Array, zero: Array) -> bool:
    """Whether the faults find the same integers, also where they put others."""
    with np.errstate(all="ignore"):
        before, after = np.rint(weights / scale + zero), np.rint(new_weights / new_scale + zero)
    usable = bool(np.all(np.isfinite(new_scale)) and np.all(np.abs(new_scale) > np.finfo(np.float32).tiny))
    small = bool(np.all(np.abs(before) + np.abs(zero) < _MOST_INTEGER))
    return usable and small and weights.dtype == np.float32 and np.array_equal(before, after)
