"""Bundles that onnxruntime records from a graph alone: those that PyTorch records of its network, tensor by tensor."""

import numpy as np
import onnx
import pytest
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.cleanup import cleanup_model
from safetensors.numpy import load

from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.edit.channels_last import to_channels_last
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.graph_input import Samples
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.proof import record_graph
from hwfault.proof.check import bundled_graph, check
from hwfault.proof.manifest import CLEAN, CLEAN_GRAPH, seed_file
from hwfault.proof.record_graph import write_graph_bundle
from hwfault.proof.storage import Bundle
from tests.helpers.graph import foreign
from tests.helpers.graph.classifier import classifier, samples
from tests.helpers.graph.networks import ALL, batch, plan
from tests.helpers.proof.bundles import SAMPLES, SEEDS, written

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ALL if name != "biased"]


def tensors(bundle, name):
    return {key: (array.dtype, array.tolist()) for key, array in load(bundle.read(name)).items()}


@pytest.mark.parametrize("name", ["biased", *SLOW])
def test_a_graph_tells_what_its_network_does(name, tmp_path):
    """Sums are exact in these networks, so that the two records have the same codes in every word."""
    theirs = Bundle.open(written(tmp_path / "network", name, batch_size=4))
    given = Samples(batch(name, SAMPLES, 3).numpy(), np.arange(SAMPLES) % 5)
    graph = bundled_graph(theirs, CLEAN_GRAPH)
    write_graph_bundle(tmp_path / "graph", graph, given, plan=plan(name), seeds=SEEDS, batch_size=4)
    ours = Bundle.open(tmp_path / "graph")
    for file in (CLEAN, *map(seed_file, SEEDS)):
        assert tensors(ours, file) == tensors(theirs, file)
    assert {entry.site.name: entry.calls for entry in ours.manifest.sites} == {
        entry.site.name: entry.calls for entry in theirs.manifest.sites
    }
    assert ours.manifest.spec == theirs.manifest.spec
    assert set(ours.manifest.files) == set(theirs.manifest.files)
    assert check(ours).verdict == "pass"
    assert ours.manifest.versions.keys() == {"hwfault", "onnxruntime", "onnx"}


FAULTS = [BitFlips(probability=0.05)]


def recorded(path, graph, x, faults=FAULTS, **rest):
    found = resolve(sites(graph), faults)
    write_graph_bundle(path, graph, Samples(x, None), plan=found, seeds=(7,), **rest)
    return Bundle.open(path), found


def test_changed_words_are_those_that_the_stream_lists(tmp_path):
    x = samples(5)
    bundle, found = recorded(tmp_path / "b", classifier(scale=0.3), x, batch_size=2)
    clean, faulty = load(bundle.read(CLEAN)), load(bundle.read(seed_file(7)))
    name = "in.act_quant"
    words = clean[f"{name}#0.codes"].shape[1]
    at = faulty[f"{name}#0.at"].tolist()
    listed = [i * words + hit.word for i in range(5) for hit in faults_at(found, name, seed=7, sample=i)]
    assert at == sorted(set(listed))
    codes = np.clip(np.rint(x / np.float32(0.3)), 0, 15).astype(np.uint8).reshape(5, -1)
    assert (clean[f"{name}#0.codes"] == codes).all()
    made = session(insert_faults(classifier(scale=0.3), found))
    alone = [run(made, x[i : i + 1], seed=7, first_sample=i)[0] for i in range(5)]
    assert (faulty["prediction"] == np.concatenate(alone).argmax(1)).all()
    assert check(bundle).verdict == "pass"


@pytest.mark.parametrize(
    "faults", [FAULTS, [BitFlips(probability=0.05, sites={"kind": "accumulator"})]], ids=["codes", "sums"]
)
def test_integer_weights_and_sums_of_graphs_of_others(faults, tmp_path):
    bundle, _ = recorded(tmp_path / "b", foreign.graph(3), foreign.inputs(6), faults)
    assert bundle.manifest.batch_size == 3
    report = check(bundle)
    assert report.verdict == "pass"
    assert sum(site.faults_seen for site in report.sites) > 20


@pytest.mark.slow
def test_channels_last(tmp_path):
    """Where channels lie last, scales of channels are read along the words as they are numbered."""
    network = Bundle.open(written(tmp_path / "network", "per_channel"))
    tidy = cleanup_model(ModelWrapper(bundled_graph(network, CLEAN_GRAPH)), override_inpsize=4).model
    moved = to_channels_last(tidy)
    faults = [BitFlips(probability=0.05, sites="*.act_quant")]
    bundle, _ = recorded(tmp_path / "b", moved, batch("per_channel", 4).numpy(), faults)
    assert check(bundle).verdict == "pass"


def test_faults_that_are_none_of_the_stream_are_not_recorded(tmp_path, monkeypatch):
    """A graph whose fault ops have another seed than they are asked for."""
    real = record_graph.Engine.run

    def other(self, inputs, seed, first_sample, found):
        return real(self, inputs, None if seed is None else seed + 1, first_sample, found)

    monkeypatch.setattr(record_graph.Engine, "run", other)
    with pytest.raises(GraphError, match=r"the graph's faults at the site '.*' are not those that the fault stream"):
        recorded(tmp_path / "b", classifier(), samples(3))
    assert not (tmp_path / "b").exists()


def with_output(name, kind):
    graph = classifier()
    graph.graph.node.append(onnx.helper.make_node("ArgMax", ["y"], ["class"], axis=1))
    added = onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, None)
    outputs = {"both": [graph.graph.output[0], added], "class": [added]}[kind]
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)
    return graph


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (with_output("class", "both"), r"the graph has the outputs \['y', 'class'\], expected one"),
        (with_output("class", "class"), "the graph answers 3 samples with int64 of shape"),
    ],
)
def test_what_a_bundle_cannot_hold_is_refused(graph, words, tmp_path):
    with pytest.raises(GraphError, match=words):
        recorded(tmp_path / "b", graph, samples(3))


def test_a_plan_needs_seeds_and_seeds_a_plan(tmp_path):
    with pytest.raises(HwfaultError, match="a bundle of 3 samples, 1 seeds and no plan; expected samples, and seeds"):
        write_graph_bundle(tmp_path / "b", classifier(), Samples(samples(3), None), seeds=(1,))
