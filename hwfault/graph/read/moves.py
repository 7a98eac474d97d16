"""What the nodes of a graph do to the axis of the samples: they move it, fold it, take it apart, or leave it."""

import math
from collections.abc import Iterable, Mapping

from onnx import ModelProto, NodeProto

from hwfault.graph import ops
from hwfault.graph.read.qonnxgraph import Constants, attribute, standard_opset
from hwfault.graph.read.shapes import Shape, Tensors, is_fault
from hwfault.program.batch_axes import BatchAxis

Lying = BatchAxis | str
"""Where the samples lie, or what was done to them that has no such answer."""

_ONE_AXIS = 13
"""The first opset whose Softmax works along one axis."""


class Following:
    """Where the samples lie in each tensor that depends on a graph's inputs.

    `axes` says it of the inputs that hold samples, `others` are those that hold none. `shapes` are those of tensors as
    far as they are known, for `batch` samples (None: any number; then only axis 0 is followed through reshapes).
    """

    def __init__(
        self,
        model: ModelProto,
        tensors: Tensors,
        axes: Mapping[str, BatchAxis],
        others: Iterable[str],
        shapes: Mapping[str, Shape],
        batch: int | None,
    ) -> None:
        self._tensors, self._constants, self._shapes, self._batch = tensors, Constants(model), shapes, batch
        self._opset = standard_opset(model)
        self.lying: dict[str, Lying] = dict(axes)
        empty = set(others)
        for node in (node for node in model.graph.node if ops.of(node.op_type).samples != "no samples"):
            self._follow(node)
            if any(name in empty for name in node.input) and not any(name in self.lying for name in node.output):
                empty.update(filter(None, node.output))
        self.lying |= dict.fromkeys(empty, "it is made of inputs that hold none")

    def _follow(self, node: NodeProto) -> None:
        """Notes where the samples lie in a node's outputs."""
        known = [name for name in node.input if name in self.lying]
        if not known:
            return
        lying = self._behind(node, known)
        recurs = ops.of(node.op_type).samples == "recur"
        for i, output in enumerate(node.output):
            if output:
                own = _of_recurrence(node, i, lying) if recurs else lying
                self.lying[output] = self._checked(node, output, own)

    def _behind(self, node: NodeProto, known: list[str]) -> Lying:
        """Where the samples lie behind a node, of whose inputs those that are `known` have some."""
        # those with most axes carry the others along, as in a sum with a bias that was computed
        rank = max(self._rank(name) for name in known)
        full = [name for name in known if self._rank(name) == rank]
        found = {name: lying for name in full if isinstance(lying := self.lying[name], BatchAxis)}
        if len(set(found.values())) > 1 and not ops.of(node.op_type).beside:
            return f"{_told(node)} joins tensors that have {_listed(found.values())}"
        if not found:
            return self.lying[full[0]]
        name, lying = next(iter(found.items()))
        try:
            if ops.of(node.op_type).samples == "fold" and name == node.input[0]:
                return self._reshaped(node, lying)
            axis = self._axis_behind(node, name, lying.axis)
        except (IndexError, TypeError, ValueError, ArithmeticError):  # axes that the tensor does not have
            return f"{_told(node)} has axes that its input does not have"
        return axis if isinstance(axis, str) else lying.model_copy(update={"axis": axis})

    def _shape(self, name: str) -> Shape | None:
        return self._shapes.get(name)

    def _rank(self, name: str) -> int:
        return len(self._shape(name) or ())

    def _checked(self, node: NodeProto, output: str, lying: Lying) -> Lying:
        """The same, if the shape of what the node makes can hold the samples so."""
        shape = self._shape(output)
        if isinstance(lying, str) or shape is None or self._batch is None:
            return lying
        if lying.axis >= len(shape):
            return f"{_told(node)} takes their axis away"
        extent, expected = shape[lying.axis], self._batch * lying.rows
        if extent is None or extent == expected:
            return lying
        return f"{_told(node)} makes {extent} rows of the {expected} along their axis"

    def _axis_behind(self, node: NodeProto, name: str, axis: int) -> int | str:
        """The axis of the samples behind a node whose input `name` has them along `axis`."""
        own, rank, first = ops.of(node.op_type), self._rank(name), name == node.input[0]
        match own.samples:
            case "permute":
                order = list(attribute(node, "perm", ())) or list(range(rank))[::-1]
                return order.index(axis) if axis in order else axis
            case "squeeze":
                return self._squeezed(node, axis, rank)
            case "repeat":
                return self._repeated(node, name, axis)
            case "pick" if own.beside and not first:  # an embedding of integers
                table = self._rank(node.input[0])
                return axis + (attribute(node, "axis", 0) % table if node.op_type == "Gather" and table else 0)
            case "pad" if pads := self._numbers(node, "pads", 1):
                more = bool(pads[axis] or pads[axis + rank])
                return f"{_told(node)} makes more rows along their axis" if more else axis
            case "join" | "pick" | "slice":
                return self._picked(node, axis, rank)
            case "reduce" | "reduce one":
                return self._reduced(node, axis, rank)
            case "multiply":
                return self._multiplied(node, name, axis)
            case "sum":
                return _summed(node, list(node.input).index(name), axis)
            case "rows of their own":
                return f"{_told(node)} makes as many rows as the data say"
            case "sort":
                sorts = attribute(node, "axis", -1) in (axis, axis - rank)
                return f"{_told(node)} sorts along their axis" if sorts else axis
            case "mix" | "mix behind":
                return f"{_told(node)} works along their axis" if self._mixes(node, axis, rank) else axis
            case "pick behind" if attribute(node, "batch_dims", 0) <= axis:
                return _picks(node)
        if own.shape == "broadcast" and rank:  # axes are added in front of those of a smaller rank
            return axis + max(self._rank(node.output[0]) - rank, 0)
        stay = axis == 0 or own.elementwise or own.anywhere or own.samples == "recur" or is_fault(node)
        return axis if stay else f"{_told(node)} is not known to leave them along axis {axis}"

    def _numbers(self, node: NodeProto, own: str, position: int) -> list[int] | None:
        """Axes or extents of a node, an attribute in old opsets and a constant input in new ones; None: not known."""
        given = attribute(node, own, None)
        if given is not None:
            return [int(n) for n in (given if isinstance(given, list | tuple) else [given])]
        if len(node.input) <= position or not node.input[position]:
            return []
        values = self._constants.get(node.input[position])
        return None if values is None else [int(n) for n in values.reshape(-1)]

    def _reshaped(self, node: NodeProto, lying: BatchAxis) -> Lying:
        before, after = self._shape(node.input[0]), self._shape(node.output[0])
        if self._batch is not None and before is not None and after is not None and not {None} & {*before, *after}:
            return self._folded(node, lying)
        if not lying.plain:
            return f"{_told(node)} reshapes them, and the shapes are not known"
        if node.op_type == "Flatten":
            first = attribute(node, "axis", 1)
            return lying if first == 1 else f"the node {node.name!r} folds axes up to {first} into one"
        if self._computes_first(node):
            return f"the node {node.name!r} reshapes them to an extent that is computed"
        if self._keeps_first(node) or before is None or after is None:
            return lying
        # an extent that the graph fixes is not that of a batch of any size
        fixed = bool(after) and after[0] is not None and after[0] != before[0]
        alike = bool(after) and _alike(after[0], before[0]) and _product(after[1:]) == _product(before[1:])
        unknown = _product(before[1:]) is None or None in after[1:]
        kept = (alike and _product(before[1:]) is not None) or (unknown and not fixed)
        return lying if kept else f"the node {node.name!r} folds {before} into {after}"

    def _folded(self, node: NodeProto, lying: BatchAxis) -> Lying:
        """The same with all extents: words stay in their order, so that `run` of a sample lie together as before."""
        before, after = (tuple(n or 0 for n in self._shapes[name]) for name in (node.input[0], node.output[0]))
        batch, told = self._batch or 1, f"the node {node.name!r} folds {before} into {after}"
        if math.prod(before) != math.prod(after) or not math.prod(after):
            return told
        run = lying.inner * math.prod(before[lying.axis + 1 :])
        fitting = []
        for axis, extent in enumerate(after):
            inner, rest = divmod(run, math.prod(after[axis + 1 :]))
            if rest == 0 and inner and extent % (batch * inner) == 0:
                fitting.append(BatchAxis(axis=axis, inner=inner, rows=extent // batch))
        # one sample alone fits in several ways, all with the same words
        return min(fitting, key=lambda found: (not found.plain, found.rows), default=told)

    def _keeps_first(self, node: NodeProto) -> bool:
        """Whether a reshape says itself that it keeps axis 0: by a 0, or by the extent that its input has."""
        target = self._numbers(node, "shape", 1)
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

    def _squeezed(self, node: NodeProto, axis: int, rank: int) -> int | str:
        axes = self._numbers(node, "axes", 1)
        if not axes:
            return axis
        if node.op_type == "Squeeze":
            gone = {a % rank for a in axes} if rank else set(axes)
            lost = f"the node {node.name!r} takes their axis away"
            return lost if axis in gone else axis - sum(a < axis for a in gone)
        out = self._rank(node.output[0]) or rank + len(axes)
        new = {a % out for a in axes}
        return [i for i in range(out) if i not in new][axis]

    def _repeated(self, node: NodeProto, name: str, axis: int) -> int | str:
        """Nodes that repeat along some axes, of which that of the samples may be one."""
        if node.op_type == "Tile" and (repeats := self._numbers(node, "repeats", 1)):
            return axis if repeats[axis] == 1 else _picks(node)
        before, after = self._shape(name), self._shape(node.output[0])
        if before is None or after is None or len(before) > len(after):
            return axis
        moved = axis + len(after) - len(before)
        return moved if _alike(after[moved], before[axis]) else _picks(node)

    def _picked(self, node: NodeProto, axis: int, rank: int) -> int | str:
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

    def _reduced(self, node: NodeProto, axis: int, rank: int) -> int | str:
        one = ops.of(node.op_type).samples == "reduce one"
        axes = [attribute(node, "axis", 0)] if one else self._numbers(node, "axes", 1)
        if axes is None or not rank:
            return axis
        gone = {a % rank for a in axes} or set(range(rank))
        if axis in gone:
            return f"the node {node.name!r} adds them up"
        return axis if attribute(node, "keepdims", 1) else axis - sum(a < axis for a in gone)

    def _multiplied(self, node: NodeProto, name: str, axis: int) -> int | str:
        """A product of matrices adds up along the last axis of its first factor and the last but one of its second."""
        rank, factor = self._rank(name), list(node.input).index(name)
        if factor > 1 or rank < 2:  # the bias of a Gemm, or vectors
            return axis
        if attribute(node, ("transA", "transB")[factor], 0):
            axis = 1 - axis
        if axis == rank - 1 - factor:
            return f"the node {node.name!r} adds them up"
        return axis + max(self._rank(node.output[0]) - rank, 0)

    def _mixes(self, node: NodeProto, axis: int, rank: int) -> bool:
        """Whether what a node makes of a sample depends on others: it normalizes along their axis."""
        if not rank:
            return False
        behind = ops.of(node.op_type).samples == "mix behind"
        if not behind and self._opset < _ONE_AXIS and node.op_type != "LpNormalization":
            return axis >= int(attribute(node, "axis", 1)) % rank  # all axes from that one on were one to it
        along = int(attribute(node, "axis", -1)) % rank
        return axis >= along if behind else axis == along


def _told(node: NodeProto) -> str:
    return f"the node {node.name!r} ({node.op_type})"


def _of_recurrence(node: NodeProto, output: int, lying: Lying) -> Lying:
    """Where they lie in an output of a recurrent layer: all that it gave, or its last state."""
    if isinstance(lying, str):
        return lying
    first = attribute(node, "layout", 0) == 1  # whether they are in front in all that it reads and gives
    if lying.axis != (0 if first else 1):
        return f"{_told(node)} runs along their axis"
    return lying.model_copy(update={"axis": 0 if first else 2 if output == 0 else 1})


def _picks(node: NodeProto) -> str:
    return f"{_told(node)} joins, picks or repeats along their axis"


def _summed(node: NodeProto, position: int, axis: int) -> int | str:
    """The axis of the samples behind an Einsum, whose equation names the axes of each input and of the output."""
    equation = str(attribute(node, "equation", b"").decode()).replace(" ", "")
    inputs, _, output = equation.partition("->")
    name = inputs.split(",")[position][axis]
    if "." in equation or name not in output:
        return f"{_told(node)} computes {equation!r}, which does not say where they lie behind it"
    return output.index(name)


def _listed(lying: Iterable[BatchAxis]) -> str:
    return " and ".join(sorted({str(batch) for batch in lying}))


def _product(shape: Shape) -> int | None:
    """How many words a shape has; None where an extent is not known."""
    return None if any(extent is None for extent in shape) else math.prod(extent or 0 for extent in shape)


def _alike(one: int | None, other: int | None) -> bool:
    return one is None or other is None or one == other
