"""The sites of a faulted graph as they are looked at while it runs, and where two engines differ at one of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from hwfault.codes import CodeFormat, Codes, encode
from hwfault.errors import GraphError
from hwfault.graph.edit.array_node import added_up
from hwfault.graph.edit.carried import layout_of
from hwfault.graph.read.integer import in_double
from hwfault.graph.read.layouts import Layout, aligned, numbered
from hwfault.graph.read.nodes import ARRAY_OP
from hwfault.graph.read.qonnxgraph import Constants, attribute
from hwfault.graph.read.struck import FaultNode, fault_nodes
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site, SitePlan, Step, strike_values

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass
class Watched:
    """One fault node: its site, its constants, its program."""

    site: Site
    node: FaultNode
    scale: Array
    zero_point: Array
    steps: tuple[Step, ...]
    layout: Layout = ()
    array: NodeProto | None = None
    """What adds an accumulator up; the sums, and the integers of inputs and weights, are its inputs."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The graph's tensors that tell of the site."""
        return (self.node.before, self.node.after, *(() if self.array is None else self.array.input))

    def values(self, tensors: Mapping[str, Array]) -> list[Array]:
        """The values before and after the faults among the graph's tensors, in the order of the site's words."""
        return [numbered(tensors[name], self.layout) for name in (self.node.before, self.node.after)]

    @property
    def changes(self) -> bool:
        """Whether its faults may differ from batch to batch of a seed."""
        return self.site.batched or any(step.changes for step in self.steps)


def watched_sites(graph: ModelProto, plan: FaultPlan) -> dict[str, list[Watched]]:
    """The fault nodes of each site, in the order in which they run."""
    constants, makers = Constants(graph), {name: node for node in graph.graph.node for name in node.output}
    found: dict[str, list[Watched]] = {name: [] for name in plan.names}
    for entry in fault_nodes(graph):
        maker = makers.get(entry.before)
        array = maker if maker is not None and maker.op_type == ARRAY_OP else None
        scale, zero_point = _grid(entry, plan.at(entry.site), constants)
        if array is not None and scale is not None and in_double(makers, array.input[0]):
            scale = scale.astype(np.float64)
        if scale is None or zero_point is None:
            raise GraphError(f"the fault node {entry.node.name!r} has a scale or zero point that is not a constant")
        site = plan.at(entry.site).site
        layout = layout_of(entry.node) if entry.nodes else ()
        scale, zero_point = aligned(scale, layout), aligned(zero_point, layout)
        found[entry.site].append(Watched(site, entry, scale, zero_point, plan.steps(entry.site), layout, array))
    return found


def _grid(entry: FaultNode, planned: SitePlan, constants: Constants) -> tuple[Array | None, Array | None]:
    """Scale and zero point of a site; those of the integers, where only an array strikes an accumulator."""
    if not entry.nodes:
        dtype = np.dtype(planned.array.arithmetic if planned.array is not None else "float32")
        return np.ones((), dtype), np.zeros((), dtype)
    scale, zero_point = (constants.get(name) for name in entry.node.input[1:3])
    return scale, zero_point


def with_outputs(graph: ModelProto, watched: Iterable[Watched], others: Iterable[str] = ()) -> ModelProto:
    """The graph with the tensors that tell of its sites, and other float32 ones, among its outputs."""
    out = ModelProto()
    out.CopyFrom(graph)
    kinds: dict[str, Any] = dict.fromkeys(others, TensorProto.FLOAT)
    for watch in watched:
        kind = TensorProto.DOUBLE if watch.scale.dtype == np.float64 else TensorProto.FLOAT
        operands = () if watch.array is None else watch.array.input[1:]
        for name in watch.tensors:
            kinds.setdefault(name, TensorProto.FLOAT if name in operands else kind)
    present = {info.name for info in graph.graph.output}
    for name, kind in kinds.items():
        if name not in present:
            out.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return out


_SURE_BITS = 20
"""Wider codes need not come back from float32 values."""


