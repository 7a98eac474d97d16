"""The range of one site's integers, ready to be applied at each forward."""

import torch
from torch import Tensor

from hwfault.codes import REPRESENTATIONS
from hwfault.injection.forward import Forward, ScaleAndZero
from hwfault.program.processes import ClipStep, Site
from hwfault.stream.mechanism import CLIP, ClipOperands
from hwfault.torch_ops.eager import Faults, strike_eagerly


class ClipStrike:
    """Integers kept within a range."""

    def __init__(self, site: Site, step: ClipStep, _device: torch.device) -> None:
        self._bit_width, self._signed = site.bit_width, int(site.signed)
        self._representation = REPRESENTATIONS.index(step.representation)
        self._process = step.process
        self._faults = Faults(CLIP, True)

    def __call__(self, value: Tensor, forward: Forward, grid: ScaleAndZero, unheld: bool) -> Tensor:
        kept = self._process
        scale, zero_point = grid
        operands = ClipOperands(
            samples=forward.clock.of(forward.batch),
            scale=scale,
            zero_point=zero_point,
            bit_width=self._bit_width,
            signed=self._signed,
            representation=self._representation,
            low=kept.low,
            high=kept.high,
            below=kept.below,
            above=kept.above,
        )
        return strike_eagerly(value, self._faults, operands, forward.straight_through, unheld)
