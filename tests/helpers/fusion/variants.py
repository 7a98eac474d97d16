"""Quantizers of every kind that run as a whole: what is quantized, how its scale is made and restricted, its bits."""

from typing import Any, NamedTuple

import torch
from brevitas import nn as qnn
from brevitas import quant
from brevitas.core.function_wrapper import CeilSte, RoundSte
from brevitas.inject.enum import RestrictValueType
from brevitas.quant import fixed_point
from torch import nn

RESTRICTIONS: dict[str, dict[str, Any]] = {
    "float": {},
    "log": {"restrict_scaling_type": RestrictValueType.LOG_FP},
    "next power": {
        "restrict_scaling_type": RestrictValueType.POWER_OF_TWO,
        "restrict_value_float_to_int_impl": CeilSte,
    },
    "nearest power": {
        "restrict_scaling_type": RestrictValueType.POWER_OF_TWO,
        "restrict_value_float_to_int_impl": RoundSte,
    },
}
LIMITS: dict[str, dict[str, Any]] = {"no limit": {"scaling_min_val": None}, "limit": {"scaling_min_val": 0.9}}
"""The limit takes effect."""
SCALINGS: dict[str, dict[str, Any]] = {
    "parameter": {"scaling_impl_type": "parameter"},
    "const": {"scaling_impl_type": "const"},
    "parameter from stats": {"scaling_impl_type": "parameter_from_stats", "collect_stats_steps": 2},
    "running stats": {"scaling_impl_type": "stats", "scaling_stats_op": "max"},
}
STATISTICS: dict[str, dict[str, Any]] = {
    "stats": {},
    "parameter": {"scaling_impl_type": "parameter", "scaling_init": 0.7},
    "const": {"scaling_impl_type": "const", "scaling_init": 0.7},
    "parameter from stats": {"scaling_impl_type": "parameter_from_stats"},
    "percentile": {"scaling_stats_op": "percentile", "high_percentile_q": 90.0},
}
ACTIVATIONS = {
    "signed": (qnn.QuantIdentity, quant.Int8ActPerTensorFloat, fixed_point.Int8ActPerTensorFixedPoint),
    "rectified": (qnn.QuantReLU, quant.Uint8ActPerTensorFloat, fixed_point.Uint8ActPerTensorFixedPoint),
    "unsigned": (qnn.QuantIdentity, quant.Uint8ActPerTensorFloat, fixed_point.Uint8ActPerTensorFixedPoint),
}
PER_TENSOR = (quant.Int8WeightPerTensorFloat, fixed_point.Int8WeightPerTensorFixedPoint)
PER_CHANNEL = (quant.Int8WeightPerChannelFloat, fixed_point.Int8WeightPerChannelFixedPoint)
WEIGHTS: dict[str, Any] = {
    "linear": lambda **options: qnn.QuantLinear(7, 5, bias=False, **options),
    "convolution": lambda **options: qnn.QuantConv2d(3, 5, 3, bias=False, **options),
    "transposed": lambda **options: qnn.QuantConvTranspose2d(3, 5, 3, bias=False, **options),
    "depthwise": lambda **options: qnn.QuantConv2d(4, 4, 3, groups=4, bias=False, **options),
}


class Variant(NamedTuple):
    """A quantizer, what it is given (None for a layer's own weights), and the ways that it runs by in 4 steps."""

    layer: nn.Module
    x: torch.Tensor | None
    ways: tuple[str, ...]


def activation(kind: str, scaling: str, restriction: str, limit: str, bits: int = 4, **options: Any) -> Variant:
    layer, integers, fixed = ACTIVATIONS[kind]
    base = integers if restriction in ("float", "log") else fixed
    how = SCALINGS[scaling] | RESTRICTIONS[restriction] | LIMITS[limit] | options
    ends = {}
    if scaling in ("parameter", "const"):
        ends = {"min_val": -1.7 if kind == "signed" else 0.0, "max_val": 1.7}
    torch.manual_seed(0)
    made = layer(act_quant=base.let(**how), bit_width=bits, return_quant_tensor=True, **ends)
    x = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(1))
    return Variant(made, x, _ways(scaling))


def _ways(scaling: str) -> tuple[str, ...]:
    if scaling == "parameter from stats":  # two steps of statistics, and one that makes a parameter of them
        return "scale", "scale", "scale", "rule"
    return ("scale" if scaling == "running stats" else "rule",) * 4


def weight(
    kind: str, per_channel: bool, scaling: str, restriction: str, limit: str, bits: int = 4, **options: Any
) -> Variant:
    integers, fixed = PER_CHANNEL if per_channel else PER_TENSOR
    base = integers if restriction in ("float", "log") else fixed
    how = STATISTICS[scaling] | RESTRICTIONS[restriction] | LIMITS[limit] | options
    torch.manual_seed(0)
    made = WEIGHTS[kind](weight_quant=base.let(**how), weight_bit_width=bits)
    inside = scaling in ("parameter", "const") or (scaling == "stats" and not (per_channel and kind == "transposed"))
    return Variant(made, None, ("rule" if inside else "scale",) * 4)


def searched() -> Variant:
    """Weights whose scale is the one of the least error."""
    torch.manual_seed(0)
    made = qnn.QuantLinear(7, 5, bias=False, weight_quant=quant.Int8WeightPerTensorFloatMSE, weight_bit_width=4)
    return Variant(made, None, ("scale",) * 4)
