"""Whole quantizers under what torch does with networks: modes, transforms, compilers, copies, threads, checkpoints."""

import copy
import threading
from contextlib import nullcontext

import pytest
import torch
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
from torch import nn
from torch.autograd import forward_ad
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import hwfault as hf
from hwfault.fusion.whole import WholeQuantizer
from hwfault.torch_ops.extension import without_extension
from hwfault.torch_ops.lying import is_dense
from hwfault.train import networks
from tests.helpers.fusion.variants import activation
from tests.helpers.fusion.whole import (
    CONSTANT,
    LEARNED,
    X,
    act,
    by_brevitas,
    lies,
    linear,
    proxy_of,
    quantize,
    same,
    ways,
)
from tests.helpers.injection.oracle import same_bits

BUILDS = {
    "learned": act,
    "constant": lambda: act(CONSTANT),
    "rectified": lambda: activation("rectified", "parameter", "log", "limit").layer,
    "statistics": lambda: act(Uint8ActPerTensorFloat, min_val=None, max_val=None),
    "weights": linear,
    "channels": lambda: linear(Int8WeightPerChannelFloat),
}
LAYERS = pytest.mark.parametrize("name", BUILDS)


def x_of(name):
    return None if name in ("weights", "channels") else X


def evaluated(name):
    layer = BUILDS[name]()
    if name == "statistics":
        for _ in range(2):
            layer(X)
    return layer.eval()


@LAYERS
def test_modes_without_gradients(name, monkeypatch):
    layer, x = evaluated(name), x_of(name)
    expected = quantize(layer, x)
    for mode in (torch.no_grad, torch.inference_mode):
        with hf.fused(layer), mode(), ways(monkeypatch) as ran:
            found = quantize(layer, x)
            assert all(map(torch.equal, found, expected))
            assert found.value.is_inference() == (mode is torch.inference_mode)
            assert same_bits(quantize(layer, (layer.weight if x is None else x) * 1).value, expected.value)
        assert len(ran) == 2


@LAYERS
def test_parameters_that_were_made_in_inference_mode(name):
    with torch.inference_mode():
        layer = evaluated(name)
        with hf.fused(layer):
            for _ in range(2):
                found, expected = quantize(layer, x_of(name)), by_brevitas(layer, x_of(name))
                assert all(map(torch.equal, found, expected))


@LAYERS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(name, dtype):
    layer = evaluated(name)
    given = [layer.weight] if x_of(name) is None else [X, X.to(dtype), X @ torch.eye(6)]
    with hf.fused(layer), torch.autocast("cpu", dtype):
        for x in given:
            assert same(quantize(layer, x), by_brevitas(layer, x))


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_numbers(name, dtype):
    layer = evaluated(name)
    x = (layer.weight if x_of(name) is None else X).to(dtype)
    with hf.fused(layer):
        assert same(quantize(layer, x), by_brevitas(layer, x))
        assert str(dtype) in WholeQuantizer.of(proxy_of(layer)).why
        assert same(quantize(layer, x.float()), by_brevitas(layer, x.float()))
        assert WholeQuantizer.of(proxy_of(layer)).why is None


PLACES = {
    "last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "all axes in another order": lambda x: x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    "sliced": lambda x: torch.cat([x, x], 1)[:, ::2],
    "expanded": lambda x: x[:1].expand(3, 4, 5, 2),
    "one channel, last": lambda x: x[:, :1].contiguous(memory_format=torch.channels_last),
    "of a larger one": lambda x: torch.cat([x, x])[3:],
    "negated": lambda x: torch._neg_view(x),
    "nothing": lambda x: x[:0].contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["signed", "rectified"])
def test_how_values_lie(kind, place):
    variant = activation(kind, "parameter", "float", "no limit")
    layer, x = variant.layer, PLACES[place](variant.x)
    alike = torch.randn(x.shape).as_strided(x.shape, x.stride()) if is_dense(x) else torch.randn(x.shape)
    for by in (torch.randn(x.shape), PLACES["last"](torch.randn(x.shape)), torch.tensor(2.0).expand(x.shape), alike):
        gradients = []
        with hf.fused(layer):
            for run in (quantize, by_brevitas):
                given = x.detach().requires_grad_()
                out = run(layer, given)
                gradients.append((out, torch.autograd.grad(out.value, given, by)[0]))
        assert same(gradients[0][0], gradients[1][0])
        assert same_bits(gradients[0][1], gradients[1][1])
        assert lies(gradients[0][1]) == lies(gradients[1][1])


@pytest.mark.parametrize("place", ["last", "transposed", "all axes in another order"])
@pytest.mark.parametrize("extended", [True, False])
def test_one_scale_does_not_know_of_the_order_of_axes(place, extended):
    variant = activation("signed", "parameter", "float", "no limit")
    layer, x = variant.layer, PLACES[place](variant.x)
    with nullcontext() if extended else without_extension(), hf.fused(layer):
        assert same(quantize(layer, x), by_brevitas(layer, x))
        assert WholeQuantizer.of(proxy_of(layer)).why is None


@pytest.mark.parametrize("quantizer", [Int8WeightPerTensorFloat, Int8WeightPerChannelFloat])
def test_how_weights_lie(quantizer):
    layer = linear(quantizer)
    with hf.fused(layer):
        for w in (torch.randn(6, 5).t(), torch.randn(5, 12)[:, ::2], torch.randn(1, 6).expand(5, 6)):
            assert same(quantize(layer, w), by_brevitas(layer, w))


class Tagged(torch.Tensor):
    """A tensor that only says that it is another."""


