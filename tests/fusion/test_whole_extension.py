"""Whole quantizers by the C++ extension and by ctypes: the same bits."""

import pytest
import torch
from torch import nn

import hwfault as hf
from hwfault.torch_ops.extension import extension, without_extension
from hwfault.train import networks
from tests.helpers.injection.oracle import same_bits
from tests.helpers.torch_ops.nodes import nodes_behind
from tests.slowly import slow


@pytest.fixture(autouse=True)
def _built():
    assert extension() is not None, "run `python -m hwfault.fast`, as make install does"


def step(name, options, threads, extended, backward):
    """What a training step gives: the output, then all gradients."""
    torch.manual_seed(0)
    net = networks.build(name, weight_bits=4, act_bits=4, **options)
    x = (torch.rand(5, 3, 32, 32) * 2 - 1).requires_grad_()
    net(x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if extended:
            block = hf.fused(net)
        else:
            with without_extension():
                block = hf.fused(net)
        with block:
            out = net(x)
            gradients = backward(out, [x, *net.parameters()])
            nodes = {node.name() for node in nodes_behind(out)}
            assert block.left == {}
        assert ("HwfaultQuantizer" in nodes) == extended
    finally:
        torch.set_num_threads(before)
    return [out.detach(), *gradients]


def once(out, inputs):
    loss = nn.functional.cross_entropy(out, torch.arange(5))
    return [g for g in torch.autograd.grad(loss, inputs, allow_unused=True) if g is not None]


def twice(out, inputs):
    loss = nn.functional.cross_entropy(out, torch.arange(5))
    first = [g for g in torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True) if g is not None]
    squares = sum((g.double() ** 2).sum() for g in first)
    return [g for g in torch.autograd.grad(squares, inputs, allow_unused=True) if g is not None]


@pytest.mark.every(2)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", [{}, {"scale": "power_of_two"}, {"scaling": "per_channel"}], ids=str)
@pytest.mark.parametrize("name", ["tiny_cnn", slow("resnet20")])
def test_a_step(name, options, threads):
    ways = [step(name, options, threads, extended, once) for extended in (True, False)]
    assert all(same_bits(a, b) for a, b in zip(*ways, strict=True))


@pytest.mark.parametrize("name", ["tiny_cnn", slow("cnv")])
def test_second_derivatives(name):
    ways = [step(name, {}, 2, extended, twice) for extended in (True, False)]
    assert all(same_bits(a, b) for a, b in zip(*ways, strict=True))
