"""Where the samples lie in a graph, said by its export; which versions graphs and bundles need."""

import json
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.export import export_qonnx
from onnx import helper, numpy_helper
from torch import nn

from hwfault.errors import ModelError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.exported import SITES
from hwfault.graph.read.qonnxgraph import PLAN, metadata, set_metadata
from hwfault.graph.read.sites import sites as graph_sites
from hwfault.graph.run.session import run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.batch_axes import BatchAxis
from hwfault.proof.manifest import Manifest
from hwfault.proof.record import write_bundle
from hwfault.proof.replay import replay
from tests.helpers.graph import attention
from tests.helpers.graph.moves import graph
from tests.helpers.graph.ops import assert_same

FLIPS = [BitFlips(probability=0.05)]


class Moving(nn.Module):
    """(B, 4, 6) -> a quantizer -> what moves the samples -> a quantizer -> (B, 3) again."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b = (qnn.QuantIdentity(bit_width=4) for _ in range(2))
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        q = self.a(x)
        moved = q.flatten(0, 1) if self.how == "frames" else q.transpose(0, 1)
        moved = moved if self.how == "tokens first" else moved.reshape(-1, 6)
        y = self.b(moved)
        y = y.reshape(4, -1, 6).transpose(0, 1) if self.how != "frames" else y.reshape(-1, 4, 6)
        return self.head(y.flatten(1))


NETWORKS = {
    "frames": BatchAxis(inner=4, rows=4),
    "T x B": BatchAxis(inner=1, rows=4),
    "tokens first": BatchAxis(axis=1),
}
X = torch.linspace(-3, 3, 5 * 24).reshape(5, 4, 6)


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    model = Moving(request.param)
    with torch.no_grad():
        model(X)
    return model.eval()


def test_an_export_says_where_the_samples_lie_and_its_nodes_agree(network):
    listed, made = sites(network, X), export(network, X)
    batch = NETWORKS[network.how]
    assert [site.batch for site in listed if site.batched] == [None, batch]
    assert list(graph_sites(made)) == list(listed)
    del made.metadata_props[:]
    assert [site.batch for site in graph_sites(made) if site.batched] == [None, batch]
    with pytest.raises(PlanError, match=r"'b.act_quant' to lie otherwise .*than the graph has them"):
        insert_faults(made, resolve(sites(network), FLIPS))


@pytest.mark.every(5)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the exporter
@pytest.mark.parametrize("open_batch", [True, False])
@pytest.mark.parametrize("name", attention.NETWORKS)
def test_an_export_by_brevitas_alone_tells_where_the_samples_lie(name, open_batch):
    """Attention, a vision transformer, frames and windows, from the nodes alone; the plan of the network fits."""
    model, x = attention.network(name), attention.batch(name)
    axes = {"dynamic_axes": {"x": {0: "batch"}}} if open_batch else {}
    made = export_qonnx(deepcopy(model), args=x, dynamo=False, opset_version=17, input_names=["x"], **axes)
    listed = sites(model, x)
    assert {s.name: (s.batch, s.shape) for s in graph_sites(made)} == {s.name: (s.batch, s.shape) for s in listed}
    plan = resolve(listed, [BitFlips(probability=0.02)])
    with torch.no_grad(), inject(model, plan, seed=3, example=x):
        expected = model(x)
    assert_same(run(session(insert_faults(made, plan)), x.numpy(), seed=3)[0], expected.numpy())


def said(made, **batch):
    """An export that says something else of where the samples of a site lie."""
    record = json.loads(metadata(made)[SITES])
    site = next(site for site in record["sites"] if site["name"] == "b.act_quant")
    site |= {"batch": batch}
    site["shape"] = [12, 2]
    set_metadata(made, {SITES: json.dumps(record)})
    return made


def test_an_export_that_says_otherwise_than_its_nodes_do_is_an_obstacle(network):
    made = said(export(network, X), axis=0, inner=2, rows=12)
    told = graph_sites(made).obstacles["b.act_quant"]
    assert "the graph says that it has 12 rows of each sample along axis 0, 2 together, but its nodes make it" in told


def test_what_nodes_do_not_tell_the_export_does(network):
    """An op that nobody knows, on the way: the shapes behind it are not known, nor where the samples are."""
    made = export(network, X)
    batch = NETWORKS[network.how]
    at, quant = next((i, entry) for i, entry in enumerate(made.graph.node) if entry.name == "b.act_quant")
    made.graph.node.insert(at, helper.make_node("Sparkle", [quant.input[0]], ["unknown"], domain="elsewhere"))
    quant.input[0] = "unknown"
    assert {site.name: site.batch for site in graph_sites(made)}["b.act_quant"] == batch
    del made.metadata_props[:]
    found = graph_sites(made)
    assert batch.axis == 0 or "is not known to leave them along axis 1" in found.obstacles["b.act_quant"]


def test_exports_of_older_versions_say_nothing_of_axes(network):
    made = export(network, X)
    record = json.loads(metadata(made)[SITES])
    record.pop("batch_axes")
    for site in record["sites"]:
        site.pop("batch", None)
    set_metadata(made, {SITES: json.dumps(record)})
    assert {site.name: site.batch for site in graph_sites(made)}["b.act_quant"] == NETWORKS[network.how]


@pytest.mark.parametrize("size", [1, 4])
def test_a_graph_made_for_so_many_samples(network, size):
    """One alone lies in several ways, of which the plan's is as good as any."""
    x = X[:size]
    made = export(network, x)
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    del made.metadata_props[:]
    plan = resolve(sites(network, X), FLIPS)
    faulted = insert_faults(made, plan)
    assert plan_of(faulted) == plan
    with torch.no_grad(), inject(network, plan, seed=3, example=X):
        expected = network(x)
    (got,) = run(session(faulted), x.numpy(), seed=3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)  # the head is a layer of floats
    assert abs(got - network(x).numpy(force=True)).max() > 0.01


