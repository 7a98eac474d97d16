"""A graph as one level of nodes, as far as it is one: model functions, branches and loops written out."""

from typing import NamedTuple

from onnx import ModelProto

from hwfault.graph.read.bodies import open_bodies
from hwfault.graph.read.functions import inline_functions
from hwfault.graph.read.left_out import Left


class Flat(NamedTuple):
    """A graph of the same outputs with what it calls and runs on its main level, where that is known; what was done.

    The graph is the given one where nothing was to be done.
    """

    model: ModelProto
    changes: list[str]
    left: Left


def flatten(model: ModelProto) -> Flat:
    """The graph with functions, branches and loops written out, where constants say what they do; see there.

    What carries faults already is left as it is: these are where they were put in.
    """
    inlined = inline_functions(model)
    opened = open_bodies(inlined.model)
    return Flat(opened.model, [*inlined.changes, *opened.changes], Left(opened.left, inlined.left))
