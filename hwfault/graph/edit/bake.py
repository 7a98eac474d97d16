"""Faults of parameters that are always the same, as constants: a plain graph, without any op of hwfault.

A quantizer with faults behind it reads the faulty values instead, and rounds them to themselves. It stays a quantizer
to whoever reads the graph, and no constant to onnxruntime, which therefore computes all behind it as before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.edit.cut import cut_out
from hwfault.graph.edit.editing import Edit, FreshNames, copy_model, count_of, read_names
from hwfault.graph.edit.strip import UNDO
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.external import check_in_memory
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED, drawn_inputs
from hwfault.graph.read.qonnxgraph import (
    PLAN,
    PLAN_SHA256,
    WORDS,
    Constants,
    attribute,
    metadata,
    replace_nodes,
    set_metadata,
)
from hwfault.graph.read.struck import FaultNode, check_kept, fault_nodes
from hwfault.graph.read.versions import SPEC
from hwfault.stream.check import check_seed, signed64

Array = NDArray[Any]

Compute = Callable[[ModelProto], list[Array]]
"""Runs a graph without inputs: its outputs."""

BAKED, BAKED_SEED = f"{DOMAIN}.baked_plan_sha256", f"{DOMAIN}.baked_seed"
"""Metadata keys of a graph whose constants hold faults: the hash of their plan, and the seed if they were drawn."""

_ALWAYS = 1 << 32
"""The threshold of cells that show their fault always."""


def bake_faults(model: ModelProto, compute: Compute, seed: int | None = None) -> ModelProto:
    """A graph with faults of parameters only, as a plain one whose parameters hold them.

    `compute` runs what makes the faulty parameters. With a `seed` faults that are drawn are those of that seed; without
    one they have to be permanent. Outputs are those of the graph with faults, to the last bit, as long as onnxruntime
    fuses nothing anew: a parameter that no quantizer can hold becomes a constant, of which the log `hwfault` tells, as
    of all that was changed; `bake` returns that.
    Raises GraphError for a graph without faults, with faults elsewhere, with drawn ones and no seed, with lost fault
    nodes, with other ops of hwfault (integer arithmetic) and with tensors in other files.
    """
    return bake(model, compute, seed).log_changes()


def bake(model: ModelProto, compute: Compute, seed: int | None = None) -> Edit:
    """The same graph as by `bake_faults`, with a sentence for each kind of change."""
    check_in_memory(model)
    check_kept(model)
    struck = fault_nodes(model)
    _check_parameters(model, struck)
    _check_drawn(struck, seed)
    parameters = _compute(model, struck, compute, seed)
    # each as its quantizer can hold it: one way after the other, until what it makes is what the faults made
    for way in (_Way.WIDENED, _Way.CONSTANT):
        out = _written(model, parameters)
        found = _values(out, [parameter.entry.after for parameter in parameters], compute, seed)
        for parameter in parameters:
            if not _same_bits(parameter.faulty, found[parameter.entry.after]).all():
                parameter.way = way
    out = _written(model, parameters)
    _tell_baked(out, metadata(model).get(PLAN_SHA256), seed)
    return Edit(out, _describe_changes(parameters, seed))


class _Way(Enum):
    """How a parameter holds its faults."""

    QUANTIZED = "behind its quantizer as it is"
    WIDENED = "behind its quantizer, of whose integers none is left out (narrow = 0)"
    CONSTANT = "as a constant, without its quantizer"


def _check_parameters(model: ModelProto, struck: Sequence[FaultNode]) -> None:
    """Raises GraphError unless all that hwfault has in a graph are faults of parameters."""
    if not struck:
        raise GraphError(
            "the graph has no faults, expected some of parameters: give --faults or --plan, or a graph that "
            "`hwfault export` or `hwfault insert` wrote with them"
        )
    for entry in struck:
        if not entry.nodes or attribute(entry.node, "batched", 1):
            raise GraphError(
                f"the faults of {entry.site!r} strike values that the graph computes, which no constant holds; "
                "expected faults of weights, biases and other parameters alone: select those"
            )
    ours = {node.name for entry in struck for node in entry.nodes}
    other = next((node for node in model.graph.node if node.domain == DOMAIN and node.name not in ours), None)
    if other is not None:
        raise GraphError(
            f"the node {other.name!r} ({other.op_type}) is hwfault's own, and computes on integers; a plain graph has "
            "none: export the network without --arithmetic integer"
        )


def _check_drawn(struck: Sequence[FaultNode], seed: int | None) -> None:
    """Raises GraphError where faults are others in each run and no seed says which are meant."""
    if seed is not None:
        check_seed(seed)
        return
    for entry in struck:
        if any(_is_drawn(node) for node in entry.nodes):
            raise GraphError(
                f"the faults of {entry.site!r} are drawn by a seed, others in each run, and a graph without hwfault's "
                "ops has one set of them; give the seed that is meant (--seed), or permanent faults (a map, stuck bits)"
            )


def _is_drawn(node: NodeProto) -> bool:
    """Whether a fault node strikes other words under another seed."""
    if "seed" not in drawn_inputs(node):
        return False
    return bool(attribute(node, "program", [])) or attribute(node, "threshold", 0) < _ALWAYS


@dataclass
class _Parameter:
    """What the faults make of a parameter, what its quantizer is to read for that, and how that is written."""

    entry: FaultNode
    faulty: Array
    held: Array | None
    """None where no quantizer makes the parameter."""
    way: _Way


def _compute(model: ModelProto, struck: Sequence[FaultNode], compute: Compute, seed: int | None) -> list[_Parameter]:
    """What the faults make of each parameter."""
    quantizers = {node.output[0]: node for node in model.graph.node if node.output and ops.of(node.op_type).quantizer}
    # faulty values, then those before and what the quantizer reads, all in one run
    names = [entry.after for entry in struck]
    names += [entry.before for entry in struck]
    names += [quantizers[entry.before].input[0] for entry in struck if entry.before in quantizers]
    values = _values(model, list(dict.fromkeys(names)), compute, seed)
    found = []
    for entry in struck:
        faulty, quantizer = values[entry.after], quantizers.get(entry.before)
        if quantizer is None:
            found.append(_Parameter(entry, faulty, None, _Way.CONSTANT))
        else:
            held = _held(values[quantizer.input[0]], values[entry.before], faulty)
            found.append(_Parameter(entry, faulty, held, _Way.QUANTIZED))
    return found


def _held(given: Array, before: Array, faulty: Array) -> Array:
    """What a quantizer is given to make faulty values: its own input wherever no fault changed what it makes.

    So a zero that it made of a small negative number keeps its sign, which a quantizer takes from a zero.
    """
    if given.shape != faulty.shape or given.dtype != faulty.dtype:
        return faulty
    return np.where(_same_bits(before, faulty), given, faulty)


def _same_bits(one: Array, other: Array) -> NDArray[np.bool_]:
    """Where two arrays hold the same bits; all of them differ where their types or shapes do."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return np.zeros(one.shape, np.bool_)
    equal: NDArray[np.bool_] = one.view(f"u{one.itemsize}") == other.view(f"u{other.itemsize}")
    return equal


