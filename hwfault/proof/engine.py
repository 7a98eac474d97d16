"""A graph in onnxruntime, with every site of it in sight."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.graph.run.session import run, session
from hwfault.graph.run.watched import with_outputs
from hwfault.proof.places import SiteTensor

Array = NDArray[Any]


class Answer(NamedTuple):
    """What a graph makes of a batch: its output, the same where the sites are looked at, and their tensors by name."""

    output: Array
    observed: Array
    tensors: dict[str, Array]


class Engine:
    """Two sessions of one graph: its outputs as it is, and its sites' values in a copy with more outputs."""

    def __init__(self, graph: ModelProto, found: Sequence[SiteTensor]) -> None:
        watched = [place.watched for place in found if place.watched is not None]
        bare = [place for place in found if place.watched is None]
        doubles = {place.tensor for place in bare if place.grid[0].dtype == np.float64}
        self._plain = session(graph, spin=False)
        observed = with_outputs(graph, watched, [place.tensor for place in bare], doubles)
        self._observed = session(observed, spin=False)
        self._output = self._plain.get_outputs()[0].name

    def run(self, inputs: Array, seed: int | None, first_sample: int, found: Sequence[SiteTensor]) -> Answer:
        """What the graph makes of a batch; of its sites those are fetched that were `found` there."""
        seed = seed or 0
        (plain,) = run(self._plain, inputs, seed=seed, first_sample=first_sample, outputs=[self._output])
        others = dict.fromkeys(name for place in found for name in place.tensors if name != self._output)
        names = [self._output, *others]
        values = run(self._observed, inputs, seed=seed, first_sample=first_sample, outputs=names)
        tensors = dict(zip(names, values, strict=True))
        return Answer(plain, tensors[self._output], tensors)


def engine_name() -> str:
    """What runs graphs here, and its version."""
    return f"onnxruntime {onnxruntime.__version__}"
