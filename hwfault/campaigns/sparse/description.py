"""A quantized network as the native library takes it: nodes, the steps behind each, and its sites."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat, Codes
from hwfault.program.processes import Site
from hwfault.stream.native.network import ParsedNetwork, ValueFormat

VERSION = 1
ELEMENTWISE, LAYER, ADD, MAX_POOL, MOVE = range(5)
AFFINE, RECTIFY, QUANTIZE, BIPOLAR, MULTIPLY, PLUS, DIVIDE, ROUND, CLIP = range(9)
ROUNDINGS = {"ROUND": 0, "HALF_EVEN": 0, "FLOOR": 1, "CEIL": 2, "DOWN": 3, "ROUND_TO_ZERO": 3}
"""The rounding modes of quantizers that the library has, by their names in QONNX."""


class Step(NamedTuple):
    """What happens to each value alone: where its constants begin, and whether each channel has its own."""

    kind: int
    each: bool = False
    at: int = 0
    least: int = 0
    most: int = 0
    rounding: int = 0


class Axis(NamedTuple):
    """A spatial axis of a layer or pool; `padding` is that in front."""

    input: int
    output: int
    kernel: int
    stride: int
    padding: int
    dilation: int


@dataclass
class Node:
    """A node that gives tensor number i + 1 if it is number i; tensor 0 is the network's input.

    `numbers` are those of its kind, behind its channels and positions.
    """

    kind: int
    inputs: tuple[int, ...]
    channels: int
    positions: int
    name: str
    numbers: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def packed(self) -> list[int]:
        flat = [self.kind, len(self.inputs), *self.inputs, self.channels, self.positions, *self.numbers]
        flat.append(len(self.steps))
        for step in self.steps:
            flat.extend(int(number) for number in step)
        return flat


class WeightSite(NamedTuple):
    """A site of weights, the node that reads it, and its codes, one for each word."""

    site: Site
    node: int
    codes: Codes
    format: CodeFormat


class ValueSite(NamedTuple):
    """A site of activations: the step of a node that is its quantizer, and which codes the values stand for.

    Word w of it is element w of the node's output; or, where that has its `last` axis in front of others, the element
    that lies in its place.
    """

    site: Site
    node: int
    step: int
    format: ValueFormat
    words: int
    last: int | None = None

    def elements(self, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """The elements of the node's output that words are."""
        if self.last is None:
            return words
        return words % self.last * (self.words // self.last) + words // self.last


class BiasSite(NamedTuple):
    """A site of biases, the layer that adds it, and what each flip makes of an addend: (bits, words)."""

    site: Site
    node: int
    addends: NDArray[np.float32]


@dataclass(frozen=True)
class Description:
    """A network that the sparse engine can run.

    `sites` are the weights whose flips it can carry, by name and in the network's order, `values` the activations and
    `biases` the biases; `refused` and `refused_others` say why others cannot be struck. `shape` is that of one input.
    """

    nodes: tuple[Node, ...]
    constants: NDArray[np.float32]
    weights: NDArray[np.int16]
    shape: tuple[int, ...]
    outputs: int
    sites: dict[str, WeightSite]
    refused: dict[str, str]
    values: dict[str, ValueSite] = field(default_factory=dict)
    biases: dict[str, BiasSite] = field(default_factory=dict)
    refused_others: dict[str, str] = field(default_factory=dict)

    @property
    def node_names(self) -> tuple[str, ...]:
        """What each node is called: its layer, or the first site or operation in it."""
        return tuple(node.name for node in self.nodes)

    def parsed(self) -> ParsedNetwork:
        """The network in the native library; raises HwfaultError for numbers beyond what that holds exactly."""
        flat = [VERSION, int(np.prod(self.shape)), len(self.nodes)]
        for node in self.nodes:
            flat.extend(node.packed())
        return ParsedNetwork(np.array(flat, np.int64), self.constants, self.weights)
