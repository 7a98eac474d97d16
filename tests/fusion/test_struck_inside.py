"""Quantizers that strike their values in the same pass: what hooks make of them afterwards, to the bit."""

import copy
from contextlib import ExitStack

import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8WeightPerChannelFloat
from torch import nn
from torch.utils.checkpoint import checkpoint

import hwfault as hf
from hwfault.torch_ops.extension import extension, without_extension
from hwfault.train.networks.quantizers import activation
from tests.helpers.fusion.inside import WAYS, struck_by
from tests.helpers.fusion.whole import act
from tests.helpers.injection.oracle import same_bits
from tests.helpers.torch_ops.nodes import nodes_behind

FAULTS = {
    "sparse": [hf.BitFlips(probability=1e-3)],
    "dense": [hf.BitFlips(probability=0.2)],
    "by what is stored": [hf.BitFlips(p01=0.05, p10=0.01)],
    "two processes": [hf.BitFlips(probability=0.01), hf.BitFlips(p01=0.02, p10=0.02)],
}
X = torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def _built():
    assert extension() is not None, "run `python -m hwfault.fast`, as make install does"


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        activation(True, "float", 6, 3.0, return_quant_tensor=True),
        qnn.QuantConv2d(4, 6, 3, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=4, bias=True),
        activation(False, "float", 4, 2.0, return_quant_tensor=True),
        qnn.QuantConv2d(6, 5, 3, weight_bit_width=5, bias=False),
        nn.Flatten(),
    )


def step(faults, way, *, gradient="zero", train=True, x=X, hook=None, forward=None, twice=False, make=network):
    """Outputs and gradients of two steps, the names of the nodes, and what was called by ctypes."""
    net = make().train(train)
    found, names = [], []
    with ExitStack() as stack:
        calls = stack.enter_context(struck_by(way))
        if hook is not None:
            net[2].act_quant.register_forward_hook(hook)
        stack.enter_context(hf.fused(net))
        stack.enter_context(hf.inject(net, faults, seed=5, gradient=gradient, example=x))
        for _ in range(2):
            given = x.clone().requires_grad_()
            out = (forward or (lambda net, given: net(given)))(net, given)
            names = [node.name() for node in nodes_behind(out)]
            inputs = [given, *net.parameters()]
            loss = (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).square().sum()
            gradients = torch.autograd.grad(loss, inputs, create_graph=twice, allow_unused=True)
            if twice:
                squares = sum(g.square().sum() for g in gradients if g is not None)
                gradients = torch.autograd.grad(squares, inputs, allow_unused=True)
            found += [out.detach(), *[g for g in gradients if g is not None]]
    return found, names, calls


def check(faults, inside=4, **how):
    """All ways give the same bits; so many of 4 quantizers strike in the pass that makes their values."""
    found = {way: step(faults, way, **how) for way in WAYS}
    expected, names, calls = found["two passes"]
    assert not calls
    assert "HwfaultQuantizer" not in names
    for way in ("extension", "ctypes"):
        assert all(same_bits(a, b) for a, b in zip(found[way][0], expected, strict=True)), way
    _, names, calls = found["extension"]
    assert names.count("HwfaultQuantizer") == 4
    assert not calls
    _, struck, called = found["ctypes"]
    assert called.count("quantize_struck") == 2 * inside
    if how.get("gradient") != "straight_through":
        assert names.count("HwfaultZero") + names.count("_StruckBackward") == 4 - inside
        assert struck.count("_StruckBackward") == 4 - inside
        assert called.count("quantize_struck_gradient") == 2 * inside


@pytest.mark.every(2)
@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("faults", FAULTS)
def test_struck_as_by_hooks(faults, train, gradient):
    by_stored = faults == "by what is stored" and gradient == "zero"
    check(FAULTS[faults], 0 if by_stored else 4, train=train, gradient=gradient)


def test_faults_are_there():
    clean, _, _ = step([hf.BitFlips(probability=0.0)], "ctypes")
    assert not same_bits(step(FAULTS["sparse"], "ctypes")[0][0], clean[0])


