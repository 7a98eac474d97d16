"""What flows back through faulty words."""

from typing import Literal

from hwfault.errors import HwfaultError

Gradient = Literal["zero", "straight_through"]


def passes_straight_through(gradient: str) -> bool:
    """Whether a gradient rule is "straight_through"; raises HwfaultError unless it is that or "zero"."""
    if gradient not in ("zero", "straight_through"):
        raise HwfaultError(f"the gradient rule is {gradient!r}, expected 'zero' or 'straight_through'")
    return gradient == "straight_through"