def _values(model: ModelProto, names: Sequence[str], compute: Compute, seed: int | None) -> dict[str, Array]:
    """The values of tensors that are made of constants and faults alone; raises GraphError for others."""
    constants = Constants(model)
    made = [name for name in names if name not in constants]
    values = {name: value for name in names if (value := constants.get(name)) is not None}
    if not made:
        return values
    part = cut_out(model, [], made)
    given = [info.name for info in part.graph.input if info.name not in (SEED, FIRST_SAMPLE)]
    if given:
        raise GraphError(f"the faulty parameters {made} depend on the graph's inputs {given}, and are no constants")
    del part.graph.input[:]
    # parameters have sample number 0
    for name, number in ((SEED, signed64(seed or 0)), (FIRST_SAMPLE, 0)):
        part.graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), name))
    return values | dict(zip(made, compute(part), strict=True))


def _written(model: ModelProto, parameters: Sequence[_Parameter]) -> ModelProto:
    """A copy of a graph with the faulty values in place of the fault nodes, each in its way."""
    out = copy_model(model)
    fresh = FreshNames(model)
    gone = {node.output[0] for parameter in parameters for node in parameter.entry.nodes}
    nodes = [node for node in out.graph.node if not gone.intersection(node.output)]
    makers = {node.output[0]: node for node in nodes if node.output}
    for parameter in parameters:
        after = parameter.entry.after
        if parameter.held is None or parameter.way is _Way.CONSTANT:
            tensor = numpy_helper.from_array(parameter.faulty, after)
        else:
            tensor = numpy_helper.from_array(parameter.held, fresh.take(f"{after}.baked"))
            _requantize(makers[parameter.entry.before], tensor.name, after, parameter.way)
        out.graph.initializer.append(tensor)
    replace_nodes(out, nodes)
    _drop_lost(out, model)
    return out


