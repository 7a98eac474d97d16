"""Layers that share a quantizer but not the parameter: as many memories, each with a name and faults of its own."""

import copy

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8BiasPerTensorFloatInternalScaling
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwfault.codes import CodeFormat
from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.injection.statistics import Statistics
from hwfault.laws.models import BitFlips, MapFaults, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.fault_map import FaultMap, Kind
from tests.helpers.injection.oracle import Seen, faulty, same_bits

NAMES = ("a.weight_quant", "b.weight_quant", "deep.0.weight_quant")
FMT = CodeFormat(4, signed=True)
FLIPS = BitFlips(probability=0.1, sites={"kind": "weight"})


class Shared(nn.Module):
    """Three layers with one quantizer of weights; `order` is that of their runs."""

    def __init__(self, order=(0, 1, 2), by="constructor", bias=False):
        super().__init__()
        rules = {"bias": bias, "bias_quant": Int8BiasPerTensorFloatInternalScaling if bias else None}
        self.q = qnn.QuantIdentity(return_quant_tensor=True)
        self.a = qnn.QuantLinear(8, 8, weight_bit_width=4, return_quant_tensor=False, **rules)
        taken = {"weight_quant": self.a.weight_quant} if by == "constructor" else {"weight_bit_width": 4}
        if bias:
            rules["bias_quant"] = self.a.bias_quant
        self.b = qnn.QuantLinear(8, 8, **taken, **rules)
        self.deep = nn.Sequential(qnn.QuantLinear(8, 8, **taken, **rules))
        if by == "assignment":
            self.b.weight_quant = self.deep[0].weight_quant = self.a.weight_quant
        self.order = order

    def forward(self, x):
        layers = (self.a, self.b, self.deep[0])
        for i in self.order:
            x = layers[i](self.q(x))
        return x


def shared(**rules):
    torch.manual_seed(0)
    model = Shared(**rules)
    model(x())
    return model.eval()


def x():
    return torch.linspace(-1, 1, 24).reshape(3, 8)


def weights(model):
    return [site.name for site in sites(model) if site.kind == "weight"]


def struck(model, plan, seed=1):
    seen = Seen()
    with torch.no_grad(), inject(model, plan, seed=seed, observe=seen):
        out = model(x())
    return out, seen


def masks(seen):
    codes = {call.name: call.codes(FMT) for call in seen if call.name.endswith("weight_quant")}
    return {name: before ^ after for name, (before, after) in codes.items()}


@pytest.mark.parametrize("by", ["constructor", "assignment"])
def test_each_parameter_is_a_site_named_after_its_own_layer(by):
    model = shared(by=by)
    assert weights(model) == list(NAMES)
    assert [site.weights for site in sites(model, x()) if site.kind == "accumulator"] == [(8, 8)] * 3
    assert sites(model).notes == {}
    plan = resolve(sites(model), [FLIPS])
    assert len({plan.at(name).processes[0].site_number for name in NAMES}) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63), st.permutations([0, 1, 2]), st.lists(st.integers(0, 2), max_size=2))
def test_the_faults_are_those_of_the_name_whatever_the_order_of_the_runs(seed, order, again):
    model = shared(order=(*order, *again))
    plan = resolve(sites(model), [FLIPS])
    _, seen = struck(model, plan, seed)
    for call in seen:
        assert same_bits(call.after, faulty(plan, call, seed, range(3)))
        layer = model.get_submodule(call.name.removesuffix(".weight_quant"))
        assert same_bits(call.before, layer.weight_quant(layer.weight).value.detach())
    assert {call.name for call in seen} == set(NAMES)
    found = masks(seen)
    assert all(not np.array_equal(found[a], found[b]) for a in NAMES for b in NAMES if a < b)


def test_faults_at_one_of_them_leave_the_others_alone():
    model = shared()
    _, seen = struck(model, [BitFlips(probability=0.1, sites="b.weight_quant")])
    assert {call.name for call in seen} == {"b.weight_quant"}
    clean = model(x())
    # the words are those of a network whose layers have quantizers of their own, under the same name
    with torch.no_grad():
        by_hand = copy.deepcopy(model)
        by_hand.b.weight_quant = copy.deepcopy(by_hand.a.weight_quant)
        by_hand.b.weight_quant.register_forward_hook(lambda _m, _a, out: out._replace(value=seen[0].after))
    out, _ = struck(model, [BitFlips(probability=0.1, sites="b.weight_quant")])
    assert same_bits(out, by_hand(x()).detach())
    assert not same_bits(out, clean.detach())


def test_each_has_its_own_gradient():
    model, seen = shared().train(), Seen()
    with inject(model, [WordFaults(probability=0.2, sites="*.weight_quant")], seed=1, observe=seen):
        model(x()).square().sum().backward()
    calls = {call.name: call for call in seen}
    by_hand = shared().train()

    def replace(_module, args, out):
        name = next(n for n in NAMES if by_hand.get_submodule(n[:-13]).weight.data_ptr() == args[0].data_ptr())
        mask = calls[name].before != calls[name].after
        return out._replace(value=torch.where(mask, calls[name].after, out.value))

    by_hand.a.weight_quant.register_forward_hook(replace)
    by_hand(x()).square().sum().backward()
    for name in NAMES:
        one, other = (m.get_submodule(name[:-13]).weight.grad for m in (model, by_hand))
        mask = calls[name].before != calls[name].after
        assert mask.any()
        assert torch.equal(one, other)


