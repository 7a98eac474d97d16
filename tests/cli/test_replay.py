"""`hwfault replay G.onnx RUN`: the report, the page and the exit codes of a bundle's replay, beside the network."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hwfault.laws.models import load_faults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.recorder import Recorder
from hwfault.train import checkpoint
from hwfault.train.run import load_data
from tests.cli.conftest import good, hwfault, refused

STUCK = """faults:
  - model: stuck_element
    element: [{row}, 1]
    bit: 6
    value: 1
    mapping: {{kind: weight_stationary, rows: 4, columns: 4}}
"""


@pytest.fixture(scope="module")
def stuck(made, tmp_path_factory):
    """The graph of the tiny run on an array with a stuck element."""
    folder = tmp_path_factory.mktemp("stuck")
    (folder / "f.yaml").write_text(STUCK.format(row=1))
    good("export", made / "run", "--faults", folder / "f.yaml", "--out", folder / "g.onnx")
    return folder / "g.onnx"


def plan_of_another_element(run, tmp_path):
    (tmp_path / "other.yaml").write_text(STUCK.format(row=2))
    model, config = checkpoint.load(run / "checkpoint.safetensors")
    return resolve(sites(model, load_data(config).example), load_faults(tmp_path / "other.yaml"))


def test_another_stuck_element_is_a_fault(made, stuck, few, tmp_path, monkeypatch):
    """It passed as another arithmetic, with exit code 0."""
    run, asked = made / "run", ("--seeds", 1, "--data", few)
    assert good("replay", stuck, run, *asked).stdout.splitlines()[-1].startswith("Replay: pass. 24 samples, 1 ")
    other = plan_of_another_element(run, tmp_path)
    attached = Recorder.attached
    monkeypatch.setattr(Recorder, "attached", lambda self, _plan: attached(self, other))
    for accept in ((), ("--accept", "outputs"), ("--accept", "codes")):
        done = hwfault("replay", stuck, run, *asked, *accept, "--html", tmp_path / "p.html")
        assert done.code == 3
        told = done.stdout.replace("\n", " ")
        assert "Replay: faults differ. 24 samples, 1 runs" in told
        assert "First difference, in the run under seed 1: the site features.0.accumulator (3 of" in told
        assert ("Not accepted: " in told) == bool(accept)
    page = (tmp_path / "p.html").read_text()
    assert "Replay of a graph beside its network" in page
    assert "the site features.0.accumulator" in page


@pytest.fixture
def nearly(made, tmp_path):
    """A graph whose outputs are a little more than they should be."""
    graph = onnx.load(made / "faulted.onnx")
    last = graph.graph.node[-1]
    (name,) = last.output
    last.output[0] = "almost"
    graph.graph.node.append(helper.make_node("Mul", ["almost", "factor"], [name]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1 + 2**-21, np.float32), "factor"))
    onnx.save(graph, tmp_path / "nearly.onnx")
    return tmp_path / "nearly.onnx"


def test_rounding_differs_and_can_be_accepted(made, nearly, few, tmp_path):
    run, asked = made / "run", ("--seeds", 1, "--data", few)
    done = hwfault("replay", nearly, run, *asked, "--out", tmp_path / "r.json")
    assert done.code == 3
    told = done.stdout.splitlines()[-1]
    assert told.startswith("Replay: outputs differ. ")
    assert "floating-point rounding behind the last site" in told
    assert "--arithmetic integer" in told
    assert "--accept outputs" in told
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "outputs differ"
    for accept, code in (("outputs", 0), ("outputs=1e-9", 3), ("codes", 0)):
        assert hwfault("replay", nearly, run, *asked, "--accept", accept).code == code
    accepted = good("replay", nearly, run, *asked, "--accept", "outputs", "--json")
    assert accepted.json["verdict"] == "outputs differ"
    assert "Accepted: outputs within 1e-05 of the largest recorded one" in accepted.stderr


def test_the_other_exit_codes(made, tmp_path):
    refused("replay", tmp_path / "none.onnx", made / "run", words="cannot be read")
    refused("replay", made / "faulted.onnx", made / "run", "--accept", "words", words="cannot be accepted", code=2)
    refused("replay", made / "faulted.onnx", words="Missing argument 'RUN'", code=2)
