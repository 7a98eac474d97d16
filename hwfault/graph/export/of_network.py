"""Brevitas network -> QONNX graph whose quantizers carry the names of their injection sites."""

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from brevitas.export import export_qonnx
from brevitas.export.onnx.qonnx.manager import QONNXManager
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from torch import Tensor, nn

from hwfault.arithmetic.integer_arithmetic import IntegerArithmetic, integer_arithmetic, uses_integer_arithmetic
from hwfault.errors import GraphError, expect_kind
from hwfault.graph import ops
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.arguments import OUTPUT, dynamic_axes, keep_inputs, name_inputs, read_example, take_tensors
from hwfault.graph.export.baked import Decisions, check_decisions
from hwfault.graph.export.exporter import told_in_a_sentence
from hwfault.graph.export.marks import mark, mark_sums, name_sites, part_parameters
from hwfault.graph.export.quantized import differing, write_quantized
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.exported import write_sites
from hwfault.graph.read.grids import NoGridError, grid_of
from hwfault.graph.read.integer import mark_integer
from hwfault.graph.read.qonnxgraph import (
    WORDS,
    Constants,
    set_metadata,
    site_name,
    words_sha256,
)
from hwfault.injection.site_hook import attached
from hwfault.network.accumulators import LAYERS, accumulator_layers
from hwfault.network.inputs import Example, Inputs
from hwfault.network.sites import known_quantizers, quantizers, reads_of, sites, unwrap
from hwfault.network.tied import tied
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.plan.given import GivenPlan, read_plan
from hwfault.program.names import first_run
from hwfault.program.processes import Site

_OPSET = 17
_ROUNDINGS = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
_SAME_ROUNDING = {"ROUND_TO_ZERO": "DOWN"}

Values = dict[str, list[NDArray[np.float32]]]


Arithmetic = Literal["float", "integer"]


def export(
    model: nn.Module,
    example: Example,
    *,
    plan: GivenPlan | None = None,
    arithmetic: Arithmetic = "float",
    as_traced: bool = False,
) -> ModelProto:
    """The network as a QONNX graph to `output` whose inputs have, as that has, a batch of any size along axis 0.

    `example` is a batch that the network accepts: a tensor, the graph's `input`, or several as a tuple or dict of its
    arguments, which the graph's inputs are called after. They are float32, int64 or int32; what is no tensor is in the
    graph as the example has it, and a tensor of other rows than the first has a fixed shape.

    Every quantizer node is named after its site (`NAME#1`, `NAME#2` where a quantizer runs again) and carries the name
    as metadata `hwfault.site`, which outlives qonnx's cleanup. With a `plan` (or its file, or faults, resolved against
    the model) the graph carries its faults. The model itself is left as it is. With integer `arithmetic` the graph
    computes what the model does under `integer_arithmetic`, bit for bit; what cannot is left as it is, and
    `hwfault.graph.read.integer.left` tells it.

    Where Python decides by values of the inputs (`if x.sum() > 0`) a graph can only have the way that the example took:
    that is refused, or taken `as_traced` with a warning. Decisions by shapes and parameters are no such thing.
    Raises GraphError while faults are attached and for a network that QONNX cannot express, PlanError for a plan that
    does not fit.
    """
    expect_kind(model, nn.Module, "the network", "a torch.nn.Module with Brevitas quantizers")
    inputs = read_example(example)
    given = None if plan is None else read_plan(plan)
    _check_ready(model, arithmetic)
    network = _evaluation_copy(model)
    names = name_inputs(network, inputs)
    first = tied(network, known_quantizers(network), inputs).first
    values = _parameter_values(network, inputs, first)
    listed = sites(network, inputs.kwargs or inputs.args)
    exact = _exact(network, inputs) if arithmetic == "integer" else None
    decisions = Decisions(network)
    graph = _traced(network, inputs, names, exact, first, decisions)
    check_decisions(network, inputs, decisions, as_traced=as_traced)
    part_parameters(graph)
    name_sites(graph, {site.name for site in sites(network) if site.batched})
    _write_roundings(graph)
    write_quantized(graph, values)
    if exact is not None:
        mark_integer(graph, exact.left)
    _check(graph, sites(network), values)
    write_sites(graph, listed)
    if given is None:
        return graph
    return insert_faults(graph, given if isinstance(given, FaultPlan) else resolve(listed, given))


