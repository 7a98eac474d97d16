"""Which of the processes that train together tells of an error."""

import os

from hwfault.errors import HwfaultError


def rank() -> int:
    """This process's number among those that train together, from 0; the first one writes and speaks."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def on_all_ranks(error: HwfaultError) -> HwfaultError:
    """The error, marked as one that every rank raises: the first one tells of it."""
    error.__dict__["on_all_ranks"] = True
    return error


def told_by_another(error: HwfaultError) -> bool:
    """Whether the first rank tells of this error, and this is not the first."""
    return rank() != 0 and error.__dict__.get("on_all_ranks", False) is True