def _requantize(quantizer: NodeProto, held: str, made: str, way: _Way) -> None:
    """Has a quantizer read the faulty values, and make them under the name that their readers know."""
    quantizer.input[0] = held
    quantizer.output[0] = made
    if way is _Way.WIDENED:
        kept = [entry for entry in quantizer.attribute if entry.name != "narrow"]
        del quantizer.attribute[:]
        quantizer.attribute.extend([*kept, helper.make_attribute("narrow", 0)])
    # words that were hashed at the export are others now
    words = [entry for entry in quantizer.metadata_props if entry.key != WORDS]
    del quantizer.metadata_props[:]
    quantizer.metadata_props.extend(words)


def _drop_lost(out: ModelProto, before: ModelProto) -> None:
    """Takes away what only the fault nodes and the parameters without faults had a reader for, in place."""
    outputs = {info.name for info in out.graph.output}
    once = read_names(before.graph.node) | {SEED, FIRST_SAMPLE}
    read = read_names(out.graph.node) | outputs
    while True:
        kept = [node for node in out.graph.node if read.intersection(node.output) or not once.intersection(node.output)]
        if len(kept) == len(out.graph.node):
            break
        replace_nodes(out, kept)
        read = read_names(out.graph.node) | outputs
    lost = once - read
    for field in (out.graph.initializer, out.graph.input, out.graph.value_info):
        stay = [entry for entry in field if entry.name not in lost]
        del field[:]
        field.extend(stay)
    notes = [entry for entry in out.graph.quantization_annotation if entry.tensor_name not in lost]
    del out.graph.quantization_annotation[:]
    out.graph.quantization_annotation.extend(notes)


def _tell_baked(model: ModelProto, digest: str | None, seed: int | None) -> None:
    """Has a graph say what its constants hold, and nothing any more of fault nodes, in place."""
    ours = (PLAN, PLAN_SHA256, SPEC, UNDO, f"{DOMAIN}.version")
    kept = [entry for entry in model.metadata_props if entry.key not in ours]
    domains = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.metadata_props[:], model.opset_import[:]
    model.metadata_props.extend(kept)
    model.opset_import.extend(domains)
    told = {BAKED: digest or ""}
    if seed is not None:
        told[BAKED_SEED] = str(seed)
    set_metadata(model, told)


def _describe_changes(parameters: Sequence[_Parameter], seed: int | None) -> list[str]:
    drawn = "" if seed is None else f", those of seed {seed}"
    changes = [f"the faults of {count_of(len(parameters), 'parameter')} are in its constants{drawn}"]
    for way in (_Way.WIDENED, _Way.CONSTANT):
        names = [parameter.entry.site for parameter in parameters if parameter.way is way]
        if names:
            changes.append(f"{', '.join(names)} held {way.value}")
    return changes