@pytest.mark.parametrize("way", ["extension", "ctypes"])
def test_without_gradients(way):
    with_hooks = network().eval()
    inside = network().eval()
    with torch.no_grad(), struck_by(way) as calls, hf.fused(inside), hf.inject(inside, FAULTS["dense"], seed=1):
        found = [inside(X) for _ in range(2)]
    assert len(calls) == (4 if way == "ctypes" else 0), "the first forward is followed"
    with torch.no_grad(), without_extension(), hf.inject(with_hooks, FAULTS["dense"], seed=1):
        expected = [with_hooks(X) for _ in range(2)]
    assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(*found), "other samples have other faults"


def test_values_that_are_no_numbers():
    x = X.clone()
    x[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    check(FAULTS["dense"], x=x)


def test_gradients_that_lie_otherwise_than_the_values():
    x, by = torch.randn(64, 700), torch.randn(700, 64)
    given = act()
    found = {}
    for way in WAYS:
        layer = copy.deepcopy(given)
        with struck_by(way), hf.fused(layer), hf.inject(layer, FAULTS["sparse"], seed=1, example=x):
            own = x.clone().requires_grad_()
            gradients = torch.autograd.grad((layer(own).value.T * by).sum(), [own, *layer.parameters()])
        assert gradients[0].is_contiguous()
        found[way] = gradients
    for way in WAYS:
        assert all(same_bits(a, b) for a, b in zip(found[way], found["two passes"], strict=True)), way


def test_a_hook_that_comes_first_sees_clean_values():
    seen = {}

    def note(way):
        def hook(_module, _args, output):
            seen.setdefault(way, output[0].detach().clone())

        return hook

    for way in WAYS:
        step(FAULTS["dense"], way, hook=note(way))
    assert same_bits(seen["extension"], seen["two passes"])
    assert same_bits(seen["ctypes"], seen["two passes"])
    check(FAULTS["dense"], inside=3, hook=lambda *_: None)


@pytest.mark.parametrize("way", ["extension", "ctypes"])
def test_second_derivatives(way):
    found, _, _ = step(FAULTS["sparse"], way, twice=True)
    expected, _, _ = step(FAULTS["sparse"], "two passes", twice=True)
    for one, other in zip(found, expected, strict=True):  # autograd adds them up in another order
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_checkpoints():
    def forward(net, x):
        x = net[0](x)
        return net[4](net[3](checkpoint(lambda x: net[2](net[1](x)), x.value, use_reentrant=False)))

    def plain(net, x):
        return net[4](net[3](net[2](net[1](net[0](x).value))))

    for way in WAYS:
        found, expected = step_whole(forward, way), step_whole(plain, way)
        assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))


def step_whole(run, way):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = network()

        def forward(self, x):
            return run(self.layers, x)

    net, x = Whole(), X.clone().requires_grad_()
    with struck_by(way), hf.fused(net), hf.inject(net, FAULTS["dense"], seed=5, example=X):
        out = net(x)
        gradients = torch.autograd.grad(out.square().sum(), [x, *net.parameters()], allow_unused=True)
    return [out.detach(), *[g for g in gradients if g is not None]]


@pytest.mark.parametrize("way", ["extension", "ctypes"])
def test_hooks_that_are_not_called_leave_nothing_behind(way):
    """Values that were struck for a hook that never saw them do not keep the next ones from being struck."""
    net = network().eval()
    with torch.no_grad(), struck_by(way), hf.fused(net), hf.inject(net, FAULTS["dense"], seed=1):

        def stop(*_):
            raise RuntimeError("stopped")

        handle = net[0].act_quant.register_forward_hook(stop)
        net[0].act_quant._forward_hooks.move_to_end(handle.id, last=True)
        with pytest.raises(RuntimeError, match="stopped"):
            net(X)
        handle.remove()
        found = net(X)
    other = network().eval()
    with torch.no_grad(), without_extension(), hf.inject(other, FAULTS["dense"], seed=1) as injection:
        injection.first_sample = 3
        assert same_bits(found, other(X))
