"""Where a graph holds integers that faults can strike: quantizers, thresholds, truncations, integer weights.

A weight's words are numbered in the order (outputs, inputs, kernel), and those of a convolution's activations in the
order (channels, positions), however the graph lets them lie: qonnx's passes transpose both.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from onnx import ModelProto, NodeProto

from hwfault.errors import GraphError
from hwfault.graph import ops
from hwfault.graph.ops import GRID_OPS
from hwfault.graph.read.batch_axes import SampleAxes
from hwfault.graph.read.candidates import find_candidates
from hwfault.graph.read.grids import IntegerGrid, NoGridError, annotations, grid_of, grid_of_initializer
from hwfault.graph.read.handing_on import hands_on, keeps_grid, keeps_sign, parameter_layout, reads_parameters
from hwfault.graph.read.layouts import Layout, numbered_shape, spread_layouts
from hwfault.graph.read.left_out import NOTHING_LEFT, Left, find_left_out
from hwfault.graph.read.names import Names
from hwfault.graph.read.own_integers import (
    OwnIntegers,
    find_own_integers,
    grid_of_own,
)
from hwfault.graph.read.qonnxgraph import (
    SITE,
    WORDS,
    Constants,
    metadata,
    site_name,
)
from hwfault.graph.read.shapes import Shape, Tensors, is_fault, whole_shape
from hwfault.graph.read.site_tensor import SiteTensor
from hwfault.graph.read.thresholds import find_adder, find_offset
from hwfault.graph.read.worths import read_worths
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.names import first_run, run_name
from hwfault.program.notes import EXACT, is_wide
from hwfault.program.processes import Site
from hwfault.program.selectors import SiteKind

_SUFFIX_KINDS: dict[str, SiteKind] = {"weight_quant": "weight", "bias_quant": "bias", "input_quant": "input"}


class Places:
    """The places of a graph in its order, and why other quantizers are none.

    A name that several nodes have without metadata, and with other integers, is none: they are named after their
    outputs. Raises GraphError if the graph has nothing of the kind at all. One that `carries_faults` may have lost it,
    and its fault nodes tell how words lie, and its plan how samples do. `batch_axis` is that of the inputs (see
    `SampleAxes`), and `left` says why bodies and functions are not written out.
    """

    def __init__(
        self,
        model: ModelProto,
        *,
        carries_faults: bool = False,
        batch_axis: int | None = None,
        left: Left = NOTHING_LEFT,
    ) -> None:
        self._carries_faults = carries_faults
        self.tensors = Tensors(model)
        self.constants = Constants(model)
        self.names = Names(model, self.tensors)
        self.found: list[SiteTensor] = []
        self.obstacles: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self._annotations = annotations(model)
        self._layouts, self._scrambled = spread_layouts(model, self.tensors)
        # what carries faults was checked when they were put in
        self._samples = None if carries_faults else SampleAxes(model, self.tensors, batch_axis)
        for node, tensor in find_candidates(model, self.tensors, self._annotations):
            self._add(node, tensor)
        for found in find_own_integers(model, self.tensors, self.constants):
            self._add_own(found)
        self._tell_apart()
        self._leave_mixed_out()
        self._number_runs()
        self.found = [place._replace(own=place.site.name) for place in self.found]
        self._tie()
        taken = {*(place.own for place in self.found), *(place.tensor for place in self.found), *self.obstacles}
        self.obstacles |= find_left_out(model, self.tensors, self._annotations, taken, left)
        if not carries_faults and not self.found and not self.obstacles:
            raise GraphError(
                f"the graph has none of the nodes {', '.join(GRID_OPS)}, nor weights annotated as integers, so it "
                "holds no quantized integers to strike; expected a QONNX graph, as Brevitas' export writes it, or "
                "ONNX' own integers (QuantizeLinear, DequantizeLinear, QLinearConv, ...)"
            )
        self.by_tensor = {place.tensor: place for place in self.found}
        self.by_tensor |= read_worths(self.found, self.tensors, self.constants)

    def _add(self, node: NodeProto | None, tensor: str) -> None:
        """Adds what a node of QONNX makes, or an initializer, or says why that is no site."""
        name = tensor if node is None else self.names.of(node)
        try:
            if node is None:
                grid = grid_of_initializer(tensor, self._annotations[tensor], self.constants)
            else:
                grid = grid_of(node, self.constants, signed_input=self._signed_input(node))
            self._place(name, node, tensor, grid, tensor if node is None else site_name(node))
        except NoGridError as obstacle:
            if node is not None and self._add_signed(node, name):
                return
            what = f"weights {tensor!r}" if node is None else f"node {node.name!r}"
            self._refuse(name, tensor, f"the {what} (site {name!r}) cannot be a site: {obstacle}{self._told(node)}")

    def _add_signed(self, node: NodeProto, name: str) -> bool:
        """Adds signed counts of thresholds, whose offset another node adds, as the integers behind that; if it can."""
        offset = find_offset(node, self.tensors, self.constants)
        if offset is None:
            return False
        try:
            grid = grid_of(node, self.constants, offset=offset.value)
            self._place(name, offset.node, offset.node.output[0], grid, site_name(node))
        except NoGridError:
            return False
        site = self.found[-1].site.model_copy(update={"layer": node.op_type})
        self.found[-1] = self.found[-1]._replace(site=site)
        return True

    def _add_own(self, found: OwnIntegers) -> None:
        """The same for a tensor of ONNX' own integers."""
        try:
            grid = grid_of_own(found, self.tensors, self.constants)
            self._place(found.name, found.node, found.tensor, grid, found.name)
            self._note_own(found, self.found[-1].site)
        except NoGridError as obstacle:
            told = f"the integers {found.tensor!r} (site {found.name!r}) cannot be a site: {obstacle}"
            self._refuse(found.name, found.tensor, told)

    def _note_own(self, found: OwnIntegers, site: Site) -> None:
        if is_wide(site):
            self.notes[site.name] = EXACT
        if found.dynamic:
            self.notes[site.name] = (
                "its scale is worked out from the whole batch at each run, so that what a word is worth, and the "
                "graph's outputs, depend on what else is in the batch; which words are struck does not"
            )

    def _refuse(self, name: str, tensor: str, told: str) -> None:
        key = tensor if name in self.obstacles else name  # nodes may share a name, and none is to be hidden
        self.obstacles[key] = told

    def _place(self, name: str, node: NodeProto | None, tensor: str, grid: IntegerGrid, said: str) -> None:
        """Adds a tensor of integers as a site; `said` may tell its kind. Raises NoGridError where it can be none."""
        if tensor in self._scrambled and not self._carries_faults:
            raise NoGridError("its words lie in another order than before the layout of the graph was changed")
        fixed = node is None or (bool(node.input) and node.input[0] in self.tensors.constants)
        if grid.own:
            fixed = tensor in self.tensors.constants
        layout = self._layout(tensor, fixed)
        batch, shape = self._words(name, tensor, layout, fixed)
        site = Site(
            name=name,
            kind=_kind(said, shape if fixed else None, fixed),
            bit_width=grid.bit_width,
            signed=grid.signed,
            layer=self._layer(node, tensor, fixed),
            shape=whole_shape(shape),
            batch=batch,
        )
        self.found.append(SiteTensor(site, grid, tensor, node, layout))

    def _words(self, name: str, tensor: str, layout: Layout, fixed: bool) -> tuple[BatchAxis | None, Shape | None]:
        """Where the samples of a site lie, None for a parameter, and the shape of its words, or those of a sample."""
        if fixed:
            return None, numbered_shape(self.tensors.shapes.get(tensor), layout)
        return self.samples_of(name, tensor, layout)

    @property
    def batch(self) -> int | None:
        """How many samples the graph is made for; None: any number, or not known."""
        return None if self._samples is None else self._samples.batch

    def samples_of(self, name: str, tensor: str, layout: Layout = ()) -> tuple[BatchAxis | None, Shape | None]:
        """Where the samples of a site lie in its tensor, and the shape of one; raises NoGridError if nothing tells."""
        if self._samples is not None:
            return self._samples.at(name, tensor, layout)
        shape = numbered_shape(self.tensors.shapes.get(tensor), layout)
        return None, None if shape is None else shape[1:]

    def _told(self, node: NodeProto | None) -> str:
        """What to do where the offset of signed thresholds stands behind them and is no one number."""
        reader = None if node is None else find_adder(node, self.tensors)
        if reader is None:
            return ""
        return (
            f"; its offset stands in the {reader.op_type} {reader.name!r} behind it: write it as the node's "
            "out_bias (finn.transformation.streamline.absorb.AbsorbSignBiasIntoMultiThreshold)"
        )

    def _layer(self, node: NodeProto | None, tensor: str, fixed: bool) -> str:
        """The op that a site belongs to: the layer of a parameter, the quantizer of an activation."""
        if fixed:
            for reader in self._readers(tensor):
                if reads_parameters(reader):
                    return reader.op_type
        return "" if node is None else node.op_type

    def _readers(self, tensor: str) -> Iterator[NodeProto]:
        """What reads a constant tensor, transposed or not."""
        for node, _ in self.tensors.behind(tensor, lambda n: hands_on(n) or n.op_type == "Transpose", inner=True):
            yield node

    def _layout(self, tensor: str, fixed: bool) -> Layout:
        rank = len(self.tensors.shapes.get(tensor) or ())
        if not fixed:
            if self._layouts and rank > 2 and tensor not in self._layouts and not self._carries_faults:
                raise NoGridError("the channels of other tensors lie last, and whether its own do is not known")
            return self._layouts.get(tensor, ())
        return parameter_layout(tensor, rank, self.tensors)

    def _signed_input(self, node: NodeProto) -> bool | None:
        """The sign of the integers that a truncation reads."""
        if node.op_type != "Trunc" or not node.input:
            return None
        signs = {place.tensor: place.grid.signed for place in self.found}
        *way, first = self.tensors.before(node.input[0], keeps_sign)
        maker = self.tensors.makers.get(first)
        for name in (*way, first):
            if name in signs:
                return signs[name]
        if maker is not None and ops.of(maker.op_type).accumulates:
            return True  # sums of products have a sign, whatever their operands
        return None

    def source(self, name: str) -> SiteTensor | None:
        """The activation whose integers a tensor holds, moved, padded with 0 or rectified; None if there is none."""
        place = self._first_place(self.tensors.before(name, lambda node: keeps_grid(node, self.constants)))
        if place is None or not place.site.batched:
            return None
        return place

    def unmoved(self, name: str) -> str:
        """The tensor that first holds the integers of one: before they were moved, padded with 0, or cast."""
        *_, first = self.tensors.before(name, lambda n: n.op_type == "Cast" or keeps_grid(n, self.constants))
        return first

    def weights(self, name: str) -> SiteTensor | None:
        """The parameter that a tensor is, faults aside; None if it is none."""
        place = self._first_place(self.tensors.before(name, is_fault))
        if place is None or place.site.batched:
            return None
        return place

    def _first_place(self, way: Iterable[str]) -> SiteTensor | None:
        """The first tensor on a way that is a site."""
        for tensor in way:
            if tensor in self.by_tensor:
                return self.by_tensor[tensor]
        return None

    def _tell_apart(self) -> None:
        """Names nodes after their outputs that share one by accident."""
        groups: dict[str, list[int]] = defaultdict(list)
        for i, place in enumerate(self.found):
            groups[place.site.name].append(i)
        for members in groups.values():
            if len({_identity(self.found[i]) for i in members}) == 1:
                continue  # one quantizer that runs several times
            for i in members:
                place = self.found[i]
                if place.node is not None and SITE not in metadata(place.node):
                    renamed = place.site.model_copy(update={"name": place.tensor})
                    self.found[i] = place._replace(site=renamed)

    def _leave_mixed_out(self) -> None:
        """Leaves parameters out that an export of hwfault 0.4.0 said to be one site, although their words differ."""
        words: dict[str, set[str]] = defaultdict(set)
        for place in self.found:
            told = {} if place.node is None or place.site.batched else metadata(place.node)
            if SITE in told and WORDS in told:
                words[place.site.name].add(told[WORDS])
        # what carries faults has them, and a replay finds that they are not the network's
        mixed = [name for name, stamps in words.items() if len(stamps) > 1 and not self._carries_faults]
        for name in mixed:
            self.obstacles[name] = (
                f"the graph says that different parameters, of layers that share a quantizer, are one site {name!r}; "
                "export it anew: each is a site with a name of its own"
            )
        self.found = [place for place in self.found if place.site.name not in mixed]

    def _number_runs(self) -> None:
        """Makes each run of an activation's quantizer a site of its own, in the graph's order: `q`, `q#1`, ..."""
        runs: dict[str, list[int]] = defaultdict(list)
        for i, place in enumerate(self.found):
            if place.site.batched:
                runs[first_run(place.site.name)].append(i)
        for members in runs.values():
            if len(members) == 1:
                continue
            # where an export says which run a node is, its word counts
            names = {self.found[i].site.name for i in members}
            said = len(names) == len(members)
            for run, i in enumerate(members):
                site = self.found[i].site
                name = site.name if said else run_name(first_run(site.name), run)
                found = site.model_copy(update={"name": name, "runs": len(members)})
                self.found[i] = self.found[i]._replace(site=found)

    def _tie(self) -> None:
        """Makes one site of the quantizers that read one initializer as the same integers: it is one memory."""
        readers: dict[str, list[int]] = defaultdict(list)
        for i, place in enumerate(self.found):
            # what an export says of its own network counts more than what constants the exporter shared
            if place.node is not None and not place.site.batched and SITE not in metadata(place.node):
                readers[place.parameter].append(i)
        for parameter, members in readers.items():
            memories: dict[object, list[int]] = defaultdict(list)
            for i in members:
                memories[_memory(self.found[i])].append(i)
            for same in memories.values():
                self._name_once(same)
            if len(memories) > 1:
                names = [self.found[same[0]].site.name for same in memories.values()]
                told = f"the parameter {parameter!r} is read as other integers by {', '.join(map(repr, names))}"
                self.notes |= dict.fromkeys(names, f"{told}: each is a memory with faults of its own")

    def _name_once(self, members: list[int]) -> None:
        """Gives places that are one memory the name of the first, with the others' as aliases."""
        first = self.found[members[0]].site
        others = dict.fromkeys(self.found[i].own for i in members)
        others.pop(first.name)
        if others:
            site = first.model_copy(update={"aliases": tuple(others)})
            for i in members:
                self.found[i] = self.found[i]._replace(site=site)


def _memory(place: SiteTensor) -> object:
    """What quantizers that read one parameter have in common if they make the same integers of it."""
    site = place.site
    scale = place.grid.scale
    zero_point = place.grid.zero_point
    numbers = (scale.shape, scale.tobytes(), zero_point.shape, zero_point.tobytes())
    return site.kind, site.bit_width, site.signed, numbers


def _identity(place: SiteTensor) -> object:
    """What two nodes of one quantizer have in common; weights of one are the same initializer, or said to be one."""
    site = place.site
    node = place.node
    own = ""
    if node is not None and not site.batched and SITE not in metadata(node):
        own = place.parameter
    return site.kind, site.bit_width, site.signed, own


def _kind(name: str, shape: Shape | None, fixed: bool) -> SiteKind:
    kind = _SUFFIX_KINDS.get(name.rpartition(".")[2])
    if not fixed:
        return "input" if kind == "input" else "activation"
    if kind in ("weight", "bias"):
        return kind
    # a name that does not say it: biases have one value a channel
    return "bias" if shape is not None and len(shape) <= 1 else "weight"
