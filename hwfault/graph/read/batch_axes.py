"""Graphs take axis 0 for the samples: what lies otherwise is refused in plans, and an obstacle in graphs.

In a graph the samples are followed from its inputs, node by node, through everything that moves, folds or picks axes;
what computes leaves them where they were. Shapes that cannot be inferred are taken to keep axis 0.
"""

import math
import re
from collections.abc import Iterable, Mapping

from onnx import ModelProto, NodeProto, ValueInfoProto

from hwfault.errors import GraphError, ModelError
from hwfault.graph import ops
from hwfault.graph.read.nodes import BATCH_AXIS
from hwfault.graph.read.qonnxgraph import Constants, attribute
from hwfault.graph.read.shapes import Shape, Tensors
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site, SiteList

_BATCH = re.compile(r"batch|^(n|b|bs)$", re.IGNORECASE)
"""Names of the axis of the samples."""

Lying = int | str
"""The axis of the samples, or what was done to them."""


def batch_axis_of(node: NodeProto) -> BatchAxis:
    """Where a fault node says that the samples lie; raises GraphError for numbers that say no such thing."""
    given = {key: attribute(node, key, None) for key in BATCH_AXIS}
    try:
        return BatchAxis(**{key: value for key, value in given.items() if value is not None})
    except ModelError as error:
        raise GraphError(f"the node {node.name!r} does not say where its samples lie: {error}") from None


def check_axis_0(sites: Iterable[Site]) -> None:
    """Raises GraphError for a site whose samples do not lie along axis 0: graphs cannot strike it yet."""
    for site in sites:
        if site.batch is not None:
            raise GraphError(f"the site {site.name!r} cannot be struck in a graph: {_why(site)}")


def along_axis_0(sites: SiteList) -> SiteList:
    """The sites that a graph can strike; the others are among the obstacles."""
    others = {
        site.name: f"{site.name!r} is no site of a graph: {_why(site)}" for site in sites if site.batch is not None
    }
    return SiteList([site for site in sites if site.batch is None], sites.obstacles | others)


def _why(site: Site) -> str:
    return f"it has {site.batch_axis}, and graphs take each element of axis 0 for a sample (PyTorch strikes it)"


def moved_samples(model: ModelProto, tensors: Tensors, batch_axis: int | None = None) -> dict[str, str]:
    """Why the samples do not lie along axis 0, by the name of each tensor where they do not.

    `batch_axis` is that of the inputs; None: their symbolic one, or the one of several that is called "batch", else 0.
    Raises GraphError where no input has such an axis.
    """
    following = _Following(model, tensors, batch_axis)
    for node in model.graph.node:
        following.follow(node)
    return {name: _said(lying) for name, lying in following.lying.items() if lying != 0}


def _said(lying: Lying) -> str:
    where = f"they lie along axis {lying}" if isinstance(lying, int) else lying
    return (
        f"its samples do not lie along axis 0: {where}; graphs take each element of axis 0 for a sample (batch_axis, "
        "--batch-axis on the command line, says which axis of the inputs holds them)"
    )


