"""The Brevitas quantizers of the zoo: weights whose scale follows them, activations whose range is learned."""

from typing import Any

from brevitas import nn as qnn
from brevitas.core.function_wrapper import RoundSte
from brevitas.inject import ExtendedInjector
from brevitas.inject.enum import QuantType, RestrictValueType, ScalingImplType, StatsOp
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    Uint8ActPerTensorFloat,
)
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerChannelFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from torch import Tensor, nn

from hwfault.network.shared_scale import SharedScale


class _MeanMagnitude(nn.Module):
    """A multiple of the mean magnitude, of all weights or of each channel's."""

    factor = 1.4

    def __init__(self, stats_reduce_dim: int | None = None) -> None:
        super().__init__()
        self._dim = stats_reduce_dim

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.abs().mean(self._dim)


class _MeanMagnitudeFixedPoint(_MeanMagnitude):
    factor = 2.8  # the range of two's complement: codes of 2 bits reach to -2


_WEIGHTS: dict[tuple[str, str], Any] = {
    ("per_tensor", "float"): Int8WeightPerTensorFloat,
    ("per_channel", "float"): Int8WeightPerChannelFloat,
    ("per_tensor", "power_of_two"): Int8WeightPerTensorFixedPoint,
    ("per_channel", "power_of_two"): Int8WeightPerChannelFixedPoint,
}


_NEAREST = {"restrict_value_float_to_int_impl": RoundSte}
"""The nearest power of two, where scales are powers of two, not the next larger one."""


def weights(scaling: str, scale: str, bits: int) -> dict[str, Any]:
    """A layer's arguments for weights of `bits` bits; their quantizer has no parameters, its scale follows them.

    From 3 bits on the largest weight gets the largest code. One bit is a sign times the mean magnitude (Rastegari et
    al., XNOR-Net, 2016). With two the codes are -1, 0 and 1, and 0 is what lies below 0.7 times the mean magnitude (Li
    et al., Ternary Weight Networks, 2016): a few large weights would turn all others to 0.
    """
    quantizer = _WEIGHTS[scaling, scale]
    if bits == 1:
        quantizer = quantizer.let(quant_type=QuantType.BINARY, scaling_stats_op=StatsOp.AVE, **_NEAREST)
    elif bits == 2:
        mean = _MeanMagnitude if scale == "float" else _MeanMagnitudeFixedPoint
        quantizer = quantizer.let(scaling_stats_impl=mean, **_NEAREST)
    return {"weight_quant": quantizer, "weight_bit_width": bits}


class _Learned(ExtendedInjector):  # type: ignore[misc]
    """A range that starts at `max_val` and is learned as a logarithm, so that it stays positive at any rate."""

    scaling_impl_type = ScalingImplType.PARAMETER
    restrict_scaling_type = RestrictValueType.LOG_FP


class _LearnedFixedPoint(ExtendedInjector):  # type: ignore[misc]
    """A range that is the nearest power of two to a learned one: at the start it is no step away from another."""

    scaling_impl_type = ScalingImplType.PARAMETER
    restrict_value_float_to_int_impl = RoundSte


class _Unsigned(_Learned, Uint8ActPerTensorFloat):  # type: ignore[misc]
    min_val = 0.0


class _Signed(_Learned, Int8ActPerTensorFloat):  # type: ignore[misc]
    pass


class _UnsignedFixedPoint(_LearnedFixedPoint, Uint8ActPerTensorFixedPoint):  # type: ignore[misc]
    min_val = 0.0


class _SignedFixedPoint(_LearnedFixedPoint, Int8ActPerTensorFixedPoint):  # type: ignore[misc]
    pass


ACTIVATIONS: dict[tuple[bool, str], Any] = {
    (False, "float"): _Unsigned,
    (True, "float"): _Signed,
    (False, "power_of_two"): _UnsignedFixedPoint,
    (True, "power_of_two"): _SignedFixedPoint,
}
"""Activation quantizers by sign and kind of scale; each has one parameter, its range."""


def activation(signed: bool, scale: str, bits: int, largest: float, **options: Any) -> nn.Module:
    """A quantizer of `bits` bits whose range starts at `largest`; unsigned ones rectify, one bit means the sign."""
    if bits == 1:
        return qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, **options)  # type: ignore[no-any-return]
    layer = qnn.QuantIdentity if signed else qnn.QuantReLU
    ends = {"max_val": largest} | ({"min_val": -largest} if signed else {})
    quantizer: nn.Module = layer(act_quant=ACTIVATIONS[signed, scale], bit_width=bits, **ends, **options)
    return quantizer


class _Constant(Int8ActPerTensorFloat):  # type: ignore[misc]
    """What SameGrid is before it knows its grid: without state, so that checkpoints hold the leader's range only."""

    scaling_impl_type = ScalingImplType.CONST
    min_val = -1.0
    max_val = 1.0


class SameGrid(qnn.QuantIdentity):  # type: ignore[misc]
    """Signed codes of `bits` bits with the scale of another activation, so that the codes of both can be added.

    The other one (`leader`, with 2 bits or more) learns the scale; this one has no parameter of its own.
    """

    def __init__(self, leader: nn.Module, bits: int) -> None:
        super().__init__(act_quant=_Constant, bit_width=bits)
        self._leader = (leader,)  # in a tuple, because it is no part of this module
        self.register_load_state_dict_post_hook(_tie)  # Brevitas makes quantizers anew when it loads a state
        _tie(self)


def _tie(layer: SameGrid, _keys: object = None) -> None:
    layer.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl = SharedScale(*layer._leader)
