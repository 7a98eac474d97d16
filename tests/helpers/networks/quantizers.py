"""A small network for each quantizer that Brevitas ships, with one scale a tensor or channel."""

from collections.abc import Callable
from typing import Any

from brevitas import nn as qnn
from brevitas import quant
from brevitas.quant import fixed_point, scaled_int, shifted_scaled_int
from torch import nn

from tests.helpers.networks.built import Built, images, settled


def with_weights(weight_quant: Any, **options: Any) -> Callable[[], Built]:
    """Convolution, transposed convolution and linear layer with one weight quantizer."""

    def build() -> Built:
        model = nn.Sequential(
            qnn.QuantIdentity(return_quant_tensor=True),
            qnn.QuantConv2d(3, 8, 3, bias=False, weight_quant=weight_quant, **options),
            nn.BatchNorm2d(8),
            qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
            qnn.QuantConv2d(8, 8, 3, groups=8, bias=False, weight_quant=weight_quant, **options),
            qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
            nn.Flatten(),
            qnn.QuantLinear(8 * 16, 10, bias=False, weight_quant=weight_quant, **options),
        )
        return settled(model, images(3, 8, 8))

    return build


def with_linear_weights(weight_quant: Any) -> Callable[[], Built]:
    """A perceptron with one weight quantizer, for those that cannot take weights of convolutions."""

    def build() -> Built:
        model = nn.Sequential(
            qnn.QuantIdentity(return_quant_tensor=True),
            qnn.QuantLinear(64, 32, bias=False, weight_quant=weight_quant),
            qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
            qnn.QuantLinear(32, 10, bias=False, weight_quant=weight_quant),
        )
        return settled(model, images(64))

    return build


def with_activations(act_quant: Any, **options: Any) -> Callable[[], Built]:
    """The inputs and inner activations of a convolutional network by one quantizer."""

    def build() -> Built:
        model = nn.Sequential(
            qnn.QuantIdentity(act_quant=act_quant, **options),
            qnn.QuantConv2d(3, 8, 3, bias=False, weight_bit_width=4),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            qnn.QuantIdentity(act_quant=act_quant, **options),
            nn.MaxPool2d(2),
            nn.Flatten(),
            qnn.QuantLinear(8 * 9, 10, bias=False, weight_bit_width=4),
        )
        return settled(model, images(3, 8, 8).abs())

    return build


def with_relu(act_quant: Any, **options: Any) -> Callable[[], Built]:
    """A quantizer of what a ReLU leaves, one dimension of positions."""

    def build() -> Built:
        model = nn.Sequential(
            qnn.QuantConv1d(3, 8, 3, bias=False, weight_bit_width=4, input_quant=quant.Int8ActPerTensorFloat),
            qnn.QuantReLU(act_quant=act_quant, **options),
            nn.Flatten(),
            qnn.QuantLinear(8 * 14, 10, bias=False, weight_bit_width=4),
        )
        return settled(model, images(3, 16))

    return build


def with_biases(bias_quant: Any, **options: Any) -> Callable[[], Built]:
    """Biases of one quantizer, on inputs whose scale is known."""

    def build() -> Built:
        model = nn.Sequential(
            qnn.QuantIdentity(return_quant_tensor=True),
            qnn.QuantConv2d(3, 16, 3, bias=True, bias_quant=bias_quant, **options),
            qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
            nn.Flatten(),
            qnn.QuantLinear(16 * 16, 64, bias=True, bias_quant=bias_quant, **options),
        )
        return settled(model, images(3, 6, 6))

    return build


