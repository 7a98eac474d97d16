"""The scale and zero point that a quantizer has."""

from typing import Any

from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

ScaleAndZero = tuple[Tensor, Tensor]
"""Scale and zero point."""


def known_scale(proxy: nn.Module) -> ScaleAndZero:
    """Those of a quantizer that returns bare values, as in Brevitas' quant_inference_mode."""
    cached = getattr(proxy, "_cached_bias", None)
    source: Any = cached if cached is not None else proxy.export_handler
    return source.scale, source.zero_point


def grid_of(proxy: nn.Module, output: Any) -> ScaleAndZero:
    """Those of what a quantizer returned, a QuantTensor or bare values."""
    return (output.scale, output.zero_point) if isinstance(output, IntQuantTensor) else known_scale(proxy)