class Side:
    """The values of one run of a site in one engine, and their codes as (samples, words).

    `codes` before and after, where the engine tells them; otherwise they are read off the values, those of wide words
    after a fault as the nearest that the word has.
    """

    def __init__(self, site: Site, values: Sequence[Array], codes: tuple[Array, Array] | None = None) -> None:
        self.batched = site.batched
        self._format = CodeFormat(site.bit_width, site.signed)
        self._before, self._after, self._scale, self._zero_point = values
        self.wide = site.bit_width > _SURE_BITS and self._after.dtype != np.float64
        before, after = codes or (self._codes(self._before, False), self._codes(self._after, self.wide))
        self.before, self.after = (self._rows(c.astype(np.uint32)) for c in (before, after))
        self.numbers: Mask = self._rows(np.isfinite(self._before))
        """Which words hold a number: what is not finite is never struck."""

    def _codes(self, values: Array, nearest: bool) -> Codes:
        return encode(values, self._scale, self._zero_point, self._format, half=nearest)

    def _rows(self, words: Array) -> Array:
        return words.reshape(len(words) if self.batched else 1, -1)

    def differs_after(self, other: "Side") -> Mask:
        """Which words differ after the faults: in their codes, or where values do not tell them in their values."""
        differs: Mask = self.after != other.after
        if self.wide:
            differs &= self._rows(bits_of(self._after) != bits_of(other._after))
        return differs

    @property
    def changed(self) -> Mask:
        """Which words (samples, words) the faults changed, to the bit."""
        changed: Mask = bits_of(self._before) != bits_of(self._after)
        return changed.reshape(self.before.shape)

    def strays(self, watched: Watched, seed: int, first_sample: int) -> Mask:
        """Where the values after the faults are not, to the bit, what the stream makes of those before."""
        values, samples = self._before, np.arange(len(self.before)) + first_sample
        grid = (self._scale, self._zero_point, self._format)
        for step in watched.steps:
            values = strike_values(step, values, *grid, seed=seed, samples=samples, batched=self.batched)
        differs: Mask = bits_of(values) != bits_of(self._after)
        return differs.reshape(self.before.shape)


class Differing(NamedTuple):
    """Words (samples, words) of one run of a site in one batch: those that differ, and those that faults changed."""

    codes: Mask
    faults: Mask
    expected: Mask
    seen: Mask


def differing(
    watched: Watched, ours: Side, theirs: Side, tensors: Mapping[str, Array], seed: int, first_sample: int
) -> Differing:
    """Where two engines differ; `theirs` is the graph's side, whose `tensors` by name tell of an array.

    Codes differ before the faults. Faults differ where either side is not what the stream says, or where the codes
    before are equal and those after are not.
    """
    codes_differ = (ours.before != theirs.before) | (ours.numbers != theirs.numbers)
    array_changed, array_strays = _added_up(watched, tensors, theirs.before.shape)
    faults_differ = (
        theirs.strays(watched, seed, first_sample) | (~codes_differ & ours.differs_after(theirs)) | array_strays
    )
    if codes_differ.any():  # where none does, one side has what the other has, which is what the stream says
        faults_differ |= ours.strays(watched, seed, first_sample)
    return Differing(codes_differ, faults_differ, ours.changed | array_changed, theirs.changed | array_changed)


def _added_up(watched: Watched, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Which sums (of `shape`) the array changed in the graph, and which are not what it makes of its inputs."""
    if watched.array is None:
        return np.zeros(shape, bool), np.zeros(shape, bool)
    sums, x, w = (tensors[name] for name in watched.array.input)
    expected, found = added_up(watched.array, sums, x, w), tensors[watched.node.before]
    # where the array adds everything up anew, its sums are no others
    changed = (found != (expected if attribute(watched.array, "recompute", 0) else sums)) & ~np.isnan(found)
    return changed.reshape(shape), (bits_of(expected) != bits_of(found)).reshape(shape)


def predictions(logits: Array) -> Array:
    """The index of each sample's largest logit, or the logits themselves where a sample has one."""
    return logits.argmax(axis=1) if logits.ndim > 1 else logits


def bits_of(values: Array) -> NDArray[np.integer[Any]]:
    """The bits of float32 or, for sums in that arithmetic, float64 numbers."""
    kind = np.int64 if values.dtype == np.float64 else np.int32
    numbers = np.ascontiguousarray(values, dtype=np.float64 if kind is np.int64 else np.float32)
    return numbers.view(kind)