_WEIGHTS = {
    "weight tensor": scaled_int.Int8WeightPerTensorFloat,
    "weight tensor MSE": scaled_int.Int8WeightPerTensorFloatMSE,
    "weight tensor HQO": scaled_int.Int8WeightPerTensorFloatHQO,
    "weight channel": scaled_int.Int8WeightPerChannelFloat,
    "weight channel MSE": scaled_int.Int8WeightPerChannelFloatMSE,
    "weight channel HQO": scaled_int.Int8WeightPerChannelFloatHQO,
    "weight decoupled": scaled_int.Int4WeightPerTensorFloatDecoupled,
    "weight decoupled channel": scaled_int.Int8WeightPerChannelFloatDecoupled,
    "weight L2 norm": scaled_int.Int8WeightNormL2PerChannelFixedPoint,
    "weight accumulator-aware": scaled_int.Int8AccumulatorAwareWeightQuant,
    "weight accumulator-aware centred": scaled_int.Int8AccumulatorAwareZeroCenterWeightQuant,
    "weight fixed point": fixed_point.Int8WeightPerTensorFixedPoint,
    "weight fixed point MSE": fixed_point.Int8WeightPerTensorFixedPointMSE,
    "weight fixed point channel": fixed_point.Int8WeightPerChannelFixedPoint,
    "weight fixed point channel MSE": fixed_point.Int8WeightPerChannelFixedPointMSE,
    "weight fixed point decoupled": fixed_point.Int4WeightPerTensorFixedPointDecoupled,
    "weight binary": quant.SignedBinaryWeightPerTensorConst,
    "weight ternary": quant.SignedTernaryWeightPerTensorConst,
    "weight shifted": shifted_scaled_int.ShiftedUint8WeightPerTensorFloat,
    "weight shifted MSE": shifted_scaled_int.ShiftedUint8WeightPerTensorFloatMSE,
    "weight shifted HQO": shifted_scaled_int.ShiftedUint8WeightPerTensorFloatHQO,
    "weight shifted channel": shifted_scaled_int.ShiftedUint8WeightPerChannelFloat,
    "weight shifted channel MSE": shifted_scaled_int.ShiftedUint8WeightPerChannelFloatMSE,
}
_ACTIVATIONS = {
    "activation": scaled_int.Int8ActPerTensorFloat,
    "activation MSE": scaled_int.Int8ActPerTensorFloatMSE,
    "activation minimum and maximum": scaled_int.Int8ActPerTensorFloatMinMaxInit,
    "activation batch": scaled_int.Int8ActPerTensorFloatBatchQuant2d,
    "activation fixed point": fixed_point.Int8ActPerTensorFixedPoint,
    "activation fixed point MSE": fixed_point.Int8ActPerTensorFixedPointMSE,
    "activation fixed point minimum and maximum": fixed_point.Int8ActPerTensorFixedPointMinMaxInit,
    "activation binary": quant.SignedBinaryActPerTensorConst,
    "activation ternary": quant.SignedTernaryActPerTensorConst,
    "activation shifted": shifted_scaled_int.ShiftedUint8ActPerTensorFloat,
    "activation shifted MSE": shifted_scaled_int.ShiftedUint8ActPerTensorFloatMSE,
    "activation shifted HQO": shifted_scaled_int.ShiftedUint8ActPerTensorFloatHQO,
    "activation shifted fixed point": shifted_scaled_int.ShiftedUint8ActPerTensorFixedPoint,
    "activation shifted fixed point MSE": shifted_scaled_int.ShiftedUint8ActPerTensorFixedPointMSE,
}
_RELUS = {
    "ReLU": scaled_int.Uint8ActPerTensorFloat,
    "ReLU MSE": scaled_int.Uint8ActPerTensorFloatMSE,
    "ReLU maximum": scaled_int.Uint8ActPerTensorFloatMaxInit,
    "ReLU batch": scaled_int.Uint8ActPerTensorFloatBatchQuant1d,
    "ReLU fixed point": fixed_point.Uint8ActPerTensorFixedPoint,
    "ReLU fixed point MSE": fixed_point.Uint8ActPerTensorFixedPointMSE,
    "ReLU fixed point maximum": fixed_point.Uint8ActPerTensorFixedPointMaxInit,
}
_BIASES = {
    "bias 8": scaled_int.Int8Bias,
    "bias 16": scaled_int.Int16Bias,
    "bias 24": scaled_int.Int24Bias,
    "bias 32": scaled_int.Int32Bias,
    "bias own scale": scaled_int.Int8BiasPerTensorFloatInternalScaling,
    "bias own fixed point": fixed_point.Int8BiasPerTensorFixedPointInternalScaling,
}
_RANGES: dict[str, dict[str, Any]] = {
    "activation minimum and maximum": {"min_val": -4.0, "max_val": 4.0},
    "activation fixed point minimum and maximum": {"min_val": -4.0, "max_val": 4.0},
    "activation batch": {"shape": (1,)},
    "ReLU maximum": {"max_val": 4.0},
    "ReLU batch": {"shape": (1,)},
    "ReLU fixed point maximum": {"max_val": 4.0},
}


def quantizer_networks() -> dict[str, Callable[[], Built]]:
    """The builders by name."""
    named: dict[str, Callable[[], Built]] = {}
    named |= {name: with_weights(chosen) for name, chosen in _WEIGHTS.items()}
    named |= {name: with_activations(chosen, **_RANGES.get(name, {})) for name, chosen in _ACTIVATIONS.items()}
    named |= {name: with_relu(chosen, **_RANGES.get(name, {})) for name, chosen in _RELUS.items()}
    named |= {name: with_biases(chosen) for name, chosen in _BIASES.items()}
    named["weight shifted channel HQO"] = with_linear_weights(shifted_scaled_int.ShiftedUint8WeightPerChannelFloatHQO)
    return named
