"""Changes to training samples, each a pure function of (seed, epoch, sample)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hwfault.errors import HwfaultError
from hwfault.own_code import is_code, named

_PAD = 4
_Change = Callable[..., Any]
Augment = str | _Change | None


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


def named_augmentation(augment: Augment, suits: str, built_in: Mapping[str, _Change]) -> _Change | None:
    """The augmentation that a name, module:function or a callable stands for; None for none.

    Raises HwfaultError for a name that is none of those built in for what it `suits`.
    """
    if augment is None or callable(augment):
        return augment
    if is_code(augment):
        return named("augment", augment)
    if augment not in built_in:
        known = ", ".join(map(repr, built_in))
        raise HwfaultError(f"augment {augment!r} is none for {suits}, expected {known}, module:function or none at all")
    return built_in[augment]
