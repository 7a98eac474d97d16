"""One image: cut to size for evaluation or for training."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hwfault.errors import FileError
from hwfault.image_files import PIXELS

_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_TRIES = 10


def pixels(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, h, w)."""
    return torch.from_numpy(np.array(image, np.uint8)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class Prepare:
    """Cuts an image for evaluation: the shorter side resized to 8/7 of `size` (256 for 224), the middle taken."""

    size: int

    def __call__(self, image: Image.Image) -> Tensor:
        """uint8 (3, size, size); raises FileError for an image too narrow to be resized so."""
        side = self.size * 8 // 7
        shorter = min(image.size)
        width = side * image.width // shorter
        height = side * image.height // shorter
        if width * height > PIXELS:
            raise FileError(
                f"an image of {image.width} x {image.height} pixels would be resized to {width} x {height}, expected "
                f"{PIXELS} pixels at most; cut it"
            )
        left = round((width - self.size) / 2)
        top = round((height - self.size) / 2)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        return pixels(resized.crop((left, top, left + self.size, top + self.size)))


@dataclass(frozen=True)
class ResizedCrop:
    """Takes a part of an image for training, resizes it to `size` and mirrors half of them.

    The part has 8 to 100 % of the area and a ratio of width to height of 3/4 to 4/3, uniform in its logarithm; after
    ten that stick out, the largest part in the middle with a ratio in the range (Szegedy et al., Going Deeper with
    Convolutions, CVPR 2015, section 6). Draws from torch's random numbers.
    """

    size: int

    def __call__(self, image: Image.Image) -> Tensor:
        """uint8 (3, size, size)."""
        left, top, width, height = _part(image.width, image.height)
        part = image.crop((left, top, left + width, top + height))
        made = pixels(part.resize((self.size, self.size), Image.Resampling.BILINEAR))
        if float(torch.rand(())) < 0.5:
            return made.flip(-1)
        return made


def _part(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random part."""
    # all numbers at once, so that what is drawn behind them does not depend on which of the parts stick out
    for area, ratio, x, y in torch.rand((_TRIES, 4), dtype=torch.float64).tolist():
        target = width * height * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
        shape = math.exp(math.log(_RATIO[0]) + ratio * math.log(_RATIO[1] / _RATIO[0]))
        w = round(math.sqrt(target * shape))
        h = round(math.sqrt(target / shape))
        if 0 < w <= width and 0 < h <= height:
            left = int(x * (width - w + 1))
            top = int(y * (height - h + 1))
            return left, top, w, h
    w = min(width, round(height * _RATIO[1]))
    h = min(height, round(width / _RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h
