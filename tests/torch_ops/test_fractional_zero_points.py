"""Zero points that are no integers: sums of such integers are none, so that nothing strikes or computes them so."""

import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8ActPerTensorFloatHQO,
    ShiftedUint8WeightPerChannelFloatHQO,
    ShiftedUint8WeightPerTensorFloatHQO,
)
from torch import nn

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.errors import PlanError
from hwfault.graph.export.of_network import export
from hwfault.graph.read import sites as graph_sites
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site, SitePlan
from hwfault.proof.replay import replay

# Brevitas says so of the outputs of such layers
pytestmark = pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator:UserWarning")

WHY = "have a zero point that is no integer"
X = torch.randn(8, 16, generator=torch.Generator().manual_seed(5))
KINDS = {
    "weights": (Int8ActPerTensorFloat, ShiftedUint8WeightPerTensorFloatHQO),
    "weights by channel": (Int8ActPerTensorFloat, ShiftedUint8WeightPerChannelFloatHQO),
    "inputs": (ShiftedUint8ActPerTensorFloatHQO, Int8WeightPerTensorFloat),
}


def network(kind):
    torch.manual_seed(1)
    act, weight = KINDS[kind]
    first = qnn.QuantIdentity(act_quant=act, return_quant_tensor=True)
    model = nn.Sequential(first, qnn.QuantLinear(16, 12, bias=False, weight_quant=weight))
    model(X)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_obstacles(kind):
    model = network(kind)
    zero_point = (model[0](X) if kind == "inputs" else model[1].quant_weight()).zero_point
    assert (zero_point != zero_point.round()).any(), "the case has none"
    found = sites(model, X)
    assert "1.accumulator" not in [site.name for site in found]
    assert WHY in found.obstacles["1.accumulator"]
    graph = export(model, X)
    own = graph_sites.sites(graph)
    assert not [site for site in own if site.kind == "accumulator"]
    assert any(WHY in why for why in own.obstacles.values())


def test_integer_zero_points_are_none():
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFloat, return_quant_tensor=True),
        qnn.QuantLinear(16, 12, bias=False, weight_quant=Int8WeightPerTensorFloat),
    )
    model(X)
    assert "1.accumulator" in [site.name for site in sites(model.eval(), X)]


@pytest.mark.parametrize("kind", KINDS)
def test_integer_arithmetic_leaves_the_layer(kind):
    model = network(kind)
    plain = model(X)
    with integer_arithmetic(model) as exact:
        assert torch.equal(getattr(model(X), "value", model(X)), getattr(plain, "value", plain))
    assert WHY in exact.left["1"]


def test_a_plan_that_strikes_such_sums_stops():
    """It was made for the network before its weights were quantized so."""
    model = network("weights")
    fields = {"bit_width": 20, "signed": True, "shape": (12,), "source": "0.act_quant", "weights": (12, 16)}
    site = Site(name="1.accumulator", kind="accumulator", layer="QuantLinear", worst_case=20, **fields)
    plan = FaultPlan(faults=(), sites=(SitePlan(site=site, processes=()),), tables=())
    with inject(model, plan, seed=1), pytest.raises(PlanError, match=WHY):
        model(X)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", KINDS)
def test_the_words_themselves_are_struck_alike_in_the_graph(kind):
    model = network(kind)
    plan = resolve(sites(model), [BitFlips(probability=0.05)])
    report = replay(model, export(model, X, plan=plan), [X], seeds=[0, 1, 2])
    assert not any(site.faults_differ or site.codes_differ for site in report.sites)
    assert all(site.faults_seen > 10 for site in report.sites)
