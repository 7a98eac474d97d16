"""The extension's hooks: that they do the common case themselves, and leave all else to the hooks in Python."""

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Int8WeightPerTensorFloat, Int32Bias
from torch import nn
from torch.utils.checkpoint import checkpoint

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import SiteHook
from hwfault.laws.models import BitFlips
from hwfault.network.sites import quantizers, sites
from hwfault.plan.fault_plan import resolve
from hwfault.torch_ops.extension import extension, without_extension
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import FAULTS, same_bits
from tests.torch_ops.test_in_place import gradients, same

pytestmark = [
    pytest.mark.skipif(extension() is None, reason="the C++ extension is not built"),
    pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning"),
]


@pytest.fixture
def asked(monkeypatch):
    """The sites whose hooks in Python were called."""
    names, call = [], SiteHook.__call__

    def counted(self, proxy, args, output):
        names.append(self.name)
        return call(self, proxy, args, output)

    monkeypatch.setattr(SiteHook, "__call__", counted)
    return names


def both(run):
    """What `run` returns with the extension, which must be what it returns without."""
    with without_extension():
        expected = run()
    found = run()
    assert same(found, expected)
    return found


def step(model, x):
    out = model(x)
    out.square().sum().backward()
    return out, gradients(model)


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("shared", "twice")])
def test_the_common_case_asks_no_python(name, gradient, asked):
    model = build(name).train()
    with inject(model, FAULTS["bits"], seed=7, gradient=gradient):
        step(model, batch(8))
        with torch.no_grad():
            model(batch(8))
        with torch.inference_mode():
            model(batch(8))
    assert asked == []


def test_without_it_every_hook_is_python_s(asked):
    model = build("cnn")
    with without_extension(), inject(model, FAULTS["bits"], seed=7), torch.no_grad():
        model(batch(8))
    assert len(asked) == 4


@pytest.mark.parametrize("faults", ["asymmetric", "stuck"])
def test_where_stored_codes_decide_python_keeps_them_for_the_backward(faults, asked):
    model = build("cnn").train()
    with inject(model, FAULTS[faults], seed=7):
        step(model, batch(8))
    assert len(asked) == 4
    del asked[:]
    with inject(model, FAULTS[faults], seed=7), torch.no_grad():
        model(batch(8))
    assert asked == []


def changing(change):
    """Outputs of forwards between which something is set."""
    model = build("residual")
    found = []
    with inject(model, FAULTS["bits"], seed=7) as injection, torch.no_grad():
        for i in range(3):
            found.append(model(batch(8)))
            change(injection, i)
            found.append(model(batch(8)))
    return found


CHANGES = {
    "seed": lambda injection, i: setattr(injection, "seed", 100 + i),
    "hold": lambda injection, i: setattr(injection, "hold", [5, 6, None][i]),
    "samples": lambda injection, i: setattr(injection, "samples", [torch.arange(8) * 3, torch.arange(8), None][i]),
    "first sample": lambda injection, i: setattr(injection, "first_sample", 11 * i),
    "disabled": lambda injection, i: [injection.disable, injection.enable, injection.disable][i]("*weight*"),
    "enabled": lambda injection, i: setattr(injection, "enabled", i == 1),
    "plan": lambda injection, i: setattr(injection, "plan", other_plan(injection.plan, i)),
}


def other_plan(plan, i):
    entries = [entry.site for entry in plan.sites]
    return resolve(entries, [BitFlips(probability=[0.2, 0.0, 0.01][i])])


@pytest.mark.every(2)
@pytest.mark.parametrize("what", CHANGES)
def test_what_is_set_between_forwards_counts(what):
    found = both(lambda: changing(CHANGES[what]))
    assert any(not torch.equal(one, found[0]) for one in found)


@pytest.mark.every(2)
@pytest.mark.parametrize("what", CHANGES)
def test_what_is_set_within_a_forward_counts(what):
    """By a hook of the user's between two sites."""

    def run():
        model = build("residual")
        with inject(model, FAULTS["bits"], seed=7) as injection, torch.no_grad():
            sites_seen = [proxy for _, proxy in quantizers(model)]
            sites_seen[1].register_forward_hook(lambda *_: CHANGES[what](injection, 0) and None)
            return [model(batch(8)) for _ in range(2)]

    both(run)


def test_forwards_of_parts_and_of_other_batches():
    def run():
        model = build("cnn")
        with inject(model, FAULTS["bits"], seed=7), torch.no_grad():
            found = [model(batch(8)), model(batch(3)), model[0](batch(5)).value, model(batch(8))]
            model(batch(8))
            return [*found, model[0](batch(8)).value]

    both(run)


