"""A tensor of a graph that is a site."""

from typing import NamedTuple

from onnx import NodeProto

from hwfault.graph.read.grids import IntegerGrid
from hwfault.graph.read.layouts import Layout
from hwfault.program.processes import Site


class SiteTensor(NamedTuple):
    """A site of a graph: its tensor, what makes that (None: it is an initializer), and how the words lie in it.

    `own` is the name that it would have if no other layer read the same words.
    """

    site: Site
    grid: IntegerGrid
    tensor: str
    node: NodeProto | None
    layout: Layout = ()
    own: str = ""

    @property
    def parameter(self) -> str:
        """Of a parameter: the constant that what makes its integers reads."""
        return self.node.input[0] if self.node is not None and self.node.input else self.tensor
