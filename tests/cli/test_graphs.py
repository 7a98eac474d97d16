"""`hwfault sites`, `insert` and `strip` on graphs, those of others among them."""

import onnx
import pytest

from hwfault.graph.edit.carried import plan_of
from hwfault.graph.run.session import load_model
from hwfault.plan.fault_plan import FaultPlan
from tests.cli.conftest import good, hwfault
from tests.helpers.graph.foreign import graph


@pytest.fixture
def foreign(tmp_path):
    """A graph that no export wrote."""
    onnx.save(graph(), tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


def test_sites_of_a_graph_of_somebody_else(foreign):
    table = good("sites", foreign).stdout.splitlines()
    assert [line.split()[:2] for line in table[1:3]] == [["Thresholds_0", "activation"], ["conv_w", "weight"]]
    assert table[-1].split() == ["MatMul_1.accumulator", "accumulator", "9", "signed", "MatMul", "3"]


def test_faults_go_in_and_out_again(made, tmp_path):
    done = good("insert", made / "clean.onnx", "--plan", made / "plan.json", "-o", tmp_path / "faulted.onnx")
    digest = FaultPlan.load(made / "plan.json").digest
    told = f"{tmp_path / 'faulted.onnx'}: faults at 8 sites, plan {digest[:12]}; expected in a trial: "
    assert done.stdout.startswith(told)
    assert (tmp_path / "faulted.onnx").read_bytes() == (made / "faulted.onnx").read_bytes()
    assert (
        good("strip", tmp_path / "faulted.onnx", "-o", tmp_path / "c.onnx").stdout == f"{tmp_path / 'c.onnx'}: clean\n"
    )
    assert load_model(tmp_path / "c.onnx") == load_model(made / "clean.onnx")


def test_faults_resolved_against_the_graph_are_those_of_its_network(made, run, tmp_path):
    """Any faults that a command takes, with the same plan as the network gets."""
    faults = ["--faults", "sram14-ibm-7points@operating_point=0", "--device", 3]
    found = good("insert", made / "clean.onnx", *faults, "--out", tmp_path / "g.onnx", "--json").json
    good("export", run, *faults, "--out", tmp_path / "other.onnx")
    low, high = found.pop("expected_faults")["in_a_trial"]
    assert low == high > 0
    assert found == {
        "graph": str(tmp_path / "g.onnx"),
        "sites": list(plan_of(load_model(tmp_path / "other.onnx")).names),
        "plan": plan_of(load_model(tmp_path / "other.onnx")).digest,
    }
    assert (tmp_path / "g.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()


def test_a_graph_of_somebody_else_takes_faults(foreign, tmp_path):
    good("insert", foreign, "--ber", 0.01, "--select", "*_w", "-o", tmp_path / "f.onnx")
    assert plan_of(load_model(tmp_path / "f.onnx")).names == ("conv_w", "dense_w", "last_w")
    good("strip", tmp_path / "f.onnx", "-o", tmp_path / "c.onnx")
    assert load_model(tmp_path / "c.onnx") == load_model(foreign)


def test_a_graph_with_tensors_in_other_files_comes_back_in_every_byte(foreign, tmp_path):
    graph = onnx.load(foreign)
    onnx.save_model(graph, tmp_path / "g.onnx", save_as_external_data=True, location="g.data", size_threshold=0)
    good("insert", tmp_path / "g.onnx", "--ber", 0.01, "-o", tmp_path / "f.onnx")
    assert good("strip", tmp_path / "f.onnx", "-o", tmp_path / "c.onnx").stdout == f"{tmp_path / 'c.onnx'}: clean\n"
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "g.onnx").read_bytes()
    (tmp_path / "g.data").rename(tmp_path / "elsewhere.data")
    told = good("strip", tmp_path / "f.onnx", "-o", tmp_path / "c.onnx").stdout
    assert f"{tmp_path / 'c.onnx'}: clean; all of its tensors are in it now: " in told
    assert "lies in the file 'g.data', and there is no such file" in told
    (tmp_path / "elsewhere.data").rename(tmp_path / "g.data")
    assert load_model(tmp_path / "c.onnx") == load_model(tmp_path / "g.onnx")


def test_what_cannot_be_done_is_said(made, foreign, tmp_path):
    out = ["-o", tmp_path / "x.onnx"]
    nothing = hwfault("insert", foreign, *out)
    assert (nothing.code, "no faults were given, expected --faults, --ber or --plan" in nothing.stderr) == (2, True)
    for arguments, text in [
        (["strip", foreign], "does not say what it was before faults were put into it"),
        (["strip", made / "nowhere.onnx"], "cannot be read"),
        (["insert", made / "faulted.onnx", "--ber", 0.1], "the graph carries faults already"),
        (["insert", foreign, "--ber", 0.1, "--select", "conv_v"], "did you mean 'conv_w'"),
        (["insert", foreign, "--plan", made / "plan.json"], "which the graph does not have"),
    ]:
        done = hwfault(*arguments, *out)
        assert done.code == (2 if "--select" in arguments else 1), arguments
        assert text in done.stderr, done.stderr
        assert not (tmp_path / "x.onnx").exists()
