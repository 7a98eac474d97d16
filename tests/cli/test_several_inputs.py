"""Commands on a graph of several inputs, with words by number among them."""

import json

import numpy as np
import onnx
import pytest

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import load_model, run, session
from hwfault.laws.models import bit_errors
from hwfault.plan.fault_plan import resolve
from tests.cli.conftest import good, refused
from tests.helpers.graph import several
from tests.helpers.graph.several import arrays

N = 8
LABELS = np.arange(N) % 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    onnx.save(several.graph(), folder / "g.onnx")
    np.savez(folder / "xy.npz", y=LABELS, **arrays(N))
    return folder


def test_evaluate_is_what_each_sample_answers_alone(folder):
    (found,) = good(
        *("evaluate", folder / "g.onnx", "--data", folder / "xy.npz", "--seeds", "3,4", "--ber", 0.02, "--json")
    ).json
    graph = load_model(folder / "g.onnx")
    made = session(insert_faults(graph, resolve(sites(graph), bit_errors(0.02))))
    for seed, correct in zip((3, 4), found["correct"], strict=True):
        rows = [{name: values[i : i + 1] for name, values in arrays(N).items()} for i in range(N)]
        answers = [run(made, row, seed=seed, first_sample=i)[0].argmax() for i, row in enumerate(rows)]
        assert correct == (np.array(answers) == LABELS).sum()


@pytest.mark.slow
def test_a_bundle_of_the_graph_is_written_and_proved(folder, tmp_path):
    asked = ("export", folder / "g.onnx", "--bundle", "--data", folder / "xy.npz", "--ber", 0.02, "--seeds", 5)
    good(*asked, "--out", tmp_path / "b.zip")
    assert good("replay", tmp_path / "b.zip", "--json").json["verdict"] == "pass"


def test_what_is_missing_is_told(folder, tmp_path):
    np.savez(tmp_path / "x.npz", ids=arrays(N)["ids"], masks=arrays(N)["mask"])
    words = "holds no array 'mask', expected one for each input of the graph, by its name (ids, mask, steps)"
    refused("evaluate", folder / "g.onnx", "--data", tmp_path / "x.npz", words=words)


def test_as_traced_goes_with_networks(folder, tmp_path):
    asked = ("export", folder / "g.onnx", "--bundle", "--as-traced", "--data", folder / "xy.npz", "--out", tmp_path)
    refused(*asked, words="--as-traced goes with a run or checkpoint, given was a graph", code=2)


@pytest.mark.slow
def test_a_campaign_of_the_graph(folder, tmp_path):
    questions = {
        "curve": {"sweep": {"ber": [0.01, 0.03]}},
        "critical": {"flips": "single", "sites": {"kind": "weight"}},
    }
    study = {"graph": str(folder / "g.onnx"), "data": str(folder / "xy.npz"), "questions": questions}
    (tmp_path / "study.yaml").write_text(json.dumps(study | {"stop": {"max_trials": 12}}))
    good("campaign", "run", tmp_path / "study.yaml", "--out", tmp_path / "out")
    good("campaign", "verify", tmp_path / "out")
    good("campaign", "report", tmp_path / "out")
    assert "g.onnx" in (tmp_path / "out" / "report.html").read_text()
    told = good("campaign", "explain", tmp_path / "out", "curve ber=0.03", 0, 3, "--json").json
    assert told["agrees"]
    assert any(site["faults"] for site in told["sites"])
