"""Networks of several inputs, of words by number among them, as graphs: names, types, batches, faults, and refusals."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from onnx import TensorProto
from torch import nn

from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read import sites as graph_sites
from hwfault.graph.run.session import run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from tests.helpers.graph import several
from tests.helpers.graph.networks import WEIGHTS, signed
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.several import EMBEDDED, arrays, batch, reader
from tests.slowly import slow


@torch.no_grad()
def by_pytorch(given):
    return reader()(**given).numpy()


def ends(graph):
    """Name, type and shape of each input."""
    found = []
    for info in graph.graph.input:
        dims = info.type.tensor_type.shape.dim
        shape = [dim.dim_param or dim.dim_value for dim in dims]
        found.append((info.name, TensorProto.DataType.Name(info.type.tensor_type.elem_type), shape))
    return found


def test_inputs_are_called_after_the_arguments():
    expected = [("ids", "INT64", ["batch", 6]), ("mask", "FLOAT", ["batch", 6]), ("steps", "INT32", ["batch"])]
    assert ends(several.graph()) == expected


@pytest.mark.slow
def test_a_tuple_is_as_good_as_a_dict():
    by_position = export(reader(), tuple(batch(2).values()))
    assert by_position.SerializeToString() == several.graph().SerializeToString()


@pytest.mark.parametrize("n", [2, slow(1), slow(7)])
def test_every_batch_is_that_of_the_network(n):
    (found,) = run(session(several.graph()), arrays(n, seed=n))
    assert_same(found, by_pytorch(batch(n, seed=n)))


@pytest.mark.parametrize("seed", [slow(0), slow(9)])
def test_faults_are_those_of_the_network(seed):
    made = session(insert_faults(several.graph(), several.plan()))
    with inject(reader(), several.plan(), seed=seed) as injection:
        injection.first_sample = 40
        expected = by_pytorch(batch(5))
    (found,) = run(made, arrays(5), seed=seed, first_sample=40)
    assert_same(found, expected)
    assert not np.array_equal(expected, by_pytorch(batch(5)))
    rows = [{name: values[i : i + 1] for name, values in arrays(5).items()} for i in range(5)]
    alone = [run(made, row, seed=seed, first_sample=40 + i)[0] for i, row in enumerate(rows)]
    assert_same(np.concatenate(alone), expected)


def test_the_graph_has_the_sites_of_the_network():
    found = graph_sites.sites(several.graph())
    assert list(found) == list(sites(reader(), batch(2)))
    (table,) = [site for site in found if site.name == EMBEDDED]
    assert (table.kind, table.shape, table.bit_width) == ("weight", (20, 8), 4)


class Table(nn.Module):
    """An embedding and nothing else."""

    def __init__(self):
        super().__init__()
        self.embed = qnn.QuantEmbedding(11, 4, **WEIGHTS)

    def forward(self, ids):
        return self.embed(ids)


@pytest.mark.parametrize("kind", [torch.int64, slow(torch.int32)])
def test_struck_embeddings_against_flips_by_hand(kind):
    """The table's codes, flipped where the stream lists a fault, and picked by NumPy."""
    torch.manual_seed(1)
    network = Table().eval()
    ids = torch.tensor([[0, 3, 10], [7, 7, 2]], dtype=kind)
    plan = resolve(sites(network, ids), [BitFlips(probability=0.2)])
    made = session(export(network, ids, plan=plan))
    table = network.embed.quant_weight()
    scale = float(table.scale.detach())
    codes = np.rint(table.value.detach().numpy() / scale).astype(np.int64)
    for seed in (1, 2):
        struck = codes.copy().reshape(-1)
        hit = {(hit.word, hit.bit) for hit in faults_at(plan, EMBEDDED, seed=seed)}  # a cell may be drawn twice
        for word, bit in hit:
            struck[word] ^= 1 << bit
        signed = (struck.reshape(codes.shape) & 15 ^ 8) - 8
        (found,) = run(made, ids.numpy(), seed=seed)
        assert_same(found, (signed[ids.numpy()] * scale).astype(np.float32))
        assert not np.array_equal(signed, codes)


