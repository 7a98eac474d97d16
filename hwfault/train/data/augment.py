"""Changes to training samples, each a pure function of (seed, epoch, sample)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from hwfault.errors import HwfaultError, nearest

DRAWS = {"order": 0, "augment": 1, "split": 2}
"""What random numbers are for: the last part of the key (seed, epoch, purpose) of each generator."""
COLUMNS = 8
_PAD = 4


def uniform(seed: int, epoch: int, count: int) -> NDArray[np.float32]:
    """Numbers in [0, 1) for each sample of an epoch, (count, 8) float32."""
    generator = np.random.default_rng([seed, epoch, DRAWS["augment"]])
    return generator.random((count, COLUMNS), np.float32)


def crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Images (k, c, h, w) padded with 4 zeros at each side, cropped to h x w at random, half of them mirrored.

    Rows and columns start at floor(9 d) of draws[:, 0] and draws[:, 1]; mirrored where draws[:, 2] < 1/2. This is the
    usual augmentation for CIFAR (He et al., Deep Residual Learning, CVPR 2016, section 4.2).
    """
    height, width = images.shape[2:]
    start = (draws[:, :2] * (2 * _PAD + 1)).long().clamp_(max=2 * _PAD)  # 9 d may round up to 9
    windows = pad(images, [_PAD] * 4).unfold(2, height, 1).unfold(3, width, 1)
    sample = torch.arange(len(images), device=images.device)
    cropped = windows[sample, :, start[:, 0], start[:, 1]]
    return torch.where(draws[:, 2, None, None, None] < 0.5, cropped.flip(-1), cropped)


def named_augmentation(augment: str | Callable[..., Any] | None, shape: tuple[int, ...]) -> Callable[..., Any] | None:
    """The augmentation of a data set in memory of this shape: "crop_flip", a callable, or None for none."""
    if augment is None or callable(augment):
        return augment
    if augment == "resized_crop":
        raise HwfaultError("augment 'resized_crop' is for image folders; use 'crop_flip' for data in memory")
    if augment != "crop_flip":
        raise HwfaultError(f"augment {augment!r} is unknown: {nearest(augment, ['crop_flip', 'resized_crop'])}")
    if len(shape) != 4:
        raise HwfaultError(f"augment 'crop_flip' is for images (n, c, h, w), given inputs of shape {shape}")
    return crop_flip