class _Following:
    """Where the samples lie in each tensor that depends on a graph's inputs."""

    def __init__(self, model: ModelProto, tensors: Tensors, batch_axis: int | None) -> None:
        self._tensors, self._constants = tensors, Constants(model)
        initializers = {tensor.name for tensor in model.graph.initializer}
        inputs = [info for info in model.graph.input if info.name not in initializers]
        shapes = tensors.shapes
        self.lying: dict[str, Lying] = {}
        if batch_axis is None:
            known = [(info, shapes.get(info.name)) for info in inputs]
            self.lying |= {info.name: _of_input(info, shape) for info, shape in known if shape != ()}
        else:
            self.lying |= _along(batch_axis, {info.name: shapes.get(info.name) for info in inputs})

    def follow(self, node: NodeProto) -> None:
        """Notes where the samples lie in a node's outputs."""
        known = [name for name in node.input if name in self.lying]
        if not known or ops.of(node.op_type).samples == "no samples":
            return
        lying = self._behind(node, known)
        recurs = ops.of(node.op_type).samples == "recur"
        for i, output in enumerate(node.output):
            if output:
                self.lying[output] = _of_recurrence(node, i, lying) if recurs else lying

    def _behind(self, node: NodeProto, known: list[str]) -> Lying:
        """Where the samples lie behind a node, of whose inputs those that are `known` have some."""
        # those with most axes carry the others along, as in a sum with a bias that was computed
        rank = max(len(self._shape(name) or ()) for name in known)
        full = [name for name in known if len(self._shape(name) or ()) == rank]
        name = next((name for name in full if isinstance(self.lying[name], int)), full[0])
        lying = self.lying[name]
        axes = {self.lying[name] for name in full if isinstance(self.lying[name], int)}
        if len(axes) > 1 and not ops.of(node.op_type).beside:
            return f"the node {node.name!r} ({node.op_type}) joins tensors that have them along axes {_listed(axes)}"
        if isinstance(lying, str):
            return lying
        try:
            return self._after(node, name, lying)
        except (IndexError, TypeError, ValueError, ArithmeticError):  # axes that the tensor does not have
            return f"the node {node.name!r} ({node.op_type}) has axes that its input does not have"

    def _shape(self, name: str) -> Shape | None:
        return self._tensors.shapes.get(name)

    def _after(self, node: NodeProto, name: str, axis: int) -> Lying:
        """The axis of the samples behind a node whose input `name` has them along `axis`."""
        own, rank = ops.of(node.op_type), len(self._shape(name) or ())
        first = name == node.input[0]
        match own.samples:
            case "permute":
                order = list(attribute(node, "perm", ())) or list(range(rank))[::-1]
                return order.index(axis) if axis in order else axis
            case "fold" if first:
                return self._reshaped(node, axis)
            case "squeeze":
                return self._squeezed(node, axis, rank)
            case "repeat":
                return self._repeated(node, name, axis)
            case "pick" if own.beside and not first:  # an embedding of integers
                return axis
            case "join" | "pick" | "slice":
                return self._picked(node, axis, rank)
            case "reduce" | "reduce one":
                return self._reduced(node, axis, rank)
            case "turn" if rank == 2:
                turned = attribute(node, "transA" if first else "transB", 0)
                return 1 - axis if turned else axis
            case "sum":
                return _summed(node, list(node.input).index(name), axis)
            case "rows of their own":
                return f"the node {node.name!r} ({own.name}) makes as many rows as the data say"
            case "sort" if attribute(node, "axis", -1) in (axis, axis - rank):
                return f"the node {node.name!r} ({own.name}) sorts along their axis"
            case "pick behind" if attribute(node, "batch_dims", 0) <= axis:
                return _picks(node)
        if own.shape == "broadcast" and rank:  # axes are added in front of those of a smaller rank
            return axis + max(len(self._shape(node.output[0]) or ()) - rank, 0)
        return axis

    def _numbers(self, node: NodeProto, own: str, position: int) -> list[int] | None:
        """Axes or extents of a node, an attribute in old opsets and a constant input in new ones; None: not known."""
        given = attribute(node, own, None)
        if given is not None:
            return [int(n) for n in (given if isinstance(given, list | tuple) else [given])]
        if len(node.input) <= position or not node.input[position]:
            return []
        values = self._constants.get(node.input[position])
        return None if values is None else [int(n) for n in values.reshape(-1)]

    def _reshaped(self, node: NodeProto, axis: int) -> Lying:
        before, after = self._shape(node.input[0]), self._shape(node.output[0])
        if node.op_type == "Flatten":
            first = attribute(node, "axis", 1)
            whole = axis == 0 and first == 1
            return 0 if whole else f"the node {node.name!r} folds axes up to {first} into one"
        target = self._numbers(node, "shape", 1)
        if self._computes_first(node):
            return f"the node {node.name!r} reshapes them to an extent that is computed"
        if axis == 0 and (self._keeps_first(node, target) or before is None or after is None):
            return 0
        if before is None or after is None:
            return f"the node {node.name!r} reshapes them"
        # the samples lie where as many words lie behind them as before,
        behind = _product(before[axis + 1 :])
        for i, extent in enumerate(after):
            # and as many in front of them: rows that were folded into their axis leave fewer
            around = (_product(after[:i]), _product(after[i + 1 :]))
            if None not in around and around == (_product(before[:axis]), behind) and _alike(extent, before[axis]):
                return i
        # an extent that the graph fixes is not that of a batch of any size
        fixed = bool(after) and after[0] is not None and after[0] != before[axis]
        unknown = (behind is None or None in after[1:]) and not fixed
        return axis if unknown and axis == 0 else f"the node {node.name!r} folds {before} into {after}"

    def _keeps_first(self, node: NodeProto, target: list[int] | None) -> bool:
        """Whether a reshape says itself that it keeps axis 0: by a 0, or by the extent that its input has."""
        if target:
            return target[0] == 0 and not attribute(node, "allowzero", 0)
        maker = self._tensors.makers.get(node.input[1]) if len(node.input) > 1 else None
        first = maker.input[0] if maker is not None and maker.op_type == "Concat" else ""
        return self._is_extent(first)

    def _computes_first(self, node: NodeProto) -> bool:
        """Whether a reshape's first extent is worked out, as in `x.reshape(x.shape[0] * 4, -1)`."""
        maker = self._tensors.makers.get(node.input[1]) if len(node.input) > 1 else None
        if maker is None or maker.op_type != "Concat" or maker.input[0] in self._tensors.constants:
            return False
        *_, first = self._tensors.before(maker.input[0], lambda node: ops.of(node.op_type).extent == "passes")
        worked = self._tensors.makers.get(first)
        after = self._shape(node.output[0])
        unknown = after is None or None in after
        return unknown and worked is not None and ops.of(worked.op_type).extent == "computes"

    def _is_extent(self, name: str) -> bool:
        """Whether a tensor is the first number of a Shape, as traced networks write `x.shape[0]`."""
        *way, first = self._tensors.before(name, lambda node: ops.of(node.op_type).extent in ("passes", "picks"))
        maker = self._tensors.makers.get(first)
        if maker is None or maker.op_type != "Shape" or attribute(maker, "start", 0) != 0:
            return False
        passed = [self._tensors.makers[tensor] for tensor in way]
        picks = [node for node in passed if ops.of(node.op_type).extent == "picks"]
        return all(self._numbers(node, "starts", 1) in (None, [], [0]) for node in picks)

    def _squeezed(self, node: NodeProto, axis: int, rank: int) -> Lying:
        axes = self._numbers(node, "axes", 1)
        if not axes:
            return axis
        if node.op_type == "Squeeze":
            gone = {a % rank for a in axes} if rank else set(axes)
            lost = f"the node {node.name!r} takes their axis away"
            return lost if axis in gone else axis - sum(a < axis for a in gone)
        out = len(self._shape(node.output[0]) or ()) or rank + len(axes)
        new = {a % out for a in axes}
        return [i for i in range(out) if i not in new][axis]

    def _repeated(self, node: NodeProto, name: str, axis: int) -> Lying:
        """Nodes that repeat along some axes, of which that of the samples may be one."""
        if node.op_type == "Tile" and (repeats := self._numbers(node, "repeats", 1)):
            return axis if repeats[axis] == 1 else _picks(node)
        before, after = self._shape(name), self._shape(node.output[0])
        if before is None or after is None or len(before) > len(after):
            return axis
        moved = axis + len(after) - len(before)
        return moved if _alike(after[moved], before[axis]) else _picks(node)

    def _picked(self, node: NodeProto, axis: int, rank: int) -> Lying:
        """Nodes that join or pick along axes, of which that of the samples may be one."""
        slices = node.op_type == "Slice"
        axes = self._numbers(node, "axes", 3) if slices else [attribute(node, "axis", 0)]
        if slices and axes == []:
            axes = list(range(len(self._numbers(node, "starts", 1) or ())))
        if axes is None or not rank:
            return axis
        if axis not in [a % rank for a in axes]:
            scalar = node.op_type == "Gather" and self._shape(node.input[1]) == ()
            return axis - (1 if scalar and axes[0] % rank < axis else 0)
        return axis if slices and self._whole(node, axes, axis, rank) else _picks(node)

    def _whole(self, node: NodeProto, axes: list[int], axis: int, rank: int) -> bool:
        """Whether a slice takes all of an axis."""
        i = [a % rank for a in axes].index(axis)
        starts, ends = self._numbers(node, "starts", 1), self._numbers(node, "ends", 2)
        steps = self._numbers(node, "steps", 4)
        return bool(starts and ends and starts[i] == 0 and ends[i] >= 1 << 30 and (not steps or steps[i] == 1))

    def _reduced(self, node: NodeProto, axis: int, rank: int) -> Lying:
        one = ops.of(node.op_type).samples == "reduce one"
        axes = [attribute(node, "axis", 0)] if one else self._numbers(node, "axes", 1)
        if axes is None or not rank:
            return axis
        gone = {a % rank for a in axes} or set(range(rank))
        if axis in gone:
            return f"the node {node.name!r} adds them up"
        return axis if attribute(node, "keepdims", 1) else axis - sum(a < axis for a in gone)


