"""What is no site, and rates that strike nothing: said by every command that meets them."""

import brevitas.nn as qnn
import onnx
import pytest
from brevitas.quant.mx_quant_ocp import MXInt8Weight
from torch import nn

from hwfault.cli.runs import Trusted
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.run.session import load_model
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site, SiteList
from tests.cli.conftest import good, hwfault, refused
from tests.graph.read.test_left_out import CASES, graph


def obstructed():
    """A network of which one quantizer is no site; named on the command line as module:function."""
    first = qnn.QuantLinear(64, 32, bias=False, weight_quant=MXInt8Weight)
    return nn.Sequential(nn.Flatten(), first, qnn.QuantReLU(), qnn.QuantLinear(32, 10, bias=False))


@pytest.fixture
def foreign(tmp_path):
    """A graph with a quantizer in a branch."""
    onnx.save(CASES["If"][0], tmp_path / "foreign.onnx")
    return tmp_path / "foreign.onnx"


def test_sites_of_a_graph_show_what_is_none(foreign):
    told = good("sites", foreign, "--json").json
    assert [site["name"] for site in told["sites"]] == ["good"]
    assert list(told["obstacles"]) == ["hidden"]
    assert told["notes"] == {}
    lines = good("sites", foreign).stdout.splitlines()
    assert lines[3] == "1 no sites, which no fault strikes:"
    assert lines[4] == f"  hidden: {told['obstacles']['hidden']}"


def test_sites_of_a_network_show_what_is_none():
    told = good("sites", "tests.cli.test_obstacles:obstructed", "--json").json
    assert [site["name"] for site in told["sites"]] == ["2.act_quant", "3.weight_quant"]
    assert "integer quantizers only" in told["obstacles"]["1.weight_quant"]
    text = good("sites", "tests.cli.test_obstacles:obstructed").stdout
    assert f"  1.weight_quant: {told['obstacles']['1.weight_quant']}" in text.splitlines()


def test_insertion_asks_whether_the_others_are_enough(foreign, tmp_path):
    out = tmp_path / "f.onnx"
    words = [
        "1 of what the faults select are no sites: 'hidden' (the node 'hidden' (Quant) lies in",
        "--allow-obstacles",
    ]
    refused("insert", foreign, "--ber", 0.1, "-o", out, words=words)
    assert not out.exists()
    done = good("insert", foreign, "--ber", 0.1, "--allow-obstacles", "-o", out)
    assert "faults at 1 sites" in done.stdout
    assert plan_of(load_model(out)).names == ("good",)
    good("insert", foreign, "--ber", 0.1, "--select", "good", "-o", out)


def test_insertion_of_faults_that_select_nothing_else_says_why(foreign, tmp_path):
    for more in ([], ["--allow-obstacles"]):
        arguments = ["--ber", 0.1, "--select", "hidden", *more, "-o", tmp_path / "f.onnx"]
        refused("insert", foreign, *arguments, words="no site matches the selector 'hidden': hidden: the node")


def test_layers_without_accumulators_are_in_nobodys_way(made, tmp_path):
    """Accumulators are struck where they are asked for; that a layer has none is no obstacle to anything else."""
    model = load_model(made / "clean.onnx")
    onnx.save(model, tmp_path / "g.onnx")
    good("insert", tmp_path / "g.onnx", "--ber", 0.01, "-o", tmp_path / "f.onnx")


@pytest.mark.every(2)
@pytest.mark.parametrize("rate", [0, 0.0])
def test_a_rate_that_can_strike_nothing_is_said(made, run, tmp_path, rate):
    clean, out = made / "clean.onnx", tmp_path / "f.onnx"
    told = "NO faults, plan "
    for done in (
        good("insert", clean, "--ber", rate, "-o", out),
        good("export", run, "--ber", rate, "--out", out),
    ):
        assert told in done.stdout
        assert "no fault can strike any of 8 sites: every rate is 0" in done.stdout
    assert "no fault can strike any of 8 sites" in good("faults", run, "--ber", rate).stdout
    assert good("insert", clean, "--ber", rate, "-o", out, "--json").json["expected_faults"]["in_a_trial"] == [0, 0]


def test_how_many_faults_are_expected(made, run, tmp_path):
    sites = good("sites", run, "--json").json["sites"]
    words = {True: 0, False: 0}
    for site in sites:
        if site["kind"] != "accumulator":
            size = site["bit_width"]
            for extent in site["shape"]:
                size *= extent
            words[site["kind"] == "weight"] += size
    found = good("insert", made / "clean.onnx", "--ber", 0.01, "-o", tmp_path / "f.onnx", "--json").json
    once, each = (found["expected_faults"][key][0] for key in ("in_a_trial", "in_each_sample"))
    assert once == pytest.approx(0.01 * words[True], rel=1e-6)
    assert each == pytest.approx(0.01 * words[False], rel=1e-6)
    (point,) = good("evaluate", run, "--ber", 0.01, "--seeds", 1, "--samples", 20, "--json").json
    assert point["expected_faults"] == pytest.approx([once + 20 * each] * 2)
    text = good("evaluate", run, "--rates", "0,0.01", "--seeds", 1, "--samples", 20).stdout
    assert f"faults expected in a trial of 20 samples, row by row: no, {once + 20 * each:.3g}" in text


def test_a_graph_with_nothing_but_obstacles(tmp_path):
    model = graph()
    model.graph.node[0].input[1] = "computed"
    model.graph.node.insert(0, onnx.helper.make_node("Abs", ["s"], ["computed"]))
    onnx.save(model, tmp_path / "g.onnx")
    assert good("sites", tmp_path / "g.onnx", "--json").json["sites"] == []
    assert hwfault("insert", tmp_path / "g.onnx", "--ber", 0.1, "-o", tmp_path / "f.onnx").code == 2


def test_the_table_says_where_samples_lie_if_not_along_axis_0(monkeypatch):
    """Networks named on the command line have no example; a run's data is one."""
    fields = {"kind": "activation", "bit_width": 4, "signed": True, "shape": (8, 6)}
    axes = [None, BatchAxis(axis=1), BatchAxis(inner=8, rows=8), BatchAxis(inner=2, rows=8)]
    listed = SiteList(Site(name=f"q{i}", batch=batch, **fields) for i, batch in enumerate(axes))
    monkeypatch.setattr(Trusted, "sites", lambda self, source, shown: listed)
    lines = good("sites", "some:network").stdout.splitlines()
    assert lines[0].split()[-2:] == ["shape", "batch"]
    told = [line.partition("8 x 6")[2].strip() for line in lines[1:]]
    assert told == ["", "axis 1", "axis 0, 8 rows", "axis 0, 8 rows by 2"]
    monkeypatch.setattr(Trusted, "sites", lambda self, source, shown: SiteList(listed[:1]))
    assert "batch" not in good("sites", "some:network").stdout
