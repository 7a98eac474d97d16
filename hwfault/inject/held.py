"""Numbers that must lie in a range while faults are attached: bit widths that a network learns, and sample numbers.

The host looks at what it can read at once, which is what is on the CPU. A GPU is not waited for: there an assertion of
the device stops what runs next. What is compiled takes the operator `hwfault::held`, which answers with one of its
inputs, so that no compiler drops it as useless (Inductor drops torch's own assertions).
"""

import torch
from torch import Tensor

from hwfault.errors import HwfaultError


def check(number: Tensor, low: int, high: int, sentence: str) -> None:
    """Stops unless all of a tensor is from `low` to `high`: HwfaultError, on a GPU an assertion that runs there.

    `sentence` says what to do; the first number out of the range takes the place of `{now}` in it.
    """
    if asserts(number):
        torch._assert_async(((number >= low) & (number <= high)).all(), sentence.replace("{now}", "another"))
        return
    wrong = (number < low) | (number > high)
    if wrong.any():
        raise HwfaultError(sentence.replace("{now}", f"{number[wrong].flatten()[0].item():.12g}"))


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
