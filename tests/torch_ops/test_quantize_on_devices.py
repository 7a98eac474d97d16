"""The operator on a device, whose kernels run under Triton's interpreter here: what the native library computes."""

import pytest
import torch

from tests.helpers.stream.triton_here import OLDEST

pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")

import hwfault as hf
from hwfault.fusion.parts import int_quant
from hwfault.fusion.quantizer import OneOperator
from hwfault.stream.cuda import launch, launch_quantize
from hwfault.torch_ops import on_devices, quantize
from hwfault.torch_ops.extension import without_extension
from tests.helpers.fusion.inside import struck_by
from tests.helpers.injection.networks import cnn
from tests.helpers.injection.oracle import same_bits
from tests.helpers.stream.triton_calls import INTERPRETED, fast_or
from tests.torch_ops.test_quantize import SHAPES, both, random_case

X = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="a GPU is taken for the CPU here")


@pytest.fixture(autouse=True, scope="module")
def _fast():
    """The interpreter's time goes by the number of steps, so a block's words are taken at once."""
    with fast_or(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(launch.STRIKE, "WIDE", 1024)
        yield


@pytest.fixture
def as_device(monkeypatch):
    """The kernels in place of the native library; what they launched."""
    launched = []
    for name in ("quantize", "differentiate", "quantize_struck", "differentiate_struck"):
        plain = getattr(launch_quantize, name)
        noted = lambda *args, plain=plain, name=name: launched.append(name) or plain(*args)  # noqa: E731
        monkeypatch.setattr(launch_quantize, name, noted)
    monkeypatch.setattr(quantize, "on_device", lambda _x: True)
    monkeypatch.setattr(on_devices, "lacking_triton", lambda _device: "")
    return launched


@pytest.mark.parametrize(("shape", "scale_shape"), SHAPES)
def test_any_shape(as_device, shape, scale_shape):
    case = random_case(torch.Generator().manual_seed(1), shape, scale_shape)
    one, own = both(*case)
    assert as_device == ["quantize", "differentiate"]
    assert same_bits(own[0], one[0])
    assert same_bits(own[1], one[1])
    assert torch.allclose(own[2], one[2], rtol=1e-4, atol=1e-5)


def test_a_network(as_device, monkeypatch):
    net = cnn()
    net(X)
    net.eval()
    faults = hf.BitFlips(probability=0.05)
    with without_extension(), hf.fused(net) as block, hf.inject(net, faults), torch.no_grad():
        net(X)
        found = net(X)
        assert as_device == ["quantize_struck"] * 4
        assert block.left == {}
    monkeypatch.undo()
    with hf.inject(net, hf.BitFlips(probability=0.05)), torch.no_grad():
        net(X)
        assert torch.equal(net(X), found)


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
def test_training(as_device, gradient):
    """Faults strike in the pass that makes the values, and in one of their own by hooks."""
    ways = {}
    for way in ("ctypes", "two passes"):
        torch.manual_seed(0)
        net = cnn().train()
        x = X.clone().requires_grad_()
        del as_device[:]
        with struck_by(way), hf.fused(net), hf.inject(net, hf.BitFlips(probability=0.005), gradient=gradient):
            for _ in range(2):
                out = net(x)
                found = torch.autograd.grad(out.square().sum(), [x, *net.parameters()])
        ways[way] = out, *found
        assert as_device.count("quantize_struck") == (4 if way == "ctypes" else 0)
        zeros = way == "ctypes" and gradient == "zero"
        assert as_device.count("differentiate_struck") == (4 if zeros else 0)
    assert all(same_bits(one, other) for one, other in zip(*ways.values(), strict=True))


def test_a_device_without_triton(as_device, monkeypatch):
    monkeypatch.setattr(on_devices, "lacking_triton", lambda _device: "the GPU is too old for Triton")
    assert quantize.why_not(X, torch.tensor(0.1), torch.tensor(0.0)) == "the GPU is too old for Triton"


def test_the_ends_of_a_device_are_computed_anew_only_where_the_width_was_written():
    net = cnn()
    net(X)
    with hf.fused(net):
        operator = OneOperator.of(int_quant(net[1].weight_quant))
        width = torch.tensor(4.0)
        own = operator.module.signed, operator.module.narrow_range
        first = operator._ends_there(width.detach(), own)
        assert (float(first.least), float(first.most)) == (-7, 7)
        assert operator._ends_there(width.detach(), own) is first
        width.fill_(3)
        assert float(operator._ends_there(width.detach(), own).most) == 3
        assert float(operator._ends_there(torch.tensor(5.0), own).most) == 15
        with torch.inference_mode():
            assert float(operator._ends_there(torch.tensor(6.0), own).most) == 31
