"""Numbers that must lie in a range while faults are attached: bit widths that a network learns, and sample numbers.

The host looks at what it can read at once, which is what is on the CPU. A GPU is not waited for: there an assertion of
the device stops what runs next. What is compiled takes the operator `hwfault::held`, which answers with one of its
inputs, so that no compiler drops it as useless (Inductor drops torch's own assertions).
"""

import torch
from torch import Tensor

from hwfault.errors import HwfaultError
from hwfault.stream.check import SAMPLES
from hwfault.torch_ops.inside_torch import assert_there, traced

_RANGE = "but the fault stream has only those from 0 to 2^32 - 1"
TOO_FAR = f"the samples of a batch have numbers up to {{now}}, {_RANGE}; set first_sample to a smaller one"
TOO_LONG = f"a training step has the number {{now}}, {_RANGE}; set clock.steps to a smaller one"
NOT_THERE = f"`samples` holds the number {{now}}, {_RANGE}"
"""What is said of numbers that the host did not set itself, but advanced, or was given as a tensor."""


def check(number: Tensor, low: int, high: int, sentence: str) -> None:
    """Stops unless all of a tensor is from `low` to `high`: HwfaultError, on a GPU an assertion that runs there.

    `sentence` says what to do; the first number out of the range takes the place of `{now}` in it.
    """
    if asserts(number):
        assert_there(((number >= low) & (number <= high)).all(), sentence.replace("{now}", "another"))
        return
    if number.numel() == 1 and low <= number.item() <= high:
        return
    wrong = (number < low) | (number > high)
    if wrong.any():
        first = number[wrong].flatten()[0].item()  # a width is a whole number in a floating type
        raise HwfaultError(sentence.replace("{now}", f"{first:.12g}" if isinstance(first, float) else str(first)))


def ascending(numbers: Tensor, sentence: str) -> Tensor:
    """Ascending sample numbers, once it is sure that the stream has the last of them."""
    last = numbers[-1:]
    if traced():
        watched: Tensor = held(numbers, last, 0, SAMPLES - 1, sentence)
        return watched
    check(last, 0, SAMPLES - 1, sentence)
    return numbers


def asserts(number: Tensor) -> bool:
    """Whether a tensor is where assertions run beside the host."""
    return number.is_cuda


@torch.library.custom_op("hwfault::held", mutates_args=())
def held(carried: Tensor, number: Tensor, low: int, high: int, sentence: str) -> Tensor:
    """`carried`, once `check` has seen the number."""
    check(number, low, high, sentence)
    return carried.clone()


@held.register_fake
def _(carried: Tensor, number: Tensor, low: int, high: int, sentence: str) -> Tensor:
    return torch.empty_like(carried)
