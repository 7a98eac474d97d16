"""Where the samples of the inputs lie in the tensors of a graph, followed from the inputs node by node.

Everything that moves, folds or picks axes is looked at with the shapes that tensors have at a size of the batch; where
the graph leaves that open, at two, which have to give the same answer. What only computes leaves samples where they
were. A graph that hwfault exported says itself what an example has shown of the network.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from onnx import ModelProto, NodeProto, ValueInfoProto

from hwfault.errors import GraphError, ModelError
from hwfault.graph.read.exported import exported_sites
from hwfault.graph.read.extents import shapes_for
from hwfault.graph.read.grids import NoGridError
from hwfault.graph.read.layouts import Layout, numbered_shape
from hwfault.graph.read.moves import Following, Lying
from hwfault.graph.read.nodes import BATCH_AXIS
from hwfault.graph.read.qonnxgraph import attribute
from hwfault.graph.read.shapes import Shape, Tensors, with_twins
from hwfault.program.batch_axes import PLAIN, BatchAxis

_BATCH = re.compile(r"batch|^(n|b|bs)$", re.IGNORECASE)
"""Names of the axis of the samples."""
_SIZES = (509, 521)
"""Sizes of the batch where the graph leaves it open: primes that no other extent is likely to be a multiple of."""
_OTHERS = ((31, 37), (41, 43), (47, 53), (59, 61), (67, 71), (73, 79), (83, 89), (97, 101))
"""Extents of other axes that are open, in turn."""


class Samples(NamedTuple):
    """Where the samples lie in each tensor that is made of a graph's inputs, or why that cannot be told."""

    lying: dict[str, Lying]
    shapes: dict[str, Shape]
    """The shapes of tensors, with the extents that are the same at any size of the inputs."""
    batch: int | None
    """How many samples the graph is made for; None: any number."""


class SampleAxes:
    """Where the samples lie at the sites of a graph.

    `batch_axis` is that of the inputs; None: their symbolic one, or the one of several that is called "batch", else 0.
    Raises GraphError where no input has the axis.
    """

    def __init__(self, model: ModelProto, tensors: Tensors, batch_axis: int | None = None) -> None:
        exported = exported_sites(model)
        self._said: dict[str, BatchAxis] = {}
        if exported.tells_axes and batch_axis in (None, 0):  # exports have the samples in front
            self._said = {site.name: site.batch_axis for site in exported.sites if site.batched}
        moved = any(not batch.plain for batch in self._said.values())
        self._shapes = tensors.shapes
        self._found = find_samples(with_twins(model), tensors, batch_axis, moved=moved)

    @property
    def batch(self) -> int | None:
        """How many samples the graph is made for; None: any number."""
        return self._found.batch

    def at(self, name: str, tensor: str, layout: Layout = ()) -> tuple[BatchAxis | None, Shape | None]:
        """Where the samples lie in the tensor of a site, in the order of its words, and the shape of one of them.

        None: along axis 0, one row for each. Raises NoGridError where that cannot be told, or where the graph says
        otherwise than its nodes do it.
        """
        batch = self._batch_axis(name, tensor, layout)
        shape = self._shape(tensor, layout)
        said = None if batch.plain else batch
        if shape is None:
            return said, None
        extent = shape[batch.axis] if batch.axis < len(shape) else 0
        beyond = batch.axis >= max(len(shape), 1)
        if beyond or (extent is not None and extent % batch.rows):
            raise NoGridError(f"it has the shape {list(shape)}, which does not hold {batch}")
        return said, batch.sample_shape(shape)

    def _batch_axis(self, name: str, tensor: str, layout: Layout) -> BatchAxis:
        """What the graph says of a site, or else what its nodes do; raises NoGridError where these differ."""
        found = self._in_order(tensor, layout)
        said = self._said.get(name)
        if isinstance(found, str):
            if said is not None:
                return said
            raise NoGridError(
                f"where its samples lie cannot be told: {found} (batch_axis, --batch-axis on the command line, says "
                "which axis of the inputs holds them; graphs that hwfault exports say where they lie)"
            )
        # one sample alone lies in several ways, and a tensor of unknown shape in none that was looked at closely
        sure = self.batch != 1 and tensor in self._found.shapes
        if said is not None and said != found and sure:
            raise NoGridError(f"the graph says that it has {said}, but its nodes make it {found}; export it anew")
        return found if said is None else said

    def _in_order(self, tensor: str, layout: Layout) -> Lying:
        lying = self._found.lying.get(tensor, PLAIN)
        if isinstance(lying, str) or not layout:
            return lying
        return lying.model_copy(update={"axis": layout[lying.axis]})

    def _shape(self, tensor: str, layout: Layout) -> Shape | None:
        """The shape in the order of the words, with the extents that are the same at any size of the inputs."""
        said = self._shapes.get(tensor)
        found = self._found.shapes.get(tensor)
        if said is None:
            return numbered_shape(found, layout)
        if found is not None and len(said) == len(found):
            said = tuple(other if one is None else one for one, other in zip(said, found, strict=True))
        return numbered_shape(said, layout)


