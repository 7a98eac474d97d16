"""A network of which the quantizers run as one operator each: what is attached, what comes back, what copies get."""

import copy
import pickle

import pytest
import torch
from brevitas import nn as qnn
from brevitas.core.function_wrapper import FloorSte
from brevitas.core.quant.int_base import IntQuant
from torch import nn

import hwfault as hf
from hwfault.errors import HwfaultError
from hwfault.fusion.parts import int_quant, quantizers
from hwfault.fusion.quantizer import OneOperator
from hwfault.train import networks
from tests.helpers.injection.networks import biased, cnn, power_of_two
from tests.helpers.injection.oracle import same_bits
from tests.helpers.injection.snapshot import snapshot

X = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net():
    torch.manual_seed(0)
    network = cnn()
    network(X)
    return network


def operators(model):
    return [module for module in model.modules() if OneOperator.of(module)]


def test_each_quantizer_runs_as_one_operator(net):
    with hf.fused(net) as block:
        net(X)
        assert block.left == {}
        assert block.fused == ("0.act_quant", "1.weight_quant", "3.act_quant", "5.weight_quant")
        assert len(operators(net)) == 4


def test_the_operator_runs_in_place_of_brevitas_steps(net, monkeypatch):
    ran = []
    monkeypatch.setattr(IntQuant, "to_int", lambda *_: ran.append(1) or pytest.fail("Brevitas' own"))
    with hf.fused(net):
        net(X).sum().backward()
    assert not ran


def test_everything_is_as_it_was_afterwards(net):
    keys, out = list(net.state_dict()), net.eval()(X)
    net.train()
    before = snapshot(net)
    with hf.fused(net):
        assert list(net.state_dict()) == keys
        net.eval()(X)
        net.train()
    assert snapshot(net) == before
    assert not operators(net)
    assert all(not m._load_state_dict_post_hooks for m in net.modules())
    assert torch.equal(net.eval()(X), out)


def test_everything_is_as_it_was_after_an_error(net, monkeypatch):
    before = snapshot(net)
    with pytest.raises(ZeroDivisionError), hf.fused(net):
        raise ZeroDivisionError
    assert snapshot(net) == before

    def fails(self, module):
        raise ZeroDivisionError

    monkeypatch.setattr(OneOperator, "__init__", fails)
    with pytest.raises(ZeroDivisionError):
        hf.fused(net)
    assert snapshot(net) == before
    assert not any(m._load_state_dict_post_hooks for m in net.modules())


def test_without_a_block(net):
    block = hf.fused(net)
    assert operators(net)
    block.remove()
    block.remove()
    assert not operators(net)
    assert block.fused == ()
    assert set(block.left.values()) == {"the block was left"}
    with pytest.raises(HwfaultError, match="was left already; begin another one"), block:
        pass


def test_twice_is_refused(net):
    sentence = r"the quantizer '.*' is fused already; leave the `with fused"
    with hf.fused(net) as block:
        for part in (net, net[1], nn.Sequential(net)):
            with pytest.raises(HwfaultError, match=sentence):
                hf.fused(part)
        assert len(block.fused) == 4
    with hf.fused(net[1]):
        pass


@pytest.mark.parametrize("given", [None, "network", torch.zeros(2)])
def test_what_is_no_network(given):
    with pytest.raises(HwfaultError, match=r"expected a torch.nn.Module with Brevitas quantizers"):
        hf.fused(given)


def test_a_network_without_quantizers():
    with hf.fused(nn.Linear(2, 3)) as block:
        assert (block.fused, block.left) == ((), {})


def test_copies_are_clean(net):
    with hf.fused(net):
        other = copy.deepcopy(net)
        assert operators(net)
        assert not operators(other)
        assert not any(m._load_state_dict_post_hooks for m in other.modules())
        assert torch.equal(other.eval()(X), net.eval()(X))
        assert list(other.state_dict()) == list(net.state_dict())
    with hf.fused(other) as block:
        assert len(block.fused) == 4


