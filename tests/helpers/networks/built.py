"""Batches, and networks whose scales are settled."""

import torch
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode
from torch import Tensor, nn

BATCH = 8
Built = tuple[nn.Module, Tensor]


def images(*shape: int) -> Tensor:
    """A batch of noise, other values in each sample."""
    return torch.randn(BATCH, *shape)


def settled(model: nn.Module, x: Tensor) -> Built:
    """The network in evaluation mode after two batches of training mode, in which statistics are gathered."""
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(x)
    return model.eval(), x


def calibrated(model: nn.Module, x: Tensor, *, corrected: bool = True) -> Built:
    """The network after Brevitas' own calibration, and bias correction, as after post-training quantization."""
    model.eval()
    with torch.no_grad():
        with calibration_mode(model):
            model(x)
        if corrected:
            with bias_correction_mode(model):
                model(x)
    return model.eval(), x
