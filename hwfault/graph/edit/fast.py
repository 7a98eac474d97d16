"""Graphs that are only run: what is known beforehand is computed beforehand, and onnxruntime's own fusions work again.

onnxruntime neither folds custom ops nor fuses across them. A quantizer of constants is therefore computed once, by the
very op that would compute it at each run; then a layer and the BatchNormalization behind it, or what is multiplied and
added in its place, are one layer to onnxruntime. Where faults strike the weights, which keeps them from being
constants, the gain goes into the weights and into the scale that the faults read: their codes, and so the faults, stay
the same. Where the seed is known beforehand, so are the faulty weights, which are constants then; permanent faults
always are.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hwfault.graph import ops
from hwfault.graph.edit.editing import Edit, copy_model, count_of, read_names
from hwfault.graph.edit.fold import fold_affine_nodes
from hwfault.graph.ops import DOMAIN, FAULT_OPS
from hwfault.graph.read.external import check_in_memory
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.read.qonnxgraph import Constants, attribute, replace_nodes, set_metadata
from hwfault.stream.check import signed64

Array = NDArray[Any]

Compute = Callable[[ModelProto], list[Array]]
"""Runs a graph without inputs: its outputs."""

FOR_SEED = f"{DOMAIN}.for_seed"
"""Metadata key of a graph that holds the faulty weights of one seed: that seed."""


def only_to_run(model: ModelProto, compute: Compute, seed: int | None = None) -> ModelProto:
    """The same graph for running only: quantized constants, gains and offsets folded into layers with faulty weights.

    `compute` runs what makes the constants. With a seed, which the metadata then name, the faults of weights are
    constants as well. Which faults strike and the codes of weights do not change; values behind a folded gain or
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
    folded = fold_affine_nodes(out)
    _drop_unread(out)
    changes = [f"{count_of(count, 'node')} {op} of constants computed beforehand" for op, count in computed.items()]
    for op, count in folded.items():
        changes.append(f"{count_of(count, 'node')} {op} folded into layers with faulty weights")
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
