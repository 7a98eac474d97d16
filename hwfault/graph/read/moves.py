"""What the nodes of a graph do to the axis of the samples: they move it, fold it, take it apart, or leave it."""

import math
from collections.abc import Iterable, Mapping

from onnx import ModelProto, NodeProto

from hwfault.graph import ops
from hwfault.graph.read.functions import find_functions
from hwfault.graph.read.qonnxgraph import Constants, attribute, standard_opset
from hwfault.graph.read.shapes import Shape, Tensors, alike, has_same_rows, is_fault, keeps_rows, read_by
from hwfault.program.batch_axes import BatchAxis

Lying = BatchAxis | str
"""Where the samples lie, or what was done to them that has no such answer."""

_ONE_AXIS = 13
"""The first opset whose Softmax works along one axis."""
_AXIS_BEFORE_LAST = 20
"""The first opset whose DFT works along the last axis but one unless told otherwise; before it was axis 1."""


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
        self._tensors = tensors
        self._constants = Constants(model)
        self._shapes = shapes
        self._batch = batch
        self._opset = standard_opset(model)
        self._functions = find_functions(model).keys()
        self.unsure = False
        """Whether a reshape was taken to leave the samples where they were although the shapes do not say so."""
        self.lying: dict[str, Lying] = dict(axes)
        empty = set(others)
        for node in model.graph.node:
            if ops.of(node.op_type).samples == "no samples":
                continue
            self._follow(node)
            # what is made of inputs without samples alone has none
            reads_empty = any(name in empty for name in node.input)
            if reads_empty and not any(name in self.lying for name in node.output):
                empty.update(filter(None, node.output))
        self.lying |= dict.fromkeys(empty, "it is made of inputs that hold none")

    def _follow(self, node: NodeProto) -> None:
        """Notes where the samples lie in a node's outputs."""
        known = [name for name in read_by(node) if name in self.lying]
        if not known:
            return
        lying = self._unfollowed(node) or self._behind(node, known)
        recurs = ops.of(node.op_type).samples == "recur"
        for i, output in enumerate(node.output):
            if output:
                own = _of_recurrence(node, i, lying) if recurs else lying
                self.lying[output] = self._checked(node, output, own)

    def _unfollowed(self, node: NodeProto) -> str | None:
        """Why nothing is known of what a node makes of samples; None where they are followed through it."""
        if (node.domain, node.op_type) in self._functions:
            return f"{_told(node)} calls a model function that is not written out"
        if ops.of(node.op_type).samples == "not followed":
            return f"{_told(node)} is not followed"
        return None

    def _behind(self, node: NodeProto, known: list[str]) -> Lying:
        """Where the samples lie behind a node, of whose inputs those that are `known` have some."""
        # those with most axes carry the others along, as in a sum with a bias that was computed
        rank = max(self._rank(name) for name in known)
        full = [name for name in known if self._rank(name) == rank]
        found: dict[str, BatchAxis] = {}
        for name in full:
            lying = self.lying[name]
            if isinstance(lying, BatchAxis):
                found[name] = lying
        if len(set(found.values())) > 1 and not ops.of(node.op_type).beside:
            return f"{_told(node)} joins tensors that have {_listed(found.values())}"
        if not found:
            return self.lying[full[0]]
        name, first = next(iter(found.items()))
        try:
            if ops.of(node.op_type).samples == "fold" and name == node.input[0]:
                return self._behind_reshape(node, first)
            axis = self._axis_behind(node, name, first.axis)
        except (IndexError, TypeError, ValueError, ArithmeticError):  # axes that the tensor does not have
            return f"{_told(node)} has axes that its input does not have"
        if isinstance(axis, str):
            return axis
        return first.model_copy(update={"axis": axis})

    def _rank(self, name: str) -> int:
        return len(self._shapes.get(name) or ())

    def _checked(self, node: NodeProto, output: str, lying: Lying) -> Lying:
        """The same, if the shape of what the node makes can hold the samples so."""
        shape = self._shapes.get(output)
        if isinstance(lying, str) or shape is None or self._batch is None:
            return lying
        if lying.axis >= len(shape):
            return f"{_told(node)} takes their axis away"
        extent = shape[lying.axis]
        expected = self._batch * lying.rows
        if extent is None or extent == expected:
            return lying
        return f"{_told(node)} makes {extent} rows of the {expected} along their axis"

    def _axis_behind(self, node: NodeProto, name: str, axis: int) -> int | str:
        """The axis of the samples behind a node whose input `name` has them along `axis`."""
        own = ops.of(node.op_type)
        rank = self._rank(name)
        first = name == node.input[0]
        match own.samples:
            case "permute":
                order = list(attribute(node, "perm", ())) or list(range(rank))[::-1]
                return order.index(axis) if axis in order else axis
            case "squeeze":
                return self._behind_squeeze(node, axis, rank)
            case "repeat":
                return self._behind_repeat(node, name, axis)
            case "pick" if own.beside and not first:
                return self._behind_indices(node, axis)
            case "pad" if pads := self._numbers(node, "pads", 1):
                more = bool(pads[axis] or pads[axis + rank])
                return f"{_told(node)} makes more rows along their axis" if more else axis
            case "join" | "pick" | "slice":
                return self._behind_pick(node, axis, rank)
            case "reduce" | "reduce one":
                return self._behind_reduction(node, axis, rank)
            case "multiply":
                return self._behind_product(node, name, axis)
            case "sum":
                return _behind_einsum(node, list(node.input).index(name), axis)
            case "rows of their own":
                return f"{_told(node)} makes as many rows as the data say"
            case "sort":
                sorts = attribute(node, "axis", -1) in (axis, axis - rank)
                return f"{_told(node)} sorts along their axis" if sorts else axis
            case "mix" | "mix behind":
                return f"{_told(node)} works along their axis" if self._mixes(node, axis, rank) else axis
            case "mix at":
                along = self._along(node, rank)
                return f"{_told(node)} works along their axis" if along in (axis, None) else axis
            case "mix axes":
                several = attribute(node, "axes", (0, 2, 3))
                mixed = axis in several or axis - rank in several
                return f"{_told(node)} works along their axis" if mixed else axis
            case "reverse":
                return f"{_told(node)} turns them round" if axis == attribute(node, "time_axis", 0) else axis
            case "put":
                puts = attribute(node, "axis", 0) in (axis, axis - rank)
                return f"{_told(node)} puts some in the place of others" if puts else axis
            case "put rows" if len(node.input) > 1:
                depth = (self._shapes.get(node.input[1]) or (None,))[-1]
                return f"{_told(node)} puts some in the place of others" if depth is None or axis < depth else axis
            case "new axis":
                return axis + int(attribute(node, "axis", -1) % (rank + 1) <= axis)
            case "pick behind" if attribute(node, "batch_dims", 0) <= axis:
                return _picks(node)
        if own.shape == "broadcast" and rank:  # axes are added in front of those of a smaller rank
            return axis + max(self._rank(node.output[0]) - rank, 0)
        stay = axis == 0 or own.elementwise or own.anywhere or own.samples == "recur" or is_fault(node)
        return axis if stay else f"{_told(node)} is not known to leave them along axis {axis}"

    def _behind_indices(self, node: NodeProto, axis: int) -> int:
        """The axis of samples in what indices pick: behind those axes of the table that lie before the one picked."""
        table = self._rank(node.input[0])
        if node.op_type != "Gather" or not table:
            return axis
        return axis + int(attribute(node, "axis", 0)) % table

    def _numbers(self, node: NodeProto, own: str, position: int) -> list[int] | None:
        """Axes or extents of a node, an attribute in old opsets and a constant input in new ones; None: not known."""
        given = attribute(node, own, None)
        if given is not None:
            return [int(n) for n in (given if isinstance(given, list | tuple) else [given])]
        if len(node.input) <= position or not node.input[position]:
            return []
        values = self._constants.get(node.input[position])
        return None if values is None else [int(n) for n in values.reshape(-1)]

    def _behind_reshape(self, node: NodeProto, lying: BatchAxis) -> Lying:
        """Where samples lie behind a Reshape or Flatten, as far as the shapes that are known tell."""
        before = self._shapes.get(node.input[0])
        after = self._shapes.get(node.output[0])
        if self._batch is not None and before is not None and after is not None and None not in (*before, *after):
            return self._behind_known_reshape(node, lying)
        if not lying.plain:
            return f"{_told(node)} reshapes them, and the shapes are not known"
        if node.op_type == "Flatten":
            first = attribute(node, "axis", 1)
            return lying if first == 1 else f"the node {node.name!r} folds axes up to {first} into one"
        if self._computes_first(node):
            return f"the node {node.name!r} reshapes them to an extent that is computed"
        if self._keeps_first(node) or before is None or after is None:
            return lying
        if not keeps_rows(before, after):
            return f"the node {node.name!r} folds {before} into {after}"
        self.unsure |= not has_same_rows(before, after)
        return lying

    def _behind_known_reshape(self, node: NodeProto, lying: BatchAxis) -> Lying:
        """The same with all extents: words stay in their order, so that `run` of a sample lie together as before."""
        before = tuple(extent or 0 for extent in self._shapes[node.input[0]])
        after = tuple(extent or 0 for extent in self._shapes[node.output[0]])
        batch = self._batch or 1
        told = f"the node {node.name!r} folds {before} into {after}"
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
        maker = self._maker_of_target(node)
        if maker is None or maker.op_type != "Concat":
            return False
        return self._is_extent(maker.input[0])

    def _maker_of_target(self, node: NodeProto) -> NodeProto | None:
        """The node that puts together the shape that a Reshape asks for."""
        return self._tensors.makers.get(node.input[1]) if len(node.input) > 1 else None

    def _computes_first(self, node: NodeProto) -> bool:
        """Whether a reshape's first extent is worked out, as in `x.reshape(x.shape[0] * 4, -1)`."""
        maker = self._maker_of_target(node)
        if maker is None or maker.op_type != "Concat" or maker.input[0] in self._tensors.constants:
            return False
        after = self._shapes.get(node.output[0])
        if after is not None and None not in after:
            return False  # shape inference has worked it out as well
        *_, first = self._tensors.before(maker.input[0], lambda node: ops.of(node.op_type).extent == "passes")
        source = self._tensors.makers.get(first)
        return source is not None and ops.of(source.op_type).extent == "computes"

    def _is_extent(self, name: str) -> bool:
        """Whether a tensor is the first number of a Shape, as traced networks write `x.shape[0]`."""
        *way, first = self._tensors.before(name, lambda node: ops.of(node.op_type).extent in ("passes", "picks"))
        maker = self._tensors.makers.get(first)
        if maker is None or maker.op_type != "Shape" or attribute(maker, "start", 0) != 0:
            return False
        passed = [self._tensors.makers[tensor] for tensor in way]
        picks = [node for node in passed if ops.of(node.op_type).extent == "picks"]
        return all(self._numbers(node, "starts", 1) in (None, [], [0]) for node in picks)

    def _behind_squeeze(self, node: NodeProto, axis: int, rank: int) -> int | str:
        """Nodes that take axes of extent 1 away or put some in."""
        axes = self._numbers(node, "axes", 1)
        if not axes:
            return axis
        if node.op_type == "Squeeze":
            gone = {a % rank for a in axes} if rank else set(axes)
            if axis in gone:
                return f"the node {node.name!r} takes their axis away"
            return axis - sum(a < axis for a in gone)
        out = self._rank(node.output[0]) or rank + len(axes)
        new = {a % out for a in axes}
        kept = [i for i in range(out) if i not in new]
        return kept[axis]

    def _behind_repeat(self, node: NodeProto, name: str, axis: int) -> int | str:
        """Nodes that repeat along some axes, of which that of the samples may be one."""
        repeats = self._numbers(node, "repeats", 1) if node.op_type == "Tile" else None
        if repeats:
            return axis if repeats[axis] == 1 else _picks(node)
        before = self._shapes.get(name)
        after = self._shapes.get(node.output[0])
        if before is None or after is None or len(before) > len(after):
            return axis
        moved = axis + len(after) - len(before)
        return moved if alike(after[moved], before[axis]) else _picks(node)

    def _behind_pick(self, node: NodeProto, axis: int, rank: int) -> int | str:
        """Nodes that join or pick along axes, of which that of the samples may be one."""
        slices = node.op_type == "Slice"
        axes = self._numbers(node, "axes", 3) if slices else [attribute(node, "axis", 0)]
        if slices and axes == []:
            axes = list(range(len(self._numbers(node, "starts", 1) or ())))  # the first ones, unless it names some
        if axes is None or not rank:
            return axis
        if axis in [a % rank for a in axes]:
            return axis if slices and self._is_whole(node, axes, axis, rank) else _picks(node)
        takes_one = node.op_type == "Gather" and self._shapes.get(node.input[1]) == ()  # by a scalar, whose axis goes
        if takes_one and axes[0] % rank < axis:
            return axis - 1
        return axis

    def _is_whole(self, node: NodeProto, axes: list[int], axis: int, rank: int) -> bool:
        """Whether a slice takes all of an axis."""
        i = [a % rank for a in axes].index(axis)
        starts = self._numbers(node, "starts", 1)
        ends = self._numbers(node, "ends", 2)
        steps = self._numbers(node, "steps", 4)
        if not starts or not ends or (steps and steps[i] != 1):
            return False
        return starts[i] == 0 and ends[i] >= 1 << 30  # as exporters write an end that is open

    def _behind_reduction(self, node: NodeProto, axis: int, rank: int) -> int | str:
        """Nodes that make one of what lies along some axes, all of them unless they name some."""
        one = ops.of(node.op_type).samples == "reduce one"
        axes = [attribute(node, "axis", 0)] if one else self._numbers(node, "axes", 1)
        if axes is None or not rank:
            return axis
        gone: set[int] = {a % rank for a in axes} or set(range(rank))
        if axis in gone:
            return f"the node {node.name!r} adds them up"
        if attribute(node, "keepdims", 1):
            return axis
        return axis - sum(int(a) < axis for a in gone)

    def _behind_product(self, node: NodeProto, name: str, axis: int) -> int | str:
        """A product of matrices adds up along the last axis of its first factor and the last but one of its second."""
        rank = self._rank(name)
        factor = list(node.input).index(name)
        if factor > 1 or rank < 2:  # the bias of a Gemm, or vectors
            return axis
        if attribute(node, ("transA", "transB")[factor], 0):
            axis = 1 - axis
        if axis == rank - 1 - factor:
            return f"the node {node.name!r} adds them up"
        return axis + max(self._rank(node.output[0]) - rank, 0)

    def _along(self, node: NodeProto, rank: int) -> int | None:
        """The axis along which a node adds up, which it reads from an input, in old opsets an attribute."""
        transforms = node.op_type == "DFT"
        given = self._numbers(node, "axis", 2 if transforms else 1)
        if given == [] and transforms:
            given = [1 if self._opset < _AXIS_BEFORE_LAST else -2]
        return given[0] % rank if given and rank else None

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
    if attribute(node, "layout", 0) == 1:
        before = after = 0  # they are in front in all that it reads and gives
    else:
        # it reads (steps, samples, ...), and gives (steps, directions, samples, ...) and last states without steps
        before = 1
        after = 2 if output == 0 else 1
    if lying.axis != before:
        return f"{_told(node)} runs along their axis"
    return lying.model_copy(update={"axis": after})


def _picks(node: NodeProto) -> str:
    return f"{_told(node)} joins, picks or repeats along their axis"


def _behind_einsum(node: NodeProto, position: int, axis: int) -> int | str:
    """The axis of the samples behind an Einsum, whose equation names the axes of each input and of the output."""
    equation = str(attribute(node, "equation", b"").decode()).replace(" ", "")
    inputs, _, output = equation.partition("->")
    names = inputs.split(",")[position]
    name = names[axis]
    if "." in equation or name not in output:
        return f"{_told(node)} computes {equation!r}, which does not say where they lie behind it"
    return output.index(name)


def _listed(lying: Iterable[BatchAxis]) -> str:
    return " and ".join(sorted({str(batch) for batch in lying}))