def _picks(node: NodeProto) -> str:
    return f"the node {node.name!r} ({node.op_type}) joins, picks or repeats along their axis"


def _of_input(info: ValueInfoProto, shape: Shape | None) -> int:
    """The axis of the samples in an input: its symbolic one, if it has one alone and axis 0 is fixed; else 0.

    Of several the one that is called so.
    """
    open_ones = [axis for axis, extent in enumerate(shape or ()) if extent is None]
    names = [extent.dim_param for extent in info.type.tensor_type.shape.dim]
    called = [axis for axis in open_ones if _BATCH.search(names[axis])]
    if len(called) == 1:
        return called[0]
    return open_ones[0] if shape and shape[0] != 1 and len(open_ones) == 1 else 0


def _along(axis: int, shapes: Mapping[str, Shape | None]) -> dict[str, Lying]:
    """The inputs that have the axis, each with its place from the front; those of another extent hold no samples."""
    found: dict[str, Lying] = {}
    first: int | None = None
    for name, shape in shapes.items():
        if shape is None or not -len(shape) <= axis < len(shape) or not _alike(first, shape[axis]):
            continue
        first = shape[axis] if first is None else first
        found[name] = axis % len(shape)
    if not found:
        told = ", ".join(f"{name} {list(shape or ())}" for name, shape in shapes.items())
        raise GraphError(f"no input of the graph has the batch axis {axis}; expected one that these have: {told}")
    return found