class Of(nn.Module):
    """A quantizer, and a forward of its own."""

    def __init__(self, forward):
        super().__init__()
        self.act = signed(5)
        self._of = forward
        self.forward = forward.__get__(self)


X, Y = torch.linspace(-1, 1, 6).reshape(2, 3), torch.linspace(1, -1, 6).reshape(2, 3)


def keywords(self, x, *, other, scale=2.0):
    return self.act(x).value + scale * other


def several_of_one(self, *parts, more=None):
    return self.act(parts[0]).value + parts[1] if more is None else self.act(parts[0]).value - more["last"]


def unread(self, x, mask):
    return self.act(x).value * 0.5


def nested(self, pair, flag):
    return self.act(pair[0] if flag else pair[1]).value + pair[1]


@pytest.mark.every(8)
@pytest.mark.parametrize(
    ("forward", "example", "names"),
    [
        (keywords, {"x": X, "other": Y}, ["x", "other"]),
        (keywords, {"other": Y, "x": X, "scale": 4.0}, ["other", "x"]),
        (several_of_one, (X, Y), ["parts.0", "parts.1"]),
        (nested, ([X, Y], True), ["pair.0", "pair.1"]),
        (nested, ([X, Y], False), ["pair.0", "pair.1"]),
        (unread, (X, Y), ["x", "mask"]),
        (unread, {"x": X, "mask": None}, ["x"]),
        (unread, (X, None), ["input"]),
    ],
)
def test_arguments_of_every_kind(forward, example, names):
    network = Of(forward).eval()
    graph = export(network, example)
    assert [name for name, _, _ in ends(graph)] == names
    given = example if isinstance(example, dict) else dict(enumerate(example))
    tensors = []
    for value in given.values():
        tensors += value if isinstance(value, list) else [value] if isinstance(value, torch.Tensor) else []
    with torch.no_grad():
        expected = network(**example) if isinstance(example, dict) else network(*example)
    (found,) = run(session(graph), {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
    assert_same(found, expected.numpy())


@pytest.mark.slow
def test_what_holds_no_samples_has_a_fixed_shape():
    network = Of(lambda self, x, table: self.act(x).value + table.sum(0)).eval()
    graph = export(network, (X, torch.ones(4, 3)))
    assert [shape for _, _, shape in ends(graph)] == [["batch", 3], [4, 3]]
    (found,) = run(session(graph), {"x": X.numpy()[:1], "table": np.ones((4, 3), np.float32)})
    with torch.no_grad():
        assert_same(found, network(X[:1], torch.ones(4, 3)).numpy())


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ((X, Y.double()), r"holds torch.float64 of shape \[2, 3\], expected float32, int64 or int32"),
        ((X, Y > 0), r"holds torch.bool of shape \[2, 3\], expected float32"),
        ({}, "none with samples"),
        ((), "none with samples"),
        (None, "the example is None, expected a batch that the network accepts: a tensor, or a tuple or dict"),
        ("x", "the example is 'x', expected a batch"),
        ((X[:0], Y), "none with samples"),
        ((X,), "does not run on the example of shape"),
        ({"x": X, "mask": Y, "further": X}, "does not run on the example of shape"),
        ((X, signed(4).eval()(Y)), "holds a QuantTensor, expected plain tensors"),
    ],
)
def test_examples_that_are_refused(example, words):
    with pytest.raises(GraphError, match=words):
        export(Of(unread).eval(), example)


@pytest.mark.parametrize("name", ["output", "hwfault_seed", "hwfault_first_sample"])
def test_names_that_a_graph_has_already(name):
    scope = {}
    exec(f"def forward(self, x, {name}): return self.act(x).value + {name}", scope)
    with pytest.raises(GraphError, match=f"forward is called '{name}'.*rename the argument"):
        export(Of(scope["forward"]).eval(), (X, Y))


@pytest.mark.slow
def test_plans_are_resolved_with_all_inputs():
    by_faults = export(reader(), batch(2), plan=several.FAULTS)
    assert "hwfault_seed" in [name for name, _, _ in ends(by_faults)]
    with pytest.raises(PlanError):
        sites(reader(), {"ids": batch(2)["ids"][:0]})