def test_what_is_pickled_is_clean(net):
    step = int_quant(net[0].act_quant)
    with hf.fused(net):
        other = pickle.loads(pickle.dumps(step))  # noqa: S301  # written here
        assert OneOperator.of(step)
    assert type(other) is IntQuant
    assert "forward" not in vars(other)


def test_an_operator_alone_is_not_copied(net):
    with hf.fused(net), pytest.raises(HwfaultError, match="copied or pickled"):
        copy.copy(vars(int_quant(net[0].act_quant))["forward"])


def test_a_loaded_state_keeps_its_quantizers_fused(net):
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    inner = {name: int_quant(proxy) for name, proxy in quantizers(net)}
    with hf.fused(net) as block:
        net.load_state_dict(other.state_dict())
        assert all(int_quant(proxy) is not inner[name] for name, proxy in quantizers(net)), "Brevitas builds them anew"
        assert len(block.fused) == 4
        assert not any(OneOperator.of(module) for module in inner.values())
        assert torch.equal(net.eval()(X), other.eval()(X))
        assert block.left == {}
    assert not operators(net)


def test_a_loaded_state_may_leave_a_quantizer_to_brevitas(net):
    proxy = net[3].act_quant
    proxy.quant_injector = proxy.quant_injector.let(float_to_int_impl=FloorSte)
    with hf.fused(net) as block:
        net.load_state_dict(net.state_dict())
        assert block.left == {"3.act_quant": "its rounding is a FloorSte, expected RoundSte"}
        proxy.quant_injector = proxy.quant_injector.let(
            float_to_int_impl=type(int_quant(net[0].act_quant).float_to_int_impl)
        )
        net[3].load_state_dict(net[3].state_dict())
        assert block.left == {}


def test_parts_that_are_built_anew_otherwise_are_looked_at_again(net):
    with hf.fused(net) as block:
        net[3].act_quant.init_tensor_quant()
        assert block.left == {}
        fused = net.eval()(X)
    assert same_bits(net.eval()(X), fused)
    assert not operators(net)


def test_layers_that_share_a_quantizer():
    torch.manual_seed(0)
    first = qnn.QuantLinear(6, 6, bias=False, weight_bit_width=4)
    net = nn.Sequential(first, qnn.QuantLinear(6, 6, bias=False, weight_quant=first.weight_quant))
    x = torch.randn(3, 6)
    expected = net(x)
    with hf.fused(net) as block:
        assert block.fused == ("0.weight_quant",)
        assert torch.equal(net(x), expected)
        net.load_state_dict(net.state_dict())
        assert block.fused == ("0.weight_quant",)
    assert not operators(net)


def test_quantizers_that_share_their_steps(net):
    one, other = (net[i].act_quant.fused_activation_quant_proxy for i in (0, 3))
    other.tensor_quant.int_quant = one.tensor_quant.int_quant
    expected = net.eval()(X)
    with hf.fused(net) as block:
        assert len(operators(net)) == 3
        assert len(block.fused) == 4
        assert torch.equal(net(X), expected)
        net[3].load_state_dict(net[3].state_dict())  # which has steps of its own now
        assert len(operators(net)) == 4
        assert len(block.fused) == 4
    assert not operators(net)


def test_a_hook_on_the_whole_step_still_runs(net):
    seen = []
    step = int_quant(net[3].act_quant)
    step.register_forward_hook(lambda _m, _a, out: seen.append(out))
    with hf.fused(net) as block:
        net(X)
        assert "3.act_quant" in block.fused
    assert len(seen) == 1


@pytest.mark.parametrize("build", [biased, power_of_two])
def test_averaged_weights(build):
    torch.manual_seed(0)
    net = build()
    net(X)
    with hf.fused(net):
        averaged = torch.optim.swa_utils.AveragedModel(net)
    assert not operators(averaged)


def test_in_the_forward_of_another_network():
    net = networks.digits_cnn()
    x = torch.randn(2, 1, 8, 8)
    net(x)
    with hf.fused(nn.DataParallel(net)) as block:
        assert not block.left
        assert operators(net)
