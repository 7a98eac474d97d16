"""Decisions of Python by values of the inputs, which a graph cannot have: told with module and line, or not at all."""

import logging
import re

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from brevitas import nn as qnn
from torch import nn

from hwfault.errors import GraphError
from hwfault.graph.export.of_network import export
from tests.helpers.graph.networks import WEIGHTS, signed
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_onnxruntime

X = torch.linspace(-1, 1, 12).reshape(2, 6)


class Gate(nn.Module):
    """Something that is done to quantized values, in a module of its own."""

    def __init__(self, decide):
        super().__init__()
        self.decide = decide
        self.limit = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x):
        return self.decide(self, x)


class Gated(nn.Module):
    """A gate between a quantizer and a layer."""

    def __init__(self, decide):
        super().__init__()
        self.act = signed(5)
        self.gate = Gate(decide)
        self.head = qnn.QuantLinear(6, 3, bias=False, **WEIGHTS)

    def forward(self, x):
        return self.head(self.gate(self.act(x).value))


def network(decide):
    torch.manual_seed(2)
    return Gated(decide).eval()


def branch(self, x):
    if x.sum() > 0:  # the line that is told
        return x * 2
    return x


def loop(self, x):
    for _ in range(int(x.abs().max() * 3)):
        x = x + 0.25
    return x


def constant(self, x):
    return x * torch.tensor([x.mean(), 1.0]).sum()


def indexed(self, x):
    return x[:, : x.argmax().item() % 2 + 6]


VALUES = {
    "branch": branch,
    "loop": loop,
    "constant": constant,
    "indexed": indexed,
    "tolist": lambda self, x: x + max(x.reshape(-1).tolist()),
    "numpy": lambda self, x: x + float(x.detach().numpy().max()),
    "equal": lambda self, x: x if torch.equal(x, x.abs()) else -x,
    "allclose": lambda self, x: x if torch.allclose(x, x.abs()) else -x,
    "in": lambda self, x: x if 0.5 in x else -x,
    "all": lambda self, x: x if (x > self.limit).all() else -x,
    "behind a where": lambda self, x: x * float(torch.where(x > 0, 1.0, 0.0).sum()),
}


@pytest.mark.every(11)
@pytest.mark.parametrize("decide", VALUES.values(), ids=VALUES.keys())
def test_decisions_by_values_are_refused(decide):
    where = rf"the module 'gate' \({re.escape(__file__)}:\d+"
    with pytest.raises(GraphError, match=rf"^{where}.* depends on the inputs, .*as_traced=True \(--as-traced\)$"):
        export(network(decide), X)


@pytest.mark.slow
def test_the_line_is_told():
    line = branch.__code__.co_firstlineno + 1
    with pytest.raises(GraphError) as caught:
        export(network(branch), X)
    assert f"({__file__}:{line}: if x.sum() > 0:  # the line that is told)" in str(caught.value)


@pytest.mark.slow
def test_several_places_are_counted():
    with pytest.raises(GraphError, match=r"\(and 1 more places\)"):
        export(network(lambda self, x: branch(self, loop(self, x))), X)


@pytest.mark.slow
def test_a_graph_is_taken_as_traced(caplog):
    with caplog.at_level(logging.WARNING, "hwfault"):
        graph = export(network(branch), X + 1, as_traced=True)
    assert "has the way that the example took" in caplog.text
    with torch.no_grad():
        assert_same(by_onnxruntime(graph, X + 1), network(branch)(X + 1).numpy())
        assert not (by_onnxruntime(graph, X - 1) == network(branch)(X - 1).numpy()).all()


def shapes(self, x):
    if x.shape[1] % 2 or x.dim() != 2 or x.size(-1) == 7 or x.numel() < 1:
        x = x + 1
    pieces = x.reshape(x.shape[0], 2, -1)
    for i in range(pieces.shape[1]):
        pieces = pieces + i * torch.ones_like(pieces) / float(pieces.shape[2] + 1)
    torch._assert(x.shape[1] == 6, "as timm asks of images")
    return F.pad(pieces, (0, int(pieces.shape[1]) - 2)).flatten(1)


def rows(self, x):
    return torch.stack([row * 2 for row in x])


def single(self, x):
    return x * 2 if x.shape[0] == 1 else x


def folded(self, x):
    return x.reshape(int(x.shape[0]) * 2, -1).reshape(-1, 6)


SAMPLES = {
    "rows": rows,
    "single": single,
    "folded": folded,
    "len": lambda self, x: x * len(x),
    "range": lambda self, x: torch.cat([x[i : i + 1] for i in range(x.size(0))]),
}


@pytest.mark.every(11)
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("decide", SAMPLES.values(), ids=SAMPLES.keys())
def test_decisions_by_the_number_of_samples_are_refused(decide, n):
    with pytest.raises(GraphError, match=rf"the module 'gate' \(.*how many samples there are, so that .* is for {n}"):
        export(network(decide), X[:n])


@pytest.mark.slow
def test_one_size_of_a_batch_is_taken_as_traced():
    graph = export(network(rows), X, as_traced=True)
    with torch.no_grad():
        assert_same(by_onnxruntime(graph, X), network(rows)(X).numpy())


UNDECIDED = {
    "shapes": shapes,
    "unbound": lambda self, x: sum(x.reshape(-1, 2, 3).unbind(1)).repeat(1, 2) + sum(x.t()).unsqueeze(1),
    "parameters": lambda self, x: x * self.limit.item() if self.limit > 0 else x,
    "buffers": lambda self, x: x * int(self.count),
    "tensors of tensors": lambda self, x: x * x.new_tensor(4.0) + torch.as_tensor(x.abs().amax()),
    "new tensors": lambda self, x: x + float(torch.arange(4).max()),
    "where": lambda self, x: torch.where(x.sum(1, keepdim=True) > 0, x * 2, x),
    "none": lambda self, x: x.clamp(-0.5, 0.5),
}


@pytest.mark.every(9)
@pytest.mark.parametrize("decide", UNDECIDED.values(), ids=UNDECIDED.keys())
def test_shapes_and_parameters_are_no_decision(decide):
    graph = export(network(decide), X)
    for given in (X, -X, X[:1], torch.cat([X, X + 0.5])):
        with torch.no_grad():
            assert_same(by_onnxruntime(graph, given), network(decide)(given).numpy())
