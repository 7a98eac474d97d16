"""Ranges of the numbers that name a draw, and shapes that fit each other."""

import math
import operator
from collections.abc import Sequence

from hwfault.errors import HwfaultError, PlanError
from hwfault.stream.tables import WORD_PLANE


def check_seed(seed: int) -> int:
    """The seed, if it is an unsigned 64 bit integer; raises HwfaultError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise HwfaultError(f"the seed is {seed!r}, expected an integer from 0 to 2^64 - 1")
    return seed


SAMPLES = 1 << 32
"""How many sample numbers the stream tells apart: its counter has 32 bits of them, and would take others for these."""


def check_number(number: int, what: str = "sample number") -> int:
    """A number of a sample, step or period, if the stream has one; raises HwfaultError otherwise."""
    is_one = hasattr(number, "__index__") and not isinstance(number, bool)  # NumPy's integers, too
    if not is_one or not 0 <= operator.index(number) < SAMPLES:
        raise HwfaultError(
            f"the {what} is {number!r}, expected an integer from 0 to 2^32 - 1: the fault stream has no others"
        )
    return operator.index(number)


def signed64(seed: int) -> int:
    """The int64 with the seed's bits, as tensors and graphs carry it."""
    return seed - (1 << 64) if seed >> 63 else seed


def check_draw(*, seed: int, site: int, words: int, plane: int, sample: int = 0) -> None:
    """Raises HwfaultError unless the numbers name a plane of a sample."""
    check_seed(seed)
    check_number(sample)
    if not 0 <= site < 1 << 32:
        raise HwfaultError(f"the site number is {site!r}, expected 0 to 2^32 - 1 (hwfault.stream.site_number gives it)")
    if not 0 <= words <= 1 << 36:
        raise HwfaultError(f"words is {words!r}, expected 0 to 2^36, the words that 26 bits of block number reach")
    if not (0 <= plane < 32 or plane == WORD_PLANE):
        raise HwfaultError(f"plane is {plane!r}, expected a bit from 0 to 31, or {WORD_PLANE} for words")


def batch_and_words(shape: Sequence[int], samples: int) -> tuple[int, int]:
    """How many samples a tensor has, and words each; raises PlanError unless there is a sample number for each."""
    if samples == 1:
        return 1, math.prod(shape)
    if not shape or shape[0] != samples:
        raise PlanError(f"{samples} sample numbers for a tensor of shape {tuple(shape)}, expected one an element")
    return samples, math.prod(shape[1:])


def words_sharing(shape: Sequence[int], given: Sequence[int], batch: int, what: str) -> int:
    """How many words of a tensor share a value of a scale or zero point (of shape `given`) before the next one comes.

    Raises PlanError for one that has more than one axis, or a value for each element of the batch.
    """
    missing = len(shape) - len(given)  # a scale broadcasts, so that its axes are the last ones of the values
    axes = [axis for axis, length in enumerate(given, missing) if length > 1]
    other_length = any(given[axis - missing] != shape[axis] for axis in axes)
    # kernels number words from each sample's first: a value that goes with the batch axis has no place there
    per_element = batch > 1 and axes == [0]
    if missing < 0 or len(axes) > 1 or per_element or other_length:
        raise PlanError(
            f"a {what} of shape {tuple(given)} for values of shape {tuple(shape)}, expected one for the tensor or one "
            "for each channel"
        )
    return math.prod(shape[axes[0] + 1 :]) if axes else 1