@LAYERS
def test_subclasses_of_tensors(name):
    layer = evaluated(name)
    x = (layer.weight if x_of(name) is None else X).detach().as_subclass(Tagged)
    with hf.fused(layer):
        found, expected = quantize(layer, x), by_brevitas(layer, x)
    assert type(found.value) is type(expected.value) is Tagged
    assert same_bits(found.value.as_subclass(torch.Tensor), expected.value.as_subclass(torch.Tensor))


def test_what_is_quantized_already_is_quantized_again(monkeypatch):
    layer, other = act(), act(max_val=1.0, min_val=-1.0)
    x = X.clone().requires_grad_()
    with hf.fused(nn.Sequential(layer, other)), ways(monkeypatch) as ran:
        out = other(layer(x))
        assert same(out, by_brevitas(other, by_brevitas(layer, x)))
    assert ran == ["rule"] * 2


@LAYERS
def test_transforms(name):
    layer = evaluated(name)
    x = (layer.weight if x_of(name) is None else X).detach()
    with hf.fused(layer):
        for run in (quantize, by_brevitas):  # those that Brevitas' own functions refuse
            with pytest.raises(RuntimeError, match="functorch"):
                torch.func.grad(lambda x, run=run: run(layer, x).value.sum())(x)
            with pytest.raises(RuntimeError, match="functorch"):
                torch.func.vmap(lambda x, run=run: run(layer, x).value)(x[None])
        with forward_ad.dual_level():
            assert same(quantize(layer, x), by_brevitas(layer, x))
            assert "followed" in WholeQuantizer.of(proxy_of(layer)).why


def test_parameters_of_another_place(monkeypatch):
    """functional_call puts tensors in the place of parameters, and gradients reach them."""
    layer = act(LEARNED)
    (name,) = dict(layer.named_parameters())
    source = torch.tensor(0.9, requires_grad=True)
    results = []
    for use in (True, False):
        block = hf.fused(layer) if use else None
        out = torch.func.functional_call(layer, {name: source * 2}, (X,))
        results.append((out, torch.autograd.grad(out.value.sum() + out.scale, source)[0]))
        if block is not None:
            block.remove()
    assert same(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1])


@pytest.mark.every(2)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["rectified", "weights"])
def test_a_compiled_layer(name):
    layer = evaluated(name)
    x = layer.weight if x_of(name) is None else X
    with hf.fused(layer):
        compiled = torch.compile(lambda x: proxy_of(layer)(x)[0] * 2, backend="eager")
        assert torch.allclose(compiled(x), by_brevitas(layer, x).value * 2)
        assert WholeQuantizer.of(proxy_of(layer)).why is None


@LAYERS
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(name, reentrant):
    results = []
    for use in (True, False):
        layer = BUILDS[name]()
        x = (layer.weight if x_of(name) is None else X).detach().clone().requires_grad_()
        block = hf.fused(layer) if use else None
        for _ in range(3):
            run = lambda x, layer=layer: quantize(layer, x).value  # noqa: E731
            out = checkpoint(run, x, use_reentrant=reentrant, preserve_rng_state=False)
            (out * X.reshape(-1)[: x.numel()].sum()).sum().backward()
        results.append((out, x.grad))
        if block is not None:
            block.remove()
    assert same_bits(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-4)


def test_tensors_that_are_kept_elsewhere_for_the_backward_pass():
    layer = linear()
    results = []
    for use in (True, False):
        block = hf.fused(layer) if use else None
        with torch.autograd.graph.save_on_cpu():
            out = quantize(layer)
        results.append(torch.autograd.grad(out.value.sum(), layer.weight)[0])
        if block is not None:
            block.remove()
    assert torch.allclose(*results)


@LAYERS
def test_copies_learn_by_themselves(name):
    layer = BUILDS[name]()
    with hf.fused(layer):
        other = copy.deepcopy(layer)
    with hf.fused(other):
        for parameter in layer.parameters():
            parameter.data.mul_(2)
        x = x_of(name)
        found = quantize(other, x)
        assert WholeQuantizer.of(proxy_of(other)) is not None
    if name not in ("constant", "statistics"):
        assert not torch.equal(found.scale, quantize(layer, x).scale)


@LAYERS
def test_threads(name):
    layer, x, found = evaluated(name), x_of(name), []
    expected = by_brevitas(layer, x)

    def run():
        for _ in range(30):
            found.append(quantize(layer, x))

    with hf.fused(layer):
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(30):  # which makes the others look at it again
            layer.train(not layer.training) if name not in ("statistics",) else None
        layer.eval()
        for thread in threads:
            thread.join()
    assert len(found) == 120
    assert all(same_bits(one.value, expected.value) and same_bits(one.scale, expected.scale) for one in found)


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel(one_process):
    x = torch.rand(4, 1, 8, 8) * 2 - 1
    torch.manual_seed(0)
    net = networks.digits_cnn()
    net(x)
    twin = copy.deepcopy(net)
    own = DistributedDataParallel(net)
    with hf.fused(own) as block:
        out = own(x)
        out.sum().backward()
        assert block.left == {}
        assert sum(WholeQuantizer.of(m) is not None for m in own.modules()) == 8
    expected = twin(x)
    expected.sum().backward()
    assert same_bits(out, expected)
    for (name, one), other in zip(twin.named_parameters(), net.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_an_export_inside_of_the_block(arithmetic):
    torch.manual_seed(0)
    net, x = networks.digits_cnn().eval(), torch.rand(2, 1, 8, 8)
    net.train()(x)
    net.eval()
    expected = hf.export(net, x, arithmetic=arithmetic)
    with hf.fused(net) as block:
        before = net(x)
        assert hf.export(net, x, arithmetic=arithmetic) == expected
        assert same_bits(net(x), before)
        assert block.left == {}
        assert all(WholeQuantizer.of(m).why is None for m in net.modules() if WholeQuantizer.of(m))