def test_a_graph_of_an_older_version_is_refused_by_replay(network, monkeypatch):
    made, old = export(network, X), resolve(sites(network), FLIPS)
    with monkeypatch.context() as older:
        plain = SimpleNamespace(at=lambda *_: (None, None), batch=None)
        older.setattr("hwfault.graph.read.places.SampleAxes", lambda *_: plain)
        faulted = insert_faults(made, old)
    for batches in ([X], [X[:1], X[1:]]):
        with pytest.raises(PlanError, match=r"'b.act_quant' to lie otherwise .*resolve the faults again") as told:
            replay(network, faulted, batches, seeds=[1])
        assert str(NETWORKS[network.how]) in str(told.value)


def runs(times):
    """A network with one quantizer that runs so often in a forward: a second run is a site of version 1.1."""
    quantizer = qnn.QuantIdentity(bit_width=4)
    return nn.Sequential(*[part for _ in range(times) for part in (quantizer, nn.ReLU())]).eval()


@pytest.mark.parametrize(("times", "spec"), [(1, "fault-stream v1"), (2, "fault-stream v1.1")])
def test_graphs_and_bundles_say_which_version_they_need(times, spec, tmp_path):
    model = runs(times)
    plan = resolve(sites(model, X), FLIPS)
    faulted = export(model, X, plan=plan)
    assert plan.stream == (None if times == 1 else "1.1")
    assert metadata(faulted)["hwfault.spec"] == spec
    assert FaultPlan.from_json(metadata(faulted)[PLAN]) == plan
    for given, seeds in ((None, []), (plan, [1])):
        manifest = write_bundle(tmp_path / f"{len(seeds)}", model, X, plan=given, seeds=seeds)
        text = (tmp_path / f"{len(seeds)}" / "manifest.json").read_text()
        assert manifest.spec == json.loads(text)["spec"] == spec
        less = json.loads(text) | {"spec": "fault-stream v1"}
        if times == 1:
            assert Manifest.parse(less, "it").spec == spec
            continue
        with pytest.raises(ModelError, match=r"its sites need fault-stream v1\.1, which the manifest does not say"):
            Manifest.parse(less, "it")
        less.pop("spec")  # as manifests of version 1 do that say nothing
        with pytest.raises(ModelError, match=r"its sites need fault-stream v1\.1"):
            Manifest.parse(less, "it")


@pytest.mark.parametrize(
    ("zero", "bits", "scale", "spec"),
    [(0, 4, 0.5, "v1"), (3, 4, 0.5, "v1"), (0.5, 4, 0.5, "v1.1"), (0, 32, 0.5, "v1.1"), (0, 22, 0.3, "v1.1")],
)
def test_graphs_of_fractional_zero_points_and_wide_words_need_version_1_1(zero, bits, scale, spec):
    made = graph(["batch", 6])
    for name, value in {"zeropt": zero, "bits": bits, "scale": scale}.items():
        held = next(tensor for tensor in made.graph.initializer if tensor.name == name)
        held.CopyFrom(numpy_helper.from_array(np.array(value, np.float32), name))
    plan = resolve(graph_sites(made), FLIPS)
    assert metadata(insert_faults(made, plan))["hwfault.spec"] == f"fault-stream {spec}"
    assert plan.stream is None  # which knows neither, so that plans of version 1 stay what they were