def test_permanent_faults_lie_in_the_memory_that_they_name(tmp_path):
    model = shared()
    FaultMap.from_cells(64, 4, [3, 17], [1, 2], [Kind.FLIP, Kind.FLIP]).save(tmp_path / "map.npz")
    where = "b.weight_quant"
    _, seen = struck(model, [MapFaults(file=str(tmp_path / "map.npz"), sites=where), FLIPS.model_copy()])
    plan = resolve(sites(model), [MapFaults(file=str(tmp_path / "map.npz"), sites=where)])
    assert {call.name for call in seen} == set(NAMES)
    _, seen = struck(model, plan)
    (mask,) = masks(seen).values()
    expected = np.zeros(64, np.int64)
    expected[[3, 17]] = [2, 4]
    assert np.array_equal(mask.reshape(-1), expected)


def test_copies_are_clean_and_have_the_same_faults():
    model = shared()
    plan = resolve(sites(model), [FLIPS])
    with torch.no_grad(), inject(model, plan, seed=1):
        twin = copy.deepcopy(model)
        out = model(x())
    assert not attached(twin)
    assert same_bits(struck(twin, plan)[0], out)
    with torch.no_grad():
        assert same_bits(twin(x()), model(x()))


def test_a_part_of_a_network_has_the_sites_that_lie_in_it():
    model = shared()
    model.deep.forward = lambda given: model.b(model.deep[0](given))
    assert weights(model.deep) == ["0.weight_quant"]
    seen = Seen()
    with torch.no_grad(), inject(model.deep, [FLIPS], seed=1, observe=seen):
        model.deep(model.q(x()))
    assert [call.name for call in seen] == ["0.weight_quant"]
    assert same_bits(seen[0].before, model.a.weight_quant(model.deep[0].weight).value.detach())


def test_statistics_are_kept_for_each():
    model = shared()
    plan = resolve(sites(model), [FLIPS])
    statistics = Statistics(plan)
    with torch.no_grad(), inject(model, plan, seed=1, observe=statistics):
        model(x())
    found = {record.site: (record.words, record.faulty) for record in statistics.read()}
    assert found == {name: (64, int(np.count_nonzero(mask))) for name, mask in masks(struck(model, plan)[1]).items()}


def test_biases_too():
    model = shared(bias=True)
    names = [site.name for site in sites(model) if site.kind == "bias"]
    assert names == [name.replace("weight", "bias") for name in NAMES]
    _, seen = struck(model, [BitFlips(probability=0.2, sites={"kind": "bias"})])
    assert [call.name for call in seen] == names
    found = [np.bitwise_xor(*call.codes(CodeFormat(8, signed=True))) for call in seen]
    assert not any(np.array_equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_one_parameter_of_two_of_them_is_one_site():
    model = shared()
    model.b.weight = model.a.weight
    assert weights(model) == ["a.weight_quant", "deep.0.weight_quant"]
    _, seen = struck(model, [FLIPS])
    assert [call.name for call in seen] == ["a.weight_quant", "a.weight_quant", "deep.0.weight_quant"]


def test_one_storage_of_two_of_them_is_one_site_with_an_alias():
    model = shared()
    model.deep[0].weight.data = model.a.weight.data
    named = [(site.name, site.aliases) for site in sites(model) if site.kind == "weight"]
    assert named == [("a.weight_quant", ("deep.0.weight_quant",)), ("b.weight_quant", None)]
    _, seen = struck(model, [FLIPS])
    assert [call.name for call in seen] == ["a.weight_quant", "b.weight_quant", "a.weight_quant"]
    assert same_bits(seen[0].after, seen[2].after)


def test_a_parameter_that_is_none_of_theirs_is_refused():
    model = shared()
    with inject(model, [FLIPS], seed=1), pytest.raises(PlanError, match=r"none of them.*a quantizer of its own"):
        model.a.weight_quant(model.b.weight.detach().clone())


def test_a_quantizer_that_no_layer_has_for_its_own_is_no_site():
    model = nn.Module()
    model.quantizer = shared().a.weight_quant
    assert list(sites(model)) == []
    assert "cannot be told apart" in sites(model).obstacles["quantizer"]
    with pytest.raises(PlanError):
        inject(model, resolve(sites(shared()), [FLIPS]), seed=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dynamo warns about itself and about Brevitas
def test_compiled_graphs_are_broken_where_the_parameter_is_told():
    model = shared()
    with torch.no_grad(), inject(model, [FLIPS], seed=1):
        expected = model(x())
        assert same_bits(torch.compile(model, backend="eager")(x()), expected)
        torch.compiler.reset()
        with pytest.raises(Exception, match="cannot check which"):
            torch.compile(model, backend="eager", fullgraph=True)(x())
    torch.compiler.reset()