def _check_ready(model: nn.Module, arithmetic: str) -> None:
    """Raises GraphError for a model that computes something else now, and for an arithmetic that there is not."""
    if attached(model):
        raise GraphError(
            "the model has faults attached, which a traced graph would lose; leave the `with inject(...)` block (or "
            "call .remove() on the injection), then put them into the graph with export(model, example, plan=plan)"
        )
    if arithmetic not in ("float", "integer"):
        raise GraphError(f"the arithmetic is {arithmetic!r}, expected 'float' or 'integer'")
    if uses_integer_arithmetic(model):
        raise GraphError(
            "the model computes in integer arithmetic now; leave the `with integer_arithmetic(...)` block (or call "
            ".remove() on it), then export(model, example, arithmetic='integer')"
        )


@torch.no_grad()
def _exact(network: nn.Module, inputs: Inputs) -> IntegerArithmetic:
    """Integer arithmetic on the network, with the constants of a forward."""
    exact = integer_arithmetic(network)
    inputs.run(network)
    return exact


def _evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU: Brevitas' export leaves caches and handlers behind. Raises GraphError unless it is float32."""
    inner = unwrap(model)
    other = {t.dtype for t in (*inner.parameters(), *inner.buffers()) if t.is_floating_point()} - {torch.float32}
    if other:
        raise GraphError(
            f"the network holds {other.pop()} tensors, expected float32 ones: QONNX has no other; use model.float()"
        )
    try:
        return copy.deepcopy(inner).cpu().eval()
    except Exception as error:
        raise GraphError(f"the network cannot be copied for its export: {error}") from error


