"""Quantizers of a network that are no sites: listed with the reason, told by plans, never passed over."""

import brevitas.nn as qnn
import pytest
import torch
from brevitas.proxy.runtime_quant import DynamicActQuantProxyFromInjector
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat
from brevitas.quant.float_quant_ocp import Fp8e4m3OCPActPerTensorFloat, Fp8e4m3OCPWeightPerTensorFloat
from brevitas.quant.mx_quant_ocp import MXInt8Act, MXInt8Weight
from torch import nn

from hwfault.errors import ModelError, PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, bind
from hwfault.laws.obstacles import selected_obstacles
from hwfault.network.sites import sites
from hwfault.notices import spoken
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site, SiteList
from hwfault.program.selectors import Select


class DynamicAct(Int8ActPerTensorFloat):
    proxy_class = DynamicActQuantProxyFromInjector


X = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))


def two_layers(**first):
    """A layer that may have quantizers of any kind, and one that has plain ones."""
    one = {"weight_quant": Int8WeightPerTensorFloat, "bias": False} | first
    return nn.Sequential(qnn.QuantLinear(32, 32, **one), qnn.QuantIdentity(), qnn.QuantLinear(32, 3, bias=False)).eval()


KINDS = {
    "small floats": ({"weight_quant": Fp8e4m3OCPWeightPerTensorFloat}, "0.weight_quant", "integer quantizers only"),
    "small float inputs": ({"input_quant": Fp8e4m3OCPActPerTensorFloat}, "0.input_quant", "integer quantizers only"),
    "groups": ({"weight_quant": MXInt8Weight}, "0.weight_quant", "integer quantizers only"),
    "groups of inputs": ({"input_quant": MXInt8Act}, "0.input_quant", "integer quantizers only"),
    "dynamic": ({"input_quant": DynamicAct}, "0.input_quant", "computes its scale anew for each input"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantizer_that_is_no_site_is_not_the_end(kind):
    options, name, why = KINDS[kind]
    model = two_layers(**options)
    for found in (sites(model), sites(model, X)):
        assert why in found.obstacles[name]
        assert name not in [site.name for site in found]
        others = [site.name for site in found if not site.name.startswith("0.")]
        assert others[:2] == ["1.act_quant", "2.weight_quant"]


@pytest.mark.parametrize("layer", [qnn.QuantLSTM, qnn.QuantRNN])
def test_a_recurrent_layer_is_not_the_end(layer):
    model = nn.ModuleDict({"rnn": layer(4, 5), "head": qnn.QuantLinear(5, 3, bias=False)})
    found = sites(model)
    assert [site.name for site in found] == ["head.weight_quant"]
    assert found.obstacles
    assert all(name.startswith("rnn.") for name in found.obstacles)
    why = f"the recurrent layer 'rnn' ({layer.__name__}) runs its quantizers where no hook sees them"
    assert all(text.startswith(why) for text in found.obstacles.values())


def test_truncations_are_told():
    model = nn.Sequential(qnn.QuantIdentity(return_quant_tensor=True), qnn.TruncAvgPool2d(2), nn.Flatten())
    found = sites(model)
    assert [site.name for site in found] == ["0.act_quant"]
    assert "put a QuantIdentity behind it" in found.obstacles["1.trunc_quant"]


def test_layers_behind_dropout_and_transposed_convolutions_are_told():
    convolution = qnn.QuantConvTranspose2d(2, 2, 2, bias=False)
    model = nn.Sequential(
        qnn.QuantIdentity(), convolution, qnn.QuantIdentity(), nn.Flatten(), nn.Dropout(), qnn.QuantLinear(18, 3, False)
    ).eval()
    found = sites(model, torch.randn(1, 2, 2, 2))
    assert "QuantConvTranspose2d does not add up" in found.obstacles["1.accumulator"]
    assert "a dropout between the two leaves the grid" in found.obstacles["5.accumulator"]


def test_quantizers_that_are_switched_off_are_no_obstacles():
    model = two_layers(weight_quant=MXInt8Weight)
    model[0].weight_quant.disable_quant = True
    assert sites(model).obstacles == {}


def test_faults_on_everything_say_what_stays_without():
    model, said = two_layers(weight_quant=MXInt8Weight), list[str]()
    with spoken(said.append):
        plan = resolve(sites(model), [BitFlips(probability=0.0123)])
        assert resolve(sites(model), [BitFlips(probability=0.02)]).notes == plan.notes
    assert plan.names == ("1.act_quant", "2.weight_quant")
    (note,) = plan.notes
    assert note.startswith("1 of what the faults select are no sites and stay without faults: '0.weight_quant' (")
    assert said == [f"warning: {note}"], "once, and kept in the plan"
    assert f"  note: {note}" in str(plan)


def test_faults_on_other_sites_say_nothing():
    model, said = two_layers(weight_quant=MXInt8Weight), list[str]()
    with spoken(said.append):
        some = resolve(sites(model), [BitFlips(probability=0.01, sites=["2.*", {"kind": "activation"}])])
        # the first layer has no accumulator, which these faults do not ask for
        others = resolve(sites(two_layers(), X), [BitFlips(probability=0.01)])
    assert (said, some.notes, others.notes) == ([], None, None)


def test_accumulators_that_were_asked_for_are_told():
    said = list[str]()
    with spoken(said.append):
        plan = resolve(sites(two_layers(), X), [BitFlips(probability=0.01, sites={"kind": "accumulator"})])
    assert plan.notes is None
    assert "1 of what the faults select are no sites and stay without faults: '0.accumulator' (" in said[0]


def test_a_note_is_never_longer_than_a_plan_may_have():
    listed = SiteList([Site(name="a", kind="weight", bit_width=2, signed=True)], {"b": "x" * 5000})
    (note,) = resolve(listed, [BitFlips(probability=0.1)]).notes
    assert len(note) == 2000


def test_injection_tells_it_too():
    model, said = two_layers(input_quant=DynamicAct), list[str]()
    faults = [BitFlips(probability=0.5)]
    with spoken(said.append), torch.no_grad(), inject(model, faults, seed=1) as injection:
        faulty = model(X)
    assert "'0.input_quant'" in said[0]
    assert "'0.input_quant'" in injection.plan.notes[0]
    assert (faulty != model(X)).any()


@pytest.mark.parametrize("selected", ["0.weight_quant", {"name": "0.*", "kind": "weight"}, "0.*"])
def test_faults_on_nothing_else_are_an_error_that_says_why(selected):
    model = two_layers(weight_quant=MXInt8Weight)
    with pytest.raises(ModelError, match=r"no site matches .*: 0.weight_quant: .*integer quantizers only"):
        resolve(sites(model), [BitFlips(probability=0.1, sites=selected)])


def test_a_plan_that_names_one_is_refused_with_the_reason():
    plan = resolve([Site(name="0.weight_quant", kind="weight", bit_width=8, signed=True)], [BitFlips(probability=0.1)])
    model = two_layers(weight_quant=MXInt8Weight)
    with pytest.raises(PlanError, match=r"'0.weight_quant', which is none in the network: .*integer quantizers only"):
        inject(model, plan, seed=1)


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ({}, {"a.weight_quant", "a.act_quant", "lost"}),
        ({"kind": "weight"}, {"a.weight_quant", "lost"}),
        ({"kind": "accumulator"}, {"a.accumulator"}),
        ({"name": "*accumulator"}, {"a.accumulator"}),
        ({"name": "a.*"}, {"a.weight_quant", "a.act_quant"}),
        ({"name": "b.*"}, set()),
    ],
)
def test_what_a_selector_means_of_what_is_no_site(selector, meant):
    none = dict.fromkeys(["a.weight_quant", "a.act_quant", "a.accumulator", "lost"], "why")
    listed = SiteList([], none)
    faults = bind([BitFlips(probability=0.1, sites=Select(**selector))])
    assert selected_obstacles(listed, faults).keys() == meant
    assert selected_obstacles([], faults) == {}
