"""A graph in onnxruntime, with every site of it in sight."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.run.graph_input import fit_names
from hwfault.graph.run.session import run, session
from hwfault.graph.run.watched import with_outputs
from hwfault.proof.places import SiteTensor

Array = NDArray[Any]


def with_sites(graph: ModelProto, found: Sequence[SiteTensor]) -> ModelProto:
    """The graph with all tensors among its outputs that tell of the sites that were `found` there."""
    types: dict[str, int] = {}
    for place in found:
        for name, kind in place.types.items():
            types.setdefault(name, kind)
    return with_outputs(graph, types)


class Answer(NamedTuple):
    """What a graph makes of a batch: its output, the same where the sites are looked at, and their tensors by name."""

    output: Array
    observed: Array
    tensors: dict[str, Array]


class Engine:
    """Two sessions of one graph: its outputs as it is, and its sites' values in a copy with more outputs."""

    def __init__(self, graph: ModelProto, found: Sequence[SiteTensor]) -> None:
        self._plain = session(graph, spin=False)
        self._observed = session(with_sites(graph, found), spin=False)
        self._output = self._plain.get_outputs()[0].name
        self.inputs = [entry.name for entry in self._plain.get_inputs() if entry.name not in (SEED, FIRST_SAMPLE)]
        """What the graph calls its inputs but seed and sample number."""

    def run(
        self, batch: Mapping[str, Array], seed: int | None, first_sample: int, found: Sequence[SiteTensor]
    ) -> Answer:
        """What the graph makes of a batch, inputs by name; of its sites those are fetched that were `found` there."""
        seed, inputs = seed or 0, fit_names(batch, self.inputs)
        (plain,) = run(self._plain, inputs, seed=seed, first_sample=first_sample, outputs=[self._output])
        others = dict.fromkeys(name for place in found for name in place.types if name != self._output)
        names = [self._output, *others]
        values = run(self._observed, inputs, seed=seed, first_sample=first_sample, outputs=names)
        tensors = dict(zip(names, values, strict=True))
        return Answer(plain, tensors[self._output], tensors)


def engine_name() -> str:
    """What runs graphs here, and its version."""
    return f"onnxruntime {onnxruntime.__version__}"