def batch_axis_of(node: NodeProto) -> BatchAxis:
    """Where a fault node says that the samples lie; raises GraphError for numbers that say no such thing."""
    given = {key: attribute(node, key, None) for key in BATCH_AXIS}
    try:
        return BatchAxis(**{key: value for key, value in given.items() if value is not None})
    except ModelError as error:
        raise GraphError(f"the node {node.name!r} does not say where its samples lie: {error}") from None


def find_samples(model: ModelProto, tensors: Tensors, batch_axis: int | None = None, *, moved: bool = False) -> Samples:
    """Where the samples of a graph's inputs lie in its tensors.

    `batch_axis` is that of the inputs; None: their symbolic one, or the one of several that is called "batch", else 0.
    `moved` says that somewhere they are known not to lie along axis 0. Raises GraphError where no input has the axis.
    """
    # most graphs leave the samples along axis 0 all the way, which is seen without inferring shapes anew
    inputs = _Inputs(model, tensors, batch_axis)
    quick = Following(model, tensors, inputs.axes, inputs.others, tensors.shapes, inputs.batch)
    if not moved and not quick.unsure and all(lying == PLAIN for lying in quick.lying.values()):
        return Samples(quick.lying, {}, inputs.batch)

    # others are followed with all extents, at two sizes: what holds at both does not rest on a coincidence of one
    seen: list[dict[str, Shape]] = []
    runs: list[dict[str, Lying]] = []
    for shapes, batch in inputs.sizes():
        inferred = shapes_for(model, shapes)
        followed = Following(model, tensors, inputs.axes, inputs.others, tensors.shapes | inferred, batch)
        seen.append(inferred)
        runs.append(followed.lying)
    lying = {name: _agree([run[name] for run in runs]) for name in runs[0]}
    return Samples(lying, _common(seen), inputs.batch)


def _agree(answers: Sequence[Lying]) -> Lying:
    """The answer that does not depend on the extents of the inputs, or why there is none."""
    for answer in answers:
        if isinstance(answer, str):
            return answer
    if len(set(answers)) > 1:
        return "how many rows each has depends on the extents of the inputs"
    return answers[0]


def _common(seen: Sequence[Mapping[str, Shape]]) -> dict[str, Shape]:
    """The shapes that were found for all inputs, with the extents that they have in common and None for the others."""
    found: dict[str, Shape] = {}
    for name, shape in seen[0].items():
        shapes = [one[name] for one in seen if name in one]
        if len(shapes) < len(seen) or any(len(other) != len(shape) for other in shapes):
            continue
        common = []
        for extents in zip(*shapes, strict=True):
            alike = len(set(extents)) == 1
            common.append(extents[0] if alike else None)
        found[name] = tuple(common)
    return found


