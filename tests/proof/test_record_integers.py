"""Bundles of graphs of ONNX' own integers: what they record is what NumPy makes of them, and every change is told."""

import shutil

import numpy as np
import pytest
from onnx import numpy_helper
from safetensors.numpy import load

from hwfault.codes import CodeFormat, encode_integers
from hwfault.errors import FileError, HwfaultError, PlanError
from hwfault.graph.read.sites import sites
from hwfault.graph.run.graph_input import Samples
from hwfault.laws.models import BitFlips, ProfileFaults
from hwfault.plan.fault_plan import resolve
from hwfault.proof.check import bundled_graph, check
from hwfault.proof.engine import Engine
from hwfault.proof.manifest import CLEAN, seed_file
from hwfault.proof.page import page
from hwfault.proof.record_graph import write_graph_bundle
from hwfault.proof.sentences import integers_told
from hwfault.proof.storage import Bundle
from tests.graph.run.test_own_integers import TENSORS, TURNED, slow_but
from tests.helpers.graph.qdq import by_reference, evaluate, inputs, quantized
from tests.helpers.proof.bundles import opened, with_manifest

SEED = 2**63 + 7
EVERY = [BitFlips(probability=0.02)]


def recorded(path, what, faults=EVERY, samples=4, **rest):
    """A bundle of a graph, and its plan; biases' highest bits take sums past 32 bits, and are left alone."""
    graph = quantized(what)
    found = sites(graph)
    kept = [site for site in found if site.kind in ("weight", "activation")]
    plan = resolve(kept if faults is EVERY else found, faults, device=3)
    write_graph_bundle(path, graph, Samples(inputs(samples), None), plan=plan, seeds=(SEED,), **rest)
    return Bundle.open(path), plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A bundle of weights of 4 bits, activations of 8 and biases of 32; leave it as it is."""
    folder = tmp_path_factory.mktemp("integers") / "b"
    recorded(folder, "QDQ 4 bits", batch_size=3)
    return folder


@pytest.fixture
def mine(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("what", slow_but("QDQ 4 bits"))
def test_records_are_the_oracles(what, tmp_path):
    """Every tensor of integers, clean and struck, by onnx's reference evaluator and the stream's specification."""
    bundle, plan = recorded(tmp_path / "b", what, batch_size=3)
    clean, faulty = load(bundle.read(CLEAN)), load(bundle.read(seed_file(SEED)))
    known = {entry.site.name: entry for entry in bundle.manifest.sites}
    before: dict[str, np.ndarray] = {}
    strike = by_reference(plan, TENSORS[what], seed=SEED, turned=tuple(TURNED))

    def noted(name, values):
        before[name] = values
        return strike(name, values)

    x, graph = inputs(4), quantized(what)
    golden = evaluate(graph, x, lambda _, values: values)
    struck = evaluate(graph, x, noted)
    exact = what != "dynamic"  # whose scales are no powers of two, and worked out batch by batch
    for tensor, name in TENSORS[what].items():
        entry = known[name]
        assert entry.integers in ("int8", "uint8", "int16", "uint16", "int32"), name
        fmt = CodeFormat(entry.site.bit_width, entry.site.signed)

        def codes(values, tensor=tensor, fmt=fmt, entry=entry):
            words = values.T if tensor in TURNED else values
            return encode_integers(words, fmt).reshape(len(words) if entry.site.batched else 1, -1)

        if not (exact or entry.site.kind == "weight"):
            continue
        np.testing.assert_array_equal(clean[f"{name}#0.codes"], codes(golden[tensor]))
        assert f"{name}#0.scale" not in clean
        if name not in plan.names:
            continue
        rows = -(-4 // 3) if not entry.site.batched else 1  # a parameter is recorded once a batch
        found = np.tile(faulty.get(f"{name}#0.before", clean[f"{name}#0.codes"]), (rows, 1))
        own = np.tile(codes(before[tensor]), (rows, 1))
        np.testing.assert_array_equal(found[: len(own)], own)
        found = found[: len(own)].copy()
        found.ravel()[faulty[f"{name}#0.at"]] = faulty[f"{name}#0.after"]
        np.testing.assert_array_equal(found, np.tile(codes(struck[tensor]), (rows, 1)))
    if exact:
        np.testing.assert_array_equal(faulty["output"], struck["y"])
    assert check(bundle).verdict == "pass"


@pytest.mark.slow
def test_the_report_says_that_they_are_integers(whole):
    report = check(opened(whole))
    assert report.verdict == "pass"
    kinds = {site.name: site.integers for site in report.sites}
    assert kinds["fc1.weight"] == "int8"
    assert kinds["fc1.bias"] == "int32"
    told = integers_told(report)
    assert told.startswith("12 of 12 sites hold ONNX' own integers, compared bit for bit: ")
    assert "3 int32" in told
    assert "compared bit for bit" in page(report)
    assert [site.integers for site in report.runs[0].sites].count("int8") == 9
    assert '"integers":"int32"' in report.model_dump_json()


def test_one_integer_that_differs_is_told(whole):
    """By one step, in both batches."""
    graph = bundled_graph(opened(whole), "clean.onnx")
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "fc1.bias_quantized")
    words = numpy_helper.to_array(bias).copy()
    recorded = int(words[2])
    words[2] += 1
    bias.CopyFrom(numpy_helper.from_array(words, bias.name))
    report = check(opened(whole), graph=graph)
    assert report.verdict == "codes differ"
    first = report.runs[0].first
    assert (first.site, first.word) == ("fc1.bias", 2)
    assert (first.recorded, first.found) == (recorded & 0xFFFFFFFF, (recorded + 1) & 0xFFFFFFFF)
    assert next(site for site in report.runs[0].sites if site.name == "fc1.bias").codes_differ == 2


@pytest.mark.slow
def test_words_of_32_bits_beyond_float32(tmp_path):
    """Stuck and flipped bits of biases: codes that float32 values would not hold, equal to the last bit."""
    stuck = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0}, sites={"kind": "bias"})
    bundle, _ = recorded(tmp_path / "b", "QDQ", [BitFlips(probability=0.3, sites={"kind": "bias"}), stuck])
    after = load(bundle.read(seed_file(SEED)))["fc1.bias#0.after"]
    assert (after.astype(np.float32).astype(np.uint64) != after).any()
    report = check(bundle)
    assert report.verdict == "pass"
    assert sum(site.faults_seen for site in report.sites) == 19  # of 4, 10 and 5 words


@pytest.mark.slow
def test_sums_of_a_graph_of_integers_are_values_among_them(tmp_path):
    bundle, _ = recorded(tmp_path / "b", "QDQ", [BitFlips(probability=0.05, sites={"kind": "accumulator"})])
    kinds = {entry.site.name: entry.integers for entry in bundle.manifest.sites}
    assert kinds["fc1.accumulator"] is None
    assert kinds["x"] == "int8"
    assert check(bundle).verdict == "pass"


def test_other_faults_differ(whole, monkeypatch):
    """An engine that draws those of another seed."""
    real = Engine.run

    def other(self, inputs, seed, first_sample, found):
        return real(self, inputs, None if seed is None else seed - 1, first_sample, found)

    monkeypatch.setattr(Engine, "run", other)
    report = check(opened(whole))
    assert report.verdict == "faults differ"
    assert report.runs[0].first is None  # the clean run
    assert report.runs[1].first.site in ("x", "conv.weight")


def answering(arrays_of):
    """A runner that answers with what `arrays_of` makes of a bundle's record, batch by batch."""

    def runner(arrays):
        return arrays_of(int(arrays.get("hwfault_first_sample", 0)), len(arrays["input"]))

    return runner


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(lambda words: words, "pass"), (lambda words: words.astype(np.float32), "pass"), (lambda words: words + 40, "")],
    ids=["integers", "as floats", "beyond the word"],
)
def test_a_runner_answers_with_integers(whole, change, verdict):
    """Weights of 4 bits as they are stored: 8 of 8 bits are no codes of theirs."""
    bundle = opened(whole)
    clean = load(bundle.read(CLEAN))
    codes = clean["fc1.weight#0.codes"].astype(np.int64)
    words = np.where(codes > 7, codes - 16, codes)
    report = check(bundle, which="clean", runner=answering(lambda *_: {"fc1.weight": change(words)}))
    (site,) = report.runs[0].sites
    assert (site.codes_differ == 0) == (verdict == "pass")
    assert (site.strange > 0) == (verdict != "pass")
    assert site.integers == "int8"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"integers": "int64"}, FileError, "not a bundle of this version: .*integers"),
        ({"integers": "uint8"}, FileError, "integers: uint8 does not hold those of '.*', from -"),
        ({"integers": "int16"}, PlanError, "was recorded as int16 integers, but the graph has there int8 integers"),
        ({"integers": None}, HwfaultError, "was recorded as values on a grid, but the graph has there int8 integers"),
    ],
)
def test_damaged_manifests_are_refused(mine, change, error, words):
    def damage(manifest):
        entry = next(entry for entry in manifest["sites"] if entry["site"]["name"] == "fc1.weight")
        entry.update(change)
        if entry["integers"] is None:
            del entry["integers"]

    with_manifest(mine, damage)
    with pytest.raises(error, match=words):
        check(opened(mine), which="clean")
