"""Inputs whose samples lie along another axis than 0, on the command line: in networks and in graphs."""

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hwfault.graph.edit.carried import plan_of
from hwfault.graph.run.session import load_model
from hwfault.injection.attach import inject
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.batch_axes import BatchAxis
from tests.cli.conftest import good, refused
from tests.graph.read.test_batch_axes import SWAP, graph, node

NETWORK = "tests.cli.test_batch_axes:tokens_first"
BOTH = "tests.cli.test_batch_axes:with_mask"


class Tokens(nn.Module):
    """(tokens, samples, features), of which tokens and samples are folded into axis 0 later."""

    def __init__(self):
        super().__init__()
        self.a, self.b = qnn.QuantIdentity(bit_width=4), qnn.QuantIdentity(bit_width=4)

    def forward(self, x, mask=None):
        x = self.a(x)
        return self.b((x if mask is None else x * mask).flatten(0, 1))


def tokens_first():
    torch.manual_seed(0)
    model = Tokens()
    model(torch.randn(4, 8, 6))
    return model.eval()


def with_mask():
    return tokens_first()


@pytest.fixture
def example(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4, 2, 6)))  # float64
    return tmp_path / "x.npy"


def axes_of(listed):
    return {site["name"]: site.get("batch") for site in listed if site["kind"] == "activation"}


AXES = {"a.act_quant": {"axis": 1, "inner": 1, "rows": 1}, "b.act_quant": {"axis": 0, "inner": 1, "rows": 4}}


def test_a_network_with_an_example(example, tmp_path):
    assert axes_of(good("sites", NETWORK, "--json").json["sites"]) == dict.fromkeys(AXES)
    shown = ["--example", example, "--batch-axis", 1]
    assert axes_of(good("sites", NETWORK, *shown, "--json").json["sites"]) == AXES
    good("faults", NETWORK, *shown, "--ber", 0.1, "--save", tmp_path / "plan.json")
    plan = FaultPlan.load(tmp_path / "plan.json")
    assert [entry.site.batch for entry in plan.sites] == [BatchAxis(axis=1), BatchAxis(rows=4)]
    x = torch.randn(4, 3, 6)
    with inject(tokens_first(), plan, seed=1, example=x, batch_axis=1):  # what was resolved so fits
        pass
    listed = good("faults", NETWORK, *shown, "--ber", 0.1, "--site", "b.act_quant", "--seed", 3).stdout
    assert "faults at b.act_quant, seed 3, sample 0" in listed


def test_arrays_by_name(tmp_path):
    np.savez(tmp_path / "both.npz", x=np.ones((4, 2, 6), np.float32), mask=np.ones((4, 2, 1), np.float32))
    shown = ["--example", tmp_path / "both.npz", "--batch-axis", 1]
    assert axes_of(good("sites", BOTH, *shown, "--json").json["sites"]) == AXES


def test_a_run_is_shown_its_data_or_the_example(run, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 1, 8, 8), np.float32))
    own = good("sites", run, "--json").json
    assert good("sites", run, "--example", tmp_path / "x.npy", "--json").json == own


def test_what_does_not_go_together(example, made, tmp_path):
    refused("sites", NETWORK, "--batch-axis", 1, words="--batch-axis goes with a graph, or with an --example", code=2)
    refused("sites", made / "clean.onnx", "--example", example, words="a graph tells the shapes of its inputs", code=2)
    for source in (made / "plan.json", made / "faulted.onnx"):
        refused("faults", source, "--batch-axis", 0, words="--example and --batch-axis go with a network", code=2)
    refused("sites", NETWORK, "--example", example, "--batch-axis", 7, words="none with samples along axis 7")
    np.save(tmp_path / "wrong.npy", np.zeros((3, 5), np.float32))
    words = "wrong.npy: the network does not run on this example"
    refused("sites", "digits_cnn", "--example", tmp_path / "wrong.npy", words=words)
    np.save(tmp_path / "texts.npy", np.array(["a"]))
    refused("sites", NETWORK, "--example", tmp_path / "texts.npy", words="texts.npy: ")


def test_a_graph_of_a_fixed_batch(tmp_path):
    onnx.save(graph([4, 5, 6], SWAP), tmp_path / "g.onnx")
    axes = [AXES["a.act_quant"], None]
    found = [site.get("batch") for site in good("sites", tmp_path / "g.onnx", "--json").json["sites"]]
    assert found == axes[::-1], "axis 0 is taken where nothing is said"
    shown = ["--ber", 0.1, "--batch-axis", 1]
    found = [site.get("batch") for site in good("sites", tmp_path / "g.onnx", *shown[2:], "--json").json["sites"]]
    assert found == axes
    good("insert", tmp_path / "g.onnx", *shown, "-o", tmp_path / "f.onnx")
    assert [entry.site.batch for entry in plan_of(load_model(tmp_path / "f.onnx")).sites] == [BatchAxis(axis=1), None]
    good("faults", tmp_path / "g.onnx", *shown, "--save", tmp_path / "plan.json")
    assert FaultPlan.load(tmp_path / "plan.json").names == ("first", "last")
    of_plan = ["--plan", tmp_path / "plan.json", "-o", tmp_path / "f.onnx"]
    refused("insert", tmp_path / "g.onnx", *of_plan, words="'first' to lie otherwise (samples along axis 1)")
    good("insert", tmp_path / "g.onnx", *of_plan, "--batch-axis", 1)
    listed = good("faults", tmp_path / "f.onnx", "--site", "first", "--seed", 3, "--sample", 4).stdout
    assert "faults at first, seed 3, sample 4" in listed


def test_samples_that_a_graph_mixes(tmp_path):
    onnx.save(graph(["batch", 5, 6], node("ReduceMean", axes=[0])), tmp_path / "g.onnx")
    shown = ["--ber", 0.1, "-o", tmp_path / "f.onnx"]
    refused("insert", tmp_path / "g.onnx", *shown, words="--allow-obstacles")
    assert "adds them up" in good("sites", tmp_path / "g.onnx", "--json").json["obstacles"]["last"]
    good("insert", tmp_path / "g.onnx", *shown, "--allow-obstacles")
    assert plan_of(load_model(tmp_path / "f.onnx")).names == ("first",)


def test_sites_without_an_example_are_those_of_the_network():
    assert [site["name"] for site in good("sites", NETWORK, "--json").json["sites"]] == [
        site.name for site in sites(tokens_first())
    ]
