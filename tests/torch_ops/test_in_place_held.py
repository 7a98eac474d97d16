"""Where somebody else holds a tensor that faults would be written into, it is left alone: hooks, branches, caches."""

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8ActPerTensorFloat
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import quantizers
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import FAULTS, Seen, same_bits, spy
from tests.torch_ops.test_in_place import WAYS, assert_same_by_all_ways, by, gradients, same, trained


@pytest.mark.parametrize("way", [way for way in WAYS if way in ("extension", "in place")])
@pytest.mark.parametrize("keep", ["output", "value", "detached", "array"])
def test_what_hooks_keep_of_clean_outputs_stays_clean(keep, way):
    what = {
        "output": lambda out: out,
        "value": lambda out: getattr(out, "value", out),
        "detached": lambda out: getattr(out, "value", out).detach(),
        "array": lambda out: getattr(out, "value", out).detach().numpy(),
    }[keep]
    kept, clean = [], {}

    def keeping(model):
        spy(model, clean)
        for _, proxy in quantizers(model):
            proxy.register_forward_hook(lambda _m, _a, out: kept.append(what(out)))

    by(way, lambda: trained("residual", FAULTS["bits"], steps=1, before=keeping))
    expected = [value for values in zip(*clean.values(), strict=True) for value in values]
    found = [torch.as_tensor(getattr(one, "value", one)).detach() for one in kept]
    names = [list(clean)[i % len(clean)] for i in range(len(found))]
    assert len(found) == len(expected) > 4
    assert sorted(map(_bytes, found)) == sorted(map(_bytes, expected)), names


def _bytes(t):
    return t.numpy().tobytes()


def test_hooks_on_values_see_the_gradient_of_the_clean_value():
    def run():
        seen = []

        def watch(model):
            model[0].act_quant.register_forward_hook(lambda _m, _a, out: out.value.register_hook(seen.append) and None)
            model[3].act_quant.register_forward_hook(lambda _m, _a, out: out.value.retain_grad())

        return trained("cnn", FAULTS["bits"], steps=1, before=watch), seen

    assert_same_by_all_ways(run)


class TwoSites(nn.Module):
    """Two quantizers whose outputs are added up: one gradient for both, and for what is added beside them."""

    def __init__(self):
        super().__init__()
        self.one, self.other = (qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4) for _ in range(2))
        self.beside = nn.Parameter(torch.zeros(8, 72))

    def forward(self, x):
        x = x.flatten(1) * 1
        return (self.one(x) + self.other(x) + self.beside + x) * 2


@pytest.mark.parametrize("order", [0, 1])
def test_a_gradient_that_branches_share_is_whole_in_each(order):
    def run():
        model, x = TwoSites(), batch(8, seed=3).requires_grad_()
        faults = [BitFlips(probability=0.2, sites=["one.*", "other.*"][order])]
        with inject(model, faults, seed=7):
            model(x).square().sum().backward()
        return x.grad, gradients(model), model.beside.grad

    grad, _, beside = assert_same_by_all_ways(run)
    model, x = TwoSites(), batch(8, seed=3)
    seen = Seen()
    with inject(model, [BitFlips(probability=0.2, sites=["one.*", "other.*"][order])], seed=7, observe=seen):
        out = model(x)
    assert same_bits(beside, (4 * out).detach())  # the unstruck branch has all of its gradient
    assert grad.abs().sum() > 0


def test_both_branches_struck():
    def run():
        model, x = TwoSites(), batch(8, seed=3).requires_grad_()
        with inject(model, [BitFlips(probability=0.2)], seed=7):
            model(x).square().sum().backward()
        return x.grad, gradients(model)

    assert_same_by_all_ways(run)


def test_accumulated_and_retained_graphs():
    def run():
        model = build("residual").train()
        with inject(model, FAULTS["bits"], seed=7):
            for i in range(3):
                loss = model(batch(8, seed=i)).square().mean()
                loss.backward(retain_graph=True)
                loss.backward()
        return gradients(model)

    assert_same_by_all_ways(run)


def test_double_backward():
    def run():
        model, x = build("residual").train(), batch(8).requires_grad_()
        with inject(model, FAULTS["bits"], seed=7):
            (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
            gradient.square().sum().backward()
        return gradient, x.grad, gradients(model)

    gradient, second, _ = assert_same_by_all_ways(run)
    assert gradient.abs().sum() > 0
    assert second.abs().sum() > 0


def test_a_gradient_given_by_the_caller_is_left_alone():
    model = nn.Sequential(qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4))
    x, given = batch(8).requires_grad_(), torch.ones(8, 2, 6, 6)
    with inject(model, [BitFlips(probability=0.2)], seed=7):
        model(x).backward(given)
    assert (given == 1).all()
    assert (x.grad == 0).any()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_that_take_another_way_when_they_recompute(reentrant):
    def run(first="in place", second="in place"):
        model = build("cnn").train()
        x = batch(8).requires_grad_()
        with inject(model, FAULTS["several"], seed=7):
            out = by(first, lambda: checkpoint(model, x, use_reentrant=reentrant))
            by(second, lambda: functional.cross_entropy(out, torch.arange(8) % 5).backward())
        return out, x.grad, gradients(model)

    expected = run()
    for first in WAYS:
        for second in WAYS:
            assert same(run(first, second), expected), (first, second)


def test_tensors_that_autograd_hands_to_hooks():
    def run():
        with torch.autograd.graph.save_on_cpu():
            return trained("residual", FAULTS["several"])

    assert_same_by_all_ways(run)


def cached_weights(model):
    return [p._cached_weight.value for _, p in quantizers(model) if getattr(p, "_cached_weight", None) is not None]


@torch.no_grad()
def test_weights_that_are_cached_while_they_are_struck_are_clean():
    def run():
        model, twin, x = build("power_of_two"), build("power_of_two"), batch(8)
        for one in (model, twin):
            for _, proxy in quantizers(one):
                if hasattr(proxy, "cache_inference_quant_weight"):
                    proxy.cache_inference_quant_weight = True
        with inject(model, [WordFaults(probability=0.2)], seed=7):
            outs = [model(x) for _ in range(2)]
        clean = twin(x)
        assert len(cached_weights(model)) == 2
        assert same(cached_weights(model), cached_weights(twin))
        assert same_bits(model(x), clean)
        return outs

    assert_same_by_all_ways(run)
