"""The version of the fault stream that a bundle says: all that was recorded needs no more, and nothing reads less."""

import json

import numpy as np
import onnx
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import (
    Int8ActPerTensorFloat,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloatHQO,
)
from torch import nn

from hwfault.errors import FileError, GraphError
from hwfault.graph.read.qonnxgraph import set_metadata
from hwfault.graph.read.versions import NEW, OLD, SPEC
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.check import check
from hwfault.proof.manifest import FAULTED_GRAPH, MANIFEST
from hwfault.proof.record import write_bundle
from tests.helpers.proof.bundles import opened, rewritten, with_manifest
from tests.slowly import slow

X = torch.linspace(-1, 1, 32).reshape(2, 16)


def network(weight_quant=None, act_quant=Int8ActPerTensorFloat):
    torch.manual_seed(0)
    rules = {} if weight_quant is None else {"weight_quant": weight_quant}
    first = qnn.QuantIdentity(act_quant=act_quant)
    model = nn.Sequential(first, qnn.QuantLinear(16, 4, bias=False, **rules))
    model(X)
    return model.eval()


def recorded(path, model, x=X, select=None):
    """A bundle, clean, or with faults at one site."""
    plan = None if select is None else resolve(sites(model, X), [BitFlips(probability=0.2, sites=select)])
    write_bundle(path, model, x, plan=plan, seeds=() if plan is None else (1,))
    return path


def said(path):
    return json.loads((path / MANIFEST).read_text())["spec"]


@pytest.mark.parametrize("select", [None, slow("0.act_quant"), "1.weight_quant"])
def test_codes_of_fractional_zero_points_need_the_new_one_struck_or_not(select, tmp_path):
    assert said(recorded(tmp_path / "old", network(), select=select)) == OLD
    assert said(recorded(tmp_path / "whole", network(act_quant=ShiftedUint8ActPerTensorFloat), select=select)) == OLD
    new = recorded(tmp_path / "new", network(ShiftedUint8WeightPerTensorFloatHQO), select=select)
    assert said(new) == NEW
    # the outputs behind them are sums of floats, whose last bits differ from engine to engine on some processors
    sites = [site for run in check(opened(new)).runs for site in run.sites]
    assert len(sites) >= 2
    assert not any(site.codes_differ or site.faults_differ for site in sites)


def test_so_do_values_that_are_no_numbers(tmp_path):
    x = X.clone()
    x[1, 3] = torch.nan
    assert said(recorded(tmp_path / "b", network(), x)) == NEW


@pytest.mark.parametrize("select", [None, "0.act_quant", "1.weight_quant"])
def test_a_manifest_that_says_less_is_refused(select, tmp_path):
    folder = recorded(tmp_path / "b", network(ShiftedUint8WeightPerTensorFloatHQO), select=select)
    with_manifest(folder, lambda manifest: manifest.update(spec=OLD))
    words = r"faulted.onnx needs 'fault-stream v1.1'" if select == "1.weight_quant" else r"1.weight_quant' has a zero"
    with pytest.raises(FileError, match=words):
        check(opened(folder), which="clean" if select is None else "faulty")


def test_a_graph_beside_it_that_needs_more_is_refused(mine):
    graph = onnx.load(mine / FAULTED_GRAPH)
    set_metadata(graph, {SPEC: NEW})
    rewritten(mine, FAULTED_GRAPH, graph.SerializeToString())
    needed = json.loads((mine / MANIFEST).read_text())["spec"]
    if needed == OLD:
        with pytest.raises(FileError, match=rf"manifest.json says '{OLD}', but {FAULTED_GRAPH} needs '{NEW}'"):
            check(opened(mine), which="faulty")
    set_metadata(graph, {SPEC: "fault-stream v3"})
    rewritten(mine, FAULTED_GRAPH, graph.SerializeToString())
    with pytest.raises(GraphError, match="are those of 'fault-stream v3'"):
        check(opened(mine), which="faulty")


def test_a_plan_that_needs_more_is_refused_also_where_a_runner_answers(tmp_path):
    quantizer = qnn.QuantIdentity(bit_width=4)
    model = nn.Sequential(quantizer, nn.ReLU(), quantizer).eval()
    folder = recorded(tmp_path / "b", model, select="*")
    text = (folder / MANIFEST).read_text()
    assert said(folder) == NEW
    manifest = json.loads(text)
    for entry in manifest["sites"]:  # else the manifest itself would tell
        entry["site"].pop("runs", None)
    (folder / MANIFEST).write_text(json.dumps(manifest | {"spec": OLD}))
    with pytest.raises(FileError, match=r"plan.json needs 'fault-stream v1.1'"):
        check(opened(folder), runner=lambda arrays: np.zeros((2, 16), np.float32))
