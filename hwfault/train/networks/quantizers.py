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


class _Binary(ExtendedInjector):  # type: ignore[misc]
    """Weights of -1 and +1 times the mean of their magnitudes (Rastegari et al., XNOR-Net, 2016)."""

    quant_type = QuantType.BINARY
    scaling_stats_op = StatsOp.AVE
    bit_width = 1


class _BinaryPerTensor(_Binary, Int8WeightPerTensorFloat):  # type: ignore[misc]
    pass


class _BinaryPerChannel(_Binary, Int8WeightPerChannelFloat):  # type: ignore[misc]
    pass


class _BinaryPerTensorFixedPoint(_Binary, Int8WeightPerTensorFixedPoint):  # type: ignore[misc]
    pass


class _BinaryPerChannelFixedPoint(_Binary, Int8WeightPerChannelFixedPoint):  # type: ignore[misc]
    pass


WEIGHTS: dict[tuple[str, str, bool], Any] = {
    ("per_tensor", "float", False): Int8WeightPerTensorFloat,
    ("per_channel", "float", False): Int8WeightPerChannelFloat,
    ("per_tensor", "power_of_two", False): Int8WeightPerTensorFixedPoint,
    ("per_channel", "power_of_two", False): Int8WeightPerChannelFixedPoint,
    ("per_tensor", "float", True): _BinaryPerTensor,
    ("per_channel", "float", True): _BinaryPerChannel,
    ("per_tensor", "power_of_two", True): _BinaryPerTensorFixedPoint,
    ("per_channel", "power_of_two", True): _BinaryPerChannelFixedPoint,
}
"""Weight quantizers by scaling, kind of scale, and whether the weights have one bit. None has parameters of its own."""


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
    layer.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl = _ScaleOf(*layer._leader)


class _ScaleOf(nn.Module):
    """The scale of an activation layer, in the place of a learned range."""

    def __init__(self, leader: nn.Module) -> None:
        super().__init__()
        self._leader = (leader,)

    def forward(self, x: Tensor, _threshold: Tensor | None = None) -> Tensor:
        quantizer: Any = self._leader[0].act_quant
        quantizer = quantizer.fused_activation_quant_proxy.tensor_quant
        threshold = quantizer.int_scaling_impl(quantizer.msb_clamp_bit_width_impl())
        scale: Tensor = quantizer.scaling_impl(x, threshold)
        return scale