class _Inputs:
    """The inputs of a graph that hold samples, with their axes, and those that do not."""

    def __init__(self, model: ModelProto, tensors: Tensors, batch_axis: int | None) -> None:
        initializers = {tensor.name for tensor in model.graph.initializer}
        self._infos = [info for info in model.graph.input if info.name not in initializers]
        self._shapes = {info.name: tensors.shapes.get(info.name) for info in self._infos}
        if batch_axis is None:
            axes = {}
            for info in self._infos:
                shape = self._shapes[info.name]
                if shape != ():  # a scalar holds no samples
                    axes[info.name] = _axis_of(info, shape)
        else:
            axes = _with_axis(batch_axis, self._shapes)
        extents = {name: _extent(self._shapes[name], axis) for name, axis in axes.items()}
        sizes = list(extents.values())
        self.batch = sizes[0] if sizes and None not in sizes else None
        """The size of the batch; None: any."""
        # what has another extent there holds no samples
        self.axes = {name: BatchAxis(axis=axis) for name, axis in axes.items() if extents[name] == self.batch}
        self.others = {info.name for info in self._infos} - self.axes.keys()

    def sizes(self) -> Iterable[tuple[dict[str, Shape], int]]:
        """Shapes of the inputs, and the size of the batch in them: two, or one where all extents are fixed."""
        symbolic = {name: self._symbols(name) for name in self._shapes if self._shapes[name] is not None}
        names: dict[str, None] = {}  # those of open axes other than the samples'
        for symbols in symbolic.values():
            names.update((symbol, None) for symbol in symbols if isinstance(symbol, str) and symbol != "")
        sizes = _SIZES if names or self.batch is None else _SIZES[:1]
        for i, size in enumerate(sizes):
            batch = size if self.batch is None else self.batch
            values = {"": batch}
            for k, name in enumerate(names):
                values[name] = _OTHERS[k % len(_OTHERS)][i]
            shapes: dict[str, Shape] = {}
            for name, symbols in symbolic.items():
                shapes[name] = tuple(values[symbol] if isinstance(symbol, str) else symbol for symbol in symbols)
            yield shapes, batch

    def _symbols(self, name: str) -> list[int | str]:
        """The extents of an input, open ones by a name: "" for that of the samples."""
        info = next(info for info in self._infos if info.name == name)
        said = [extent.dim_param for extent in info.type.tensor_type.shape.dim]
        axis = self.axes[name].axis if name in self.axes else None
        symbols: list[int | str] = []
        for i, extent in enumerate(self._shapes[name] or ()):
            if extent is not None:
                symbols.append(extent)
            elif i == axis:
                symbols.append("")
            elif i < len(said) and said[i]:
                symbols.append(said[i])  # one name has one value, in other inputs too
            else:
                symbols.append(f"{name} {i}")
        return symbols


def _axis_of(info: ValueInfoProto, shape: Shape | None) -> int:
    """The axis of the samples in an input: its symbolic one, if it has one alone and axis 0 is fixed; else 0.

    Of several the one that is called so.
    """
    open_ones = [axis for axis, extent in enumerate(shape or ()) if extent is None]
    names = [extent.dim_param for extent in info.type.tensor_type.shape.dim]
    called = [axis for axis in open_ones if _BATCH.search(names[axis])]
    if len(called) == 1:
        return called[0]
    if shape and shape[0] != 1 and len(open_ones) == 1:
        return open_ones[0]
    return 0


def _with_axis(axis: int, shapes: Mapping[str, Shape | None]) -> dict[str, int]:
    """The inputs that have the axis, each with its place from the front; those of another extent hold no samples."""
    found: dict[str, int] = {}
    first: int | None = None
    for name, shape in shapes.items():
        if shape is None or not -len(shape) <= axis < len(shape):
            continue
        extent = shape[axis]
        if first is not None and extent is not None and extent != first:
            continue
        first = extent if first is None else first
        found[name] = axis % len(shape)
    if not found:
        told = ", ".join(f"{name} {list(shape or ())}" for name, shape in shapes.items())
        raise GraphError(f"no input of the graph has the batch axis {axis}; expected one that these have: {told}")
    return found


def _extent(shape: Shape | None, axis: int) -> int | None:
    if shape is None or axis >= len(shape):
        return None
    return shape[axis]
