"""The steps of a fault plan as nodes of an ONNX graph."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from hwfault.codes import REPRESENTATIONS
from hwfault.errors import GraphError
from hwfault.graph.ops import DOMAIN, FAULT_OPS
from hwfault.graph.read.qonnxgraph import SITE, set_metadata
from hwfault.program.kinds import Mechanism
from hwfault.program.periods import refresh_in_graph
from hwfault.program.processes import ClipStep, MapStep, ProtectedStep, Site, Step, StreamStep

SEED, FIRST_SAMPLE = "hwfault_seed", "hwfault_first_sample"
"""Graph inputs, int64 scalars: the bits of the unsigned seed, and the sample number of the batch's first element."""

BATCH_AXIS = ("axis", "rows", "inner")
"""The attributes that say where the samples lie; without them it is along axis 0, one row for each."""

_DRAWN = (
    "The faults of these parameters are drawn anew from the seed of each run, so that no constant holds them. For "
    "FINN, hls4ml and whoever else folds constants take them out (hwfault strip), or make those of one seed constants "
    "(hwfault bake --seed)."
)
"""What a fault node says in words: tools that expect constants print the node that they cannot fold."""

Made = tuple[NodeProto, list[TensorProto]]


def fault_node(
    site: Site,
    step: Step,
    inputs: tuple[str, str, str],
    output: str,
    name: str,
    layout: Sequence[int] = (),
    take_name: Callable[[str], str] = str,
) -> Made:
    """The node of a step behind `inputs` (values, scale, zero point), and the constants that it reads.

    `layout` is how the values lie (see hwfault.graph.read.layouts); `take_name` is asked for the constants' names.
    """
    op, own, numbers, constants = _MAKERS[step.mechanism](step, site.batched)
    # named after the output, which has a name of its own, where nodes may have none
    given = {key: take_name(f"{output}.{key}") for key in constants}
    tensors = [numpy_helper.from_array(values, given[key]) for key, values in constants.items()]
    given |= {"seed": SEED, "first_sample": FIRST_SAMPLE}
    own_inputs = [*inputs, *(given[key] for key in FAULT_OPS[op])]
    node = helper.make_node(op, own_inputs, [output], name=name, domain=DOMAIN)
    numbers |= {"bit_width": site.bit_width, "signed": int(site.signed), "batched": int(site.batched)}
    if step.representation != REPRESENTATIONS[0]:
        numbers["representation"] = REPRESENTATIONS.index(step.representation)
    if layout:
        numbers["layout"] = list(layout)
    if site.batch is not None:
        numbers |= {key: getattr(site.batch, key) for key in BATCH_AXIS}
    node.attribute.extend([*own, *(helper.make_attribute(key, value) for key, value in numbers.items())])
    set_metadata(node, {SITE: site.name})
    if not site.batched and "seed" in FAULT_OPS[op]:
        node.doc_string = _DRAWN
    return node, tensors


_Parts = tuple[str, list[AttributeProto], dict[str, Any], dict[str, Any]]


def _transient(step: StreamStep, batched: bool) -> _Parts:
    return "TransientFaults", [helper.make_attribute("program", step.program, attr_type=AttributeProto.INTS)], {}, {}


def _rows(rows: Any) -> dict[str, Any]:
    """The rows of a fault map as the constants of a node."""
    return {key: getattr(rows, key).astype(np.int64) for key in FAULT_OPS["FaultMap"]}


def _map(step: MapStep, batched: bool) -> _Parts:
    process, rows = step.process, step.process.rows
    if process.permanent:
        return "FaultMap", [], {}, _rows(rows)
    numbers = {
        "threshold": rows.threshold,
        "site": rows.site,
        "refresh": refresh_in_graph(process.refresh, batched),
    }
    return "IntermittentFaults", [], numbers, _rows(rows)


def _protected(step: ProtectedStep, batched: bool) -> _Parts:
    process, memory = step.process, step.process.memory
    constants = _rows(process.rows)
    constants["number"] = np.array(process.number, np.int64)
    constants["cells"] = np.array(process.cells, np.int64).reshape(-1, process.protection.data_bits)
    numbers: dict[str, Any] = {
        "protection": memory.kind,
        "data_bits": memory.data_bits,
        "slot": memory.slot,
        "on_detected": process.protection.on_detected,
        "threshold": process.threshold,
        "site": process.site_number,
        "refresh": refresh_in_graph(process.refresh, batched),
    }
    program = helper.make_attribute("program", step.program, attr_type=AttributeProto.INTS)
    return "ProtectedFaults", [program], numbers, constants


def _clip(step: ClipStep, batched: bool) -> _Parts:
    return "ClippedRange", [], {key: getattr(step.process, key) for key in ("low", "high", "below", "above")}, {}


_MAKERS: dict[Mechanism, Callable[..., _Parts]] = {
    "stream": _transient,
    "map": _map,
    "protected": _protected,
    "clip": _clip,
}


def check_inputs(node: NodeProto) -> None:
    """Raises GraphError unless a fault node has as many inputs and outputs as its op."""
    expected = 3 + len(FAULT_OPS[node.op_type])
    given = len(node.input)
    if node.op_type == "FaultMap" and given > expected:  # the last one is optional
        given -= 1
    if given != expected or len(node.output) != 1:
        raise GraphError(
            f"the fault node {node.name!r} has {len(node.input)} inputs, expected {expected}, and 1 output"
        )


def drawn_inputs(node: NodeProto) -> dict[str, str]:
    """The names of a fault node's seed and first sample number, where its op has them."""
    own = dict(zip(FAULT_OPS[node.op_type], node.input[3:], strict=False))
    return {key: own[key] for key in ("seed", "first_sample") if key in own}
