"""A scaling module that has the scale of another quantizer, so that the integers of both can be added."""

from typing import Any

from torch import Tensor, nn


class SharedScale(nn.Module):
    """The scale of the quantizer of an activation layer (`leader`), in the place of a scale of its own."""

    def __init__(self, leader: nn.Module) -> None:
        super().__init__()
        self._leader = (leader,)  # in a tuple, because it is no part of this module

    @property
    def leading_layer(self) -> Any:
        """The activation layer."""
        return self._leader[0]

    @property
    def leader(self) -> Any:
        """The module that computes the leader's scale and values, as Brevitas has built it last."""
        quantizer: Any = self._leader[0].act_quant
        return quantizer.fused_activation_quant_proxy.tensor_quant

    def forward(self, x: Tensor, _threshold: Tensor | None = None) -> Tensor:
        leader = self.leader
        scale: Tensor = leader.scaling_impl(x, leader.int_scaling_impl(leader.msb_clamp_bit_width_impl()))
        return scale
