"""A quantized network's float twin: the same layers with the same parameters, and no quantizer."""

import copy

import brevitas.nn as qnn
from torch import nn


def float_twin(model: nn.Module) -> nn.Module:
    """A copy of a network with torch's layers in the place of Brevitas'."""
    return _plain(copy.deepcopy(model))


def _plain(module: nn.Module) -> nn.Module:
    """The module without quantizers, its children too; raises TypeError for a layer whose twin is not known."""
    if isinstance(module, qnn.QuantReLU):
        return nn.ReLU()
    if isinstance(module, qnn.QuantIdentity):
        return nn.Identity()
    if isinstance(module, qnn.QuantConv2d):
        return _with_parameters_of(module, nn.Conv2d, *_shape(module), groups=module.groups)
    if isinstance(module, qnn.QuantLinear):
        return _with_parameters_of(module, nn.Linear, module.in_features, module.out_features)
    if isinstance(module, qnn.QuantMultiheadAttention):
        return nn.MultiheadAttention(module.embed_dim, module.num_heads, batch_first=module.batch_first)
    if type(module).__module__.startswith("brevitas"):
        raise TypeError(f"no float twin of {type(module).__name__} is known here")
    for name, child in module.named_children():
        setattr(module, name, _plain(child))
    return module


def _shape(conv: nn.Conv2d) -> tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...] | str]:
    return conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding


def _with_parameters_of(module: nn.Module, kind: type[nn.Module], *shape: object, **options: object) -> nn.Module:
    made = kind(*shape, bias=module.bias is not None, **options)
    made.weight, made.bias = module.weight, module.bias
    return made
