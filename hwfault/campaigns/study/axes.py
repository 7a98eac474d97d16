"""The axes that a question can sweep: the rate of bit errors, and those of the profiles that come with hwfault."""

from hwfault.errors import HwfaultError, nearest
from hwfault.profiles.library import library
from hwfault.profiles.profile import Profile

RATES = "ber"


def nearest_axis(axis: str) -> str:
    """What to do about an axis that no fault goes with: the nearest one, and which there are."""
    names: dict[str, None] = {}
    for name in library():
        try:
            names.update(dict.fromkeys(Profile.load(name).rate.names))
        except HwfaultError:  # a profile that is damaged has no axes to offer
            continue
    with_faults = [name for name in names if name != RATES]
    close = nearest(axis, [RATES, *with_faults])
    hint = f"{close} " if close.startswith("did you mean") else ""
    there = ", ".join(with_faults)
    if axis in names:
        return f"it goes with the `faults` of a profile that has it; without them the only axis is {RATES}"
    return f"{hint}Without `faults` the only axis is {RATES}; with those of a profile there are {there}"
