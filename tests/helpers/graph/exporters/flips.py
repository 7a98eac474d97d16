"""Which bits flip at each site of a faulted graph, by the tensors before and behind its fault nodes."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from hwfault.graph.read.layouts import number_words
from hwfault.graph.read.marked import with_marks
from hwfault.graph.read.struck import FaultNode, fault_nodes
from hwfault.graph.run.session import run, session
from tests.helpers.graph.running import copied

Array = NDArray[Any]
EXACT_BITS = 24


class Codes(NamedTuple):
    """How a site's tensors hold its codes."""

    before: str
    after: str
    scale: str
    zero_point: str
    bits: int
    layout: tuple[int, ...]


class Watched:
    """A session of a faulted graph that tells which bits of which words flip."""

    def __init__(self, model: ModelProto) -> None:
        model = with_marks(model)
        self.sites: dict[str, Codes] = {}
        self.rounded: set[str] = set()
        """Sites whose words float32 does not hold: a flip of their highest bits rounds the lowest away."""
        entries = fault_nodes(model)
        for entry in entries:
            if entry.nodes:
                self.sites[self._key(entry)] = _codes(entry)
        watched = copied(model)
        del watched.metadata_props[:]  # the plan names nodes that may be called otherwise
        known = {info.name for info in watched.graph.output}
        wanted = {name for codes in self.sites.values() for name in codes[:4]} - known
        watched.graph.output.extend(ValueInfoProto(name=name) for name in sorted(wanted))
        self.session = session(watched, threads=1, graph_optimization="none")
        self.names = [entry.name for entry in self.session.get_outputs()]
        self.outputs = [info.name for info in model.graph.output]

    def _key(self, entry: FaultNode) -> str:
        """A parameter that is read in several places is struck in each, and has one name."""
        name, number = entry.site, 1
        while name in self.sites:
            number += 1
            name = f"{entry.site} ({number})"
        return name

    def run(self, x: Array, seed: int, first: int = 0) -> tuple[dict[str, Array], list[Array]]:
        """The bits that flip in each word of each site, and the graph's outputs."""
        values = dict(zip(self.names, run(self.session, x, seed=seed, first_sample=first), strict=True))
        flips = {}
        for name, codes in self.sites.items():
            if codes.bits > EXACT_BITS and values[codes.before].dtype == np.float32:
                self.rounded.add(name)
            before, after = (_codes_of(values, codes, tensor) for tensor in (codes.before, codes.after))
            flips[name] = number_words((before ^ after) & ((1 << codes.bits) - 1), codes.layout)
        return flips, [values[name] for name in self.outputs]


def _codes(entry: FaultNode) -> Codes:
    own = {a.name: a for a in entry.node.attribute}
    layout = tuple(own["layout"].ints) if "layout" in own else ()
    return Codes(entry.before, entry.after, *entry.node.input[1:3], own["bit_width"].i, layout)


def _codes_of(values: dict[str, Array], codes: Codes, name: str) -> Array:
    """The codes of a tensor, as integers of two's complement; one bit is a sign."""
    numbers = values[name]
    if numbers.dtype.kind in "iu":
        return numbers.astype(np.int64)
    scale, zero = values[codes.scale].astype(np.float64), values[codes.zero_point].astype(np.float64)
    found = np.rint(numbers / scale + zero)
    if codes.bits == 1 and (found < 0).any():
        found = (found + 1) / 2
    return found.astype(np.int64)