@torch.no_grad()
def _parameter_values(network: nn.Module, inputs: Inputs, first: Mapping[str, str]) -> Values:
    """What each weight and bias quantizer yields in a forward, call by call; activations' values are left out."""
    values: Values = defaultdict(list)
    kinds = {site.name: site.batched for site in sites(network)}

    def note(name: str, value: Tensor) -> None:
        values[name].append(np.empty(0, np.float32) if kinds[name] else value.detach().numpy().copy())

    handles = _on_quantizers(network, first, note)
    try:
        output = inputs.run(network)
    except Exception as error:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in inputs.tensors)
        raise GraphError(f"the network does not run on the example of shape {shapes}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    if not values:
        why = next(iter(sites(network).obstacles.values()), "expected a Brevitas network whose quantizers run")
        raise GraphError(f"no quantizer of the network is a site, so there is nothing to strike: {why}")
    if not isinstance(getattr(output, "value", output), Tensor):
        raise GraphError(
            f"the network returns {type(output).__name__}, expected one tensor; wrap it in a module that picks one"
        )
    return values


def _on_quantizers(
    network: nn.Module, first: Mapping[str, str], see: Callable[[str, Tensor], Tensor | None]
) -> list[Any]:
    """Hooks that show every quantizer's values to `see` and put what it returns, if anything, in their place.

    `first` names the memory of quantizers that read another one's: it is one site, at each reading.
    """

    known = known_quantizers(network)
    reads = reads_of(known)

    def hook(name: str, own: str) -> Callable[..., Any]:
        def of_forward(_module: nn.Module, args: Any, output: Any) -> Any:
            value, reading = getattr(output, "value", output), reads[own]
            if value.dim() == 0:  # Brevitas probes quantizers with a scalar to learn their scale
                return None
            if reading is not None and reading.name(args[0]) != own:  # another layer's parameter
                return None
            seen = see(name, value)
            return seen if seen is None or value is output else output._replace(value=seen)

        return of_forward

    return [q.proxy.register_forward_hook(hook(first.get(name, name), name)) for name, q in known.items()]


def _on_sums(network: nn.Module, see: Callable[[str, Tensor], Tensor | None]) -> None:
    """The same for what each layer adds up, its bias included; the network is a copy, so that this stays."""

    def seen(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def inner_forward_impl(*args: Any) -> Any:
            out = plain(*args)
            value = see(name, getattr(out, "value", out))
            if value is None:
                return out
            return value if isinstance(out, Tensor) else out._replace(value=value)

        return inner_forward_impl

    for name, layer in accumulator_layers(network).items():
        if isinstance(layer, LAYERS):
            layer.inner_forward_impl = seen(name, layer.inner_forward_impl)


def _traced(
    network: nn.Module,
    inputs: Inputs,
    names: list[str],
    exact: IntegerArithmetic | None,
    first: Mapping[str, str],
    decisions: Decisions,
) -> ModelProto:
    """Brevitas' own export of the network, with a marker node behind every quantizer that says which site it is."""
    _on_quantizers(network, first, mark)
    if exact is None:
        _on_sums(network, mark)
    else:
        exact.freeze(mark_sums)
    network.register_forward_hook(lambda _module, _args, output: getattr(output, "value", output))
    for name, proxy in quantizers(network):
        if QONNXManager.handler_from_module(proxy, no_inheritance=True) is None:
            raise GraphError(f"Brevitas has no QONNX export for the quantizer {name!r} ({type(proxy).__name__})")
    tensors = take_tensors(network, inputs, decisions.begin)
    with told_in_a_sentence(), decisions:
        graph: ModelProto = export_qonnx(
            network,
            args=tensors,
            dynamo=False,
            opset_version=_OPSET,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_axes=dynamic_axes(names, inputs),
            keep_initializers_as_inputs=False,
            custom_opsets={DOMAIN: 1},
        )
    keep_inputs(graph, names, inputs)
    return graph


def _check(model: ModelProto, expected: list[Site], values: Values) -> None:
    """Raises GraphError unless the graph has every quantizer that ran, and its quantizers do what the network's do."""
    constants = Constants(model)
    known = {site.name: site for site in expected}
    nodes: dict[str, list[NodeProto]] = defaultdict(list)
    for node in (node for node in model.graph.node if ops.of(node.op_type).quantizer):
        nodes[first_run(site_name(node))].append(node)
    for name, calls in values.items():
        if len(nodes[name]) != len(calls):
            raise GraphError(
                f"the quantizer {name!r} runs {len(calls)} times but the graph has {len(nodes[name])} nodes of it"
            )
        for node, value in zip(nodes[name], calls, strict=True):
            _check_format(node, known[name], constants)
            _check_parameter(node, value, constants)


def _check_format(node: NodeProto, site: Site, constants: Constants) -> None:
    """Raises GraphError if the node has other integers than the quantizer: Brevitas writes all of 1 bit as bipolar."""
    try:
        grid = grid_of(node, constants)
    except NoGridError as obstacle:
        raise GraphError(f"the node {node.name!r} (site {site.name!r}) cannot be a site: {obstacle}") from None
    batched = constants.shape(node.input[0]) is None
    if batched and not site.batched:
        raise GraphError(
            f"the parameter of the quantizer {site.name!r} is computed by Brevitas' export, expected a constant; "
            "quantize it as it is stored"
        )
    if site.batched and not batched:
        raise GraphError(
            f"the quantizer {site.name!r} quantizes a constant, which holds no samples; expected values that depend on "
            "the inputs, or a constant that is quantized beforehand"
        )
    pairs = ((site.bit_width, site.signed, site.batched), (grid.bit_width, grid.signed, batched))
    mine, theirs = ((width, "signed" if signed else "unsigned", batch) for width, signed, batch in pairs)
    if mine != theirs:
        raise GraphError(
            f"Brevitas exports the quantizer {site.name!r} with (bit width, sign, batched) = {theirs} where the "
            f"network has {mine}; QONNX cannot express it"
        )


def _write_roundings(model: ModelProto) -> None:
    """Writes each rounding as qonnx spells it; raises GraphError for one that qonnx does not have."""
    for node in (node for node in model.graph.node if ops.of(node.op_type).quantizer):
        for entry in (entry for entry in node.attribute if entry.name == "rounding_mode"):
            mode = entry.s.decode().upper()
            mode = _SAME_ROUNDING.get(mode, mode)
            if mode not in _ROUNDINGS:
                raise GraphError(
                    f"the quantizer {first_run(site_name(node))!r} rounds by {mode}, which QONNX does not have; it has "
                    f"{', '.join(_ROUNDINGS)}"
                )
            entry.s = mode.encode()


def _check_parameter(node: NodeProto, value: NDArray[np.float32], constants: Constants) -> None:
    """Stamps a parameter's quantizer with its words' hash; raises GraphError if its values are not the network's."""
    given = constants.get(node.input[0])
    if given is None:
        return
    others = differing(node, given, value, constants)
    if others:
        raise GraphError(
            f"the quantizer {node.name!r} yields other values in the graph than in the network ({others} of "
            f"{value.size}): Brevitas exports one scale for all runs of a quantizer, and these values are not on its "
            "grid. Use one scale for all runs, or quantize the values before the export"
        )
    set_metadata(node, {WORDS: words_sha256(given)})
