"""Whole networks, fused and not: training, faults in both gradient modes, checkpoints, compilers and exports."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import hwfault as hf
from hwfault.errors import PlanError
from hwfault.injection.injection import Injection
from hwfault.train import networks
from tests.fusion.test_fused_equal import hold_scales
from tests.helpers.fusion.inside import struck_by
from tests.helpers.injection.networks import biased, compiled_soon, per_channel
from tests.helpers.injection.oracle import same_bits
from tests.slowly import slow

FLIPS = hf.BitFlips(probability=0.02)
DIGITS = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def resnet():
    return networks.build("resnet20", weight_bits=4, act_bits=4)


def resnet_of_channels():
    return networks.build("resnet20", weight_bits=3, act_bits=4, scaling="per_channel")


NETWORKS = {
    "digits": (networks.digits_cnn, DIGITS),
    "resnet": (resnet, IMAGES),
    "resnet per channel": (resnet_of_channels, IMAGES),
    "biases": (biased, torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))),
    "transposed, per channel": (per_channel, torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))),
}


COMPILED = {"compiled soon": (compiled_soon, torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0)))}


def made(name):
    """Twice the same network, after a first forward; and its inputs.

    Where scales are statistics of the inputs, which their gradients would reach, they pass none.
    """
    build, x = (NETWORKS | COMPILED)[name]
    torch.manual_seed(0)
    net = build()
    net(x)
    if build in (biased, per_channel):
        hold_scales(net)
    return net, copy.deepcopy(net), x


def step(net, x):
    """Outputs, the gradient of the inputs, and the parameters after one step of SGD."""
    given = x.clone().requires_grad_()
    out = net(given)
    target = torch.arange(len(x)) % out.shape[1]
    net.zero_grad()
    nn.functional.cross_entropy(out, target).backward()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    return out.detach(), given.grad, dict(net.named_parameters())


def check_equal(one, other):
    assert same_bits(one[0], other[0])
    assert same_bits(one[1], other[1])
    for name, parameter in one[2].items():
        assert torch.allclose(other[2][name], parameter, rtol=1e-6, atol=1e-6), name


@pytest.mark.every(2)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_of_training(name, train):
    brevitas, own, x = made(name)
    expected = step(brevitas.train(train), x)
    with hf.fused(own) as block:
        check_equal(expected, step(own.train(train), x))
        assert block.left == {}
        assert len(block.fused) >= 4
    assert [n for n, _ in own.named_buffers()] == [n for n, _ in brevitas.named_buffers()]
    for (name, one), (_, other) in zip(brevitas.named_buffers(), own.named_buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.every(5)
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("name", ["digits", "biases", "transposed, per channel"])
def test_faults(name, gradient, inside):
    brevitas, own, x = made(name)
    seen = [], []

    def watch(where):
        return lambda name, before, after, *_: where.append((name, before.clone(), after.clone()))

    with hf.inject(brevitas, FLIPS, seed=3, gradient=gradient):
        brevitas(x)
        expected = step(brevitas, x)
    first, second = (hf.fused, lambda net: hf.inject(net, FLIPS, seed=3, gradient=gradient))[:: 1 if inside else -1]
    with first(own), second(own):
        own(x)
        check_equal(expected, step(own, x))
    for net, where in zip((brevitas, own), seen, strict=True):
        with hf.fused(own), hf.inject(net, FLIPS, seed=4, observe=watch(where)), torch.no_grad():
            net.eval()(x)
            own.load_state_dict(brevitas.state_dict())
    assert [site for site, *_ in seen[0]] == [site for site, *_ in seen[1]]
    for (_, *one), (_, *other) in zip(*seen, strict=True):
        assert all(map(same_bits, one, other))
    assert any(not torch.equal(before, after) for _, before, after in seen[1])


@pytest.mark.parametrize("grad", [True, False])
def test_faults_strike_in_place(monkeypatch, grad):
    _, net, x = made("digits")
    seen = []
    strike = Injection.strike

    def noted(self, name, value, scale, zero_point, unheld=False, now=None):
        out = strike(self, name, value, scale, zero_point, unheld, now)
        seen.append((unheld, out.data_ptr() == value.data_ptr()))
        return out

    with struck_by("two passes"), hf.fused(net), hf.inject(net, FLIPS), torch.set_grad_enabled(grad):
        net(x)  # the first forward of an injection is watched
        monkeypatch.setattr(Injection, "strike", noted)
        net(x)
    assert len(seen) == len(hf.sites(net))
    assert set(seen) == {(True, True)}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("faulty", [True, False])
def test_checkpoints(reentrant, faulty):
    one, other, x = made("digits")
    plain = _outputs_and_gradient(one, x, faulty, lambda model, x: model(x))
    again = _outputs_and_gradient(other, x, faulty, lambda model, x: checkpoint(model, x, use_reentrant=reentrant))
    assert torch.equal(plain[0], again[0])
    assert torch.equal(plain[1], again[1])


def _outputs_and_gradient(model, x, faulty, run):
    x = x.clone().requires_grad_()
    with hf.fused(model.eval()) as block, hf.inject(model, FLIPS if faulty else [], seed=1):
        with torch.no_grad():
            model(x)  # the first forward under an injection is watched
        out = run(model, x)
        out.sum().backward()
        assert block.left == {}
    return out.detach(), x.grad


def test_a_checkpoint_that_is_recomputed_after_the_block_is_refused():
    _, net, x = made("digits")
    with hf.fused(net):
        out = checkpoint(net, x.clone().requires_grad_(), use_reentrant=False)
    with pytest.raises(torch.utils.checkpoint.CheckpointError, match="different"):
        out.sum().backward()


def test_a_backward_pass_after_the_block():
    brevitas, own, x = made("digits")
    expected = step(brevitas, x)
    given = x.clone().requires_grad_()
    with hf.fused(own):
        out = own(given)
    nn.functional.cross_entropy(out, torch.arange(6)).backward()
    assert torch.equal(given.grad, expected[1])


def test_values_that_are_overwritten_before_the_backward_pass():
    _, net, x = made("digits")
    given = x.clone().requires_grad_() * 1
    with hf.fused(net):
        out = net(given)
        given.detach().zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of the compiler about Brevitas' functions
@pytest.mark.parametrize(("name", "count"), [("compiled soon", 2), slow("digits", 8)])
def test_a_compiled_network(name, count):
    brevitas, own, x = made(name)
    expected = brevitas.eval()(x)
    compiled = torch.compile(own.eval(), backend="eager")
    with hf.fused(compiled) as block:
        assert len(block.fused) == count
        assert torch.allclose(compiled(x), expected)
        assert torch.equal(own(x), expected)
        given = x.clone().requires_grad_()
        compiled.train()(given).sum().backward()
        assert given.grad.any()
    assert torch.allclose(compiled.eval()(x), expected)


@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_an_export(arithmetic):
    brevitas, own, x = made("digits")
    graph = hf.export(brevitas.eval(), x, arithmetic=arithmetic)
    with hf.fused(own):
        assert hf.export(own.eval(), x, arithmetic=arithmetic) == graph


def test_integer_arithmetic():
    brevitas, own, x = made("digits")
    with hf.integer_arithmetic(brevitas.eval()), torch.no_grad():
        expected = brevitas(x)
    with hf.fused(own), hf.integer_arithmetic(own.eval()), torch.no_grad():
        assert torch.equal(own(x), expected)


def test_sites_and_plans_are_those_of_the_network():
    brevitas, own, x = made("resnet")
    with hf.fused(own):
        assert hf.resolve(hf.sites(own, x), [FLIPS]) == hf.resolve(hf.sites(brevitas, x), [FLIPS])


def test_a_network_that_is_dropped_is_freed():
    _, net, x = made("digits")
    block = hf.fused(net)
    gone = weakref.ref(net)
    net(x)
    del net, block
    gc.collect()
    assert gone() is None


def test_a_checkpointed_first_forward_that_is_followed_is_refused():
    _, net, x = made("digits")
    said = "gradient checkpointing of a first forward without an example"
    with hf.fused(net), hf.inject(net, FLIPS, seed=1), pytest.raises(PlanError, match=said):
        checkpoint(net, x.clone().requires_grad_(), use_reentrant=False)
    with hf.fused(net), hf.inject(net, FLIPS, seed=1, example=x):
        checkpoint(net, x.clone().requires_grad_(), use_reentrant=False).sum().backward()


def test_nothing_writes_to_the_flags_that_quantizers_share():
    _, net, x = made("digits")
    quantized = []
    for name, proxy in list(net.named_modules()):
        if name.endswith("act_quant"):
            proxy.register_forward_hook(lambda _module, _args, output: quantized.append(output))
    with hf.fused(net), hf.inject(net, FLIPS, seed=1, example=x):
        quantized.clear()
        step(net, x)
        step(net.eval(), x)
    one = quantized[0]
    for other in (one + one, one * one, -one, one.transpose(1, 2), torch.cat([one, one], dim=0), one.detach()):
        assert other.value.shape
    shared = {id(flag): flag for output in quantized for flag in (output.signed_t, output.training_t)}
    assert len(shared) == 2
    assert [flag._version for flag in shared.values()] == [0, 0]
    assert {bool(flag) for flag in shared.values()} == {True, False}
