"""Quantizers for `fused`, and by which way they run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat
from brevitas.quant_tensor import QuantTensor

from hwfault.fusion import whole
from hwfault.fusion.parts import tensor_quant
from hwfault.fusion.whole import WholeQuantizer
from hwfault.network.hooks import NeverCopied
from tests.helpers.injection.oracle import same_bits

LEARNED = Int8ActPerTensorFloat.let(scaling_impl_type="parameter")
CONSTANT = Int8ActPerTensorFloat.let(scaling_impl_type="const")
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def act(quantizer=LEARNED, layer=qnn.QuantIdentity, **options):
    """A layer that quantizes activations of [-2, 2] with 4 bits."""
    given = {"bit_width": 4, "min_val": -2.0, "max_val": 2.0, "return_quant_tensor": True, **options}
    if layer is qnn.QuantReLU:
        given["min_val"] = 0.0
    return layer(act_quant=quantizer, **given)


def linear(quantizer=Int8WeightPerTensorFloat, **options):
    """A layer with 5 times 6 weights of 4 bits."""
    torch.manual_seed(0)
    given = {"weight_bit_width": 4, "bias": False, **options}
    return qnn.QuantLinear(6, 5, weight_quant=quantizer, **given)


def proxy_of(layer):
    return layer.weight_quant if hasattr(layer, "weight_quant") else layer.act_quant


def parts_of(layer):
    """The RescalingIntQuant of a layer."""
    return tensor_quant(proxy_of(layer))


def quantize(layer, x=None):
    """What the quantizer of a layer returns, of x or of the layer's weights."""
    return proxy_of(layer)(layer.weight if x is None else x)


@contextmanager
def ways(monkeypatch) -> Iterator[list[str]]:
    """How whole quantizers ran meanwhile: "rule" with a scale by a rule, "scale" with one of Brevitas'."""
    ran: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(WholeQuantizer, "_by_rule", _noted("rule", WholeQuantizer._by_rule, ran))
        patch.setattr(whole, "quantize", _noted("scale", whole.quantize, ran))
        yield ran


def _noted(way, plain, ran):
    def run(*args):
        made = plain(*args)
        if made is not None:
            ran.append(way)
        return made

    return run


def same(one, other):
    """Whether two results of a quantizer are the same: the bits of each tensor, its shape, strides and gradient."""
    if type(one) is not type(other):
        return False
    if not isinstance(one, QuantTensor):
        one, other = (one,), (other,)
    return all(map(_same_tensors, one, other))


def _same_tensors(one, other):
    kind = [(t.dtype, t.shape, lies(t), t.device, t.requires_grad) for t in (one, other)]
    return kind[0] == kind[1] and (same_bits(one, other) if one.is_floating_point() else torch.equal(one, other))


def lies(t):
    """The strides that matter: those of axes along which something lies."""
    return [stride for stride, length in zip(t.stride(), t.shape, strict=True) if length > 1 and t.numel()]


def by_brevitas(layer, x=None):
    """The same by Brevitas' own modules, inside of a block or not."""
    with _suspended(layer):
        return quantize(layer, x)


@contextmanager
def _suspended(layer):
    """The parts of a quantizer as Brevitas' own."""
    hidden = []
    for module in proxy_of(layer).modules():
        if isinstance(forward := vars(module).get("forward"), NeverCopied):
            del vars(module)["forward"]
            hidden.append((module, forward))
    try:
        yield
    finally:
        for module, forward in hidden:
            vars(module)["forward"] = forward