def test_a_quantizer_that_runs_twice_has_faults_of_its_own_in_each_run(asked):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4, return_quant_tensor=True)

        def forward(self, x):
            return self.q(x).value - self.q(x).value

    def run():
        torch.manual_seed(0)
        model = Twice()
        model(batch(8))
        model.eval()
        with inject(model, FAULTS["bits"], seed=7), torch.no_grad():
            return [model(batch(8)) for _ in range(2)]

    found = both(run)
    assert all(out.any() for out in found)


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
def test_runs_that_are_known_ask_no_python(gradient, asked):
    def run(example=None):
        model = build("twice").train()
        with inject(model, FAULTS["bits"], seed=7, gradient=gradient, example=example) as injection:
            first = step(model, batch(8))
            del asked[:]
            injection.disable("relu.act_quant#1")
            found = [first, step(model, batch(8))]
            with torch.no_grad():
                return [*found, model(batch(8)), model(batch(8))]

    for example in (None, batch(8)):  # without one the first forward has shown which runs there are
        both(lambda example=example: run(example))
        assert asked == []


def test_which_runs_a_checkpoint_holds_is_noted_by_python(asked):
    def run():
        model = build("twice").train()
        with inject(model, FAULTS["bits"], seed=7, example=batch(8)):
            out = checkpoint(model, batch(8), use_reentrant=False)
            out.square().sum().backward()
            return out, gradients(model)

    both(run)
    assert {name for name in asked if name.startswith("relu")}


class Turned(nn.Module):
    """Its quantizer is given values that do not lie in memory as their axes are."""

    def __init__(self):
        super().__init__()
        self.q = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4, return_quant_tensor=True)

    def forward(self, x):
        return self.q(x.transpose(1, -1)).value * 2


@pytest.mark.parametrize("differentiable", [True, False])
def test_values_are_struck_as_they_lie(differentiable):
    addresses = []

    def run():
        torch.manual_seed(0)
        model, x = Turned(), batch(8).requires_grad_(differentiable)
        model(x)
        proxy = model.q.act_quant
        with inject(model, FAULTS["bits"], seed=7, example=batch(8)):
            for prepend in (True, False):
                proxy.register_forward_hook(lambda *given: addresses.append(given[2][0].data_ptr()), prepend=prepend)
            out = model(x)
            if differentiable:
                out.square().sum().backward()
        assert out.stride() == x.transpose(1, -1).stride()
        return out, x.grad

    out, _ = both(run)
    assert addresses[0] == addresses[1]
    assert addresses[2] == addresses[3]
    assert not torch.equal(out, Turned()(batch(8)))


def test_attention(asked):
    """Its samples are folded into other axes, which do not lie in memory in their order."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = qnn.QuantMultiheadAttention(36, 2, batch_first=True, packed_in_proj=True)

        def forward(self, x):
            tokens = x.flatten(2)
            return self.attention(tokens, tokens, tokens)[0]

    def run():
        torch.manual_seed(0)
        model = Attention()
        with inject(model, FAULTS["bits"], seed=7, example=batch(8)):
            found = [step(model, batch(8))]
            model.eval()
            del asked[:]
            with torch.no_grad():
                return [*found, model(batch(8)), model(batch(3))]

    both(run)
    assert asked == []


def test_nothing_is_kept_for_the_backward_but_sample_numbers():
    kept = []
    model = build("cnn").train()
    with inject(model, FAULTS["bits"], seed=7):
        out = model(batch(8))
        nodes, seen = [out.grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            kept += [node.name()] if "Hwfault" in node.name() else []
            nodes += [below for below, _ in node.next_functions]
    assert kept == ["HwfaultZero"] * 4


def test_sites_of_a_plan_without_faults_cost_nothing_and_change_nothing(asked):
    model = build("cnn")
    clean = model(batch(8)).detach()
    plan = resolve(sites(model), [BitFlips(probability=0.0)])
    with inject(model, plan, seed=7), torch.no_grad():
        assert same_bits(model(batch(8)), clean)
    assert asked == []


def test_an_observer_is_shown_every_site(asked):
    model, seen = build("cnn"), []
    with inject(model, FAULTS["bits"], seed=7, observe=lambda name, *_: seen.append(name)), torch.no_grad():
        model(batch(8))
    assert sorted(seen) == sorted(asked)
    assert len(seen) == 4


@pytest.mark.parametrize("channels", [True, False])
def test_small_integers_in_wide_words(channels, asked):
    quantizer = Int8WeightPerChannelFloat if channels else Int8WeightPerTensorFloat

    def run(large=False):
        torch.manual_seed(0)
        layer = qnn.QuantLinear(
            6, 5, True, weight_quant=quantizer, bias_quant=Int32Bias, input_quant=Int8ActPerTensorFloat
        ).train()
        if large:
            layer.bias.data[2] = 1e6
        with inject(layer, FAULTS["bits"], seed=7):
            return step(layer, batch(4).flatten(1)[:, :6])

    found = both(run)
    assert found[0].isfinite().all()
    del asked[:]
    run()
    assert asked == []
    # one that may be that of two codes takes more than a glance
    with pytest.raises(PlanError, match="'bias_quant' do not tell their codes"):
        run(large=True)