def _of_recurrence(node: NodeProto, output: int, axis: Lying) -> Lying:
    """The axis of the samples in an output of a recurrent layer: all that it gave, or its last state."""
    if isinstance(axis, str):
        return axis
    first = attribute(node, "layout", 0) == 1  # whether they are in front in all that it reads and gives
    if axis != (0 if first else 1):
        return f"the node {node.name!r} ({node.op_type}) runs along their axis"
    return 0 if first else 2 if output == 0 else 1


def _summed(node: NodeProto, position: int, axis: int) -> Lying:
    """The axis of the samples behind an Einsum, whose equation names the axes of each input and of the output."""
    equation = str(attribute(node, "equation", b"").decode()).replace(" ", "")
    inputs, _, output = equation.partition("->")
    name = inputs.split(",")[position][axis]
    if "." in equation or name not in output:
        return f"the node {node.name!r} (Einsum) computes {equation!r}, which does not say where they lie behind it"
    return output.index(name)


def _listed(axes: Iterable[Lying]) -> str:
    return " and ".join(map(str, sorted(axes, key=str)))


def _product(shape: Shape) -> int | None:
    """How many words a shape has; None where an extent is not known."""
    return None if any(extent is None for extent in shape) else math.prod(extent or 0 for extent in shape)


def _alike(one: int | None, other: int | None) -> bool:
    return one is None or other is None or one == other
