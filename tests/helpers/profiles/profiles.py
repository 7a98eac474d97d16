"""A small valid profile, and changes to it."""

import copy

from hwfault.profiles.profile import Profile

LAB = {"key": "lab", "citation": "A measurement", "status": "read", "measured": True}
GUESS = {"key": "guess", "citation": "Nobody looked.", "status": "assumed", "measured": False}

BASE = {
    "schema_version": 1,
    "name": "small",
    "title": "A small profile",
    "component": "weight_memory",
    "sources": [LAB, GUESS],
    "rate": {
        "quantity": "faulty_cells",
        "axes": [{"name": "voltage_v", "unit": "V"}],
        "points": [
            {"at": {"voltage_v": 0.6}, "rate": 1e-4, "source": "lab"},
            {"at": {"voltage_v": 0.5}, "rate": 1e-2, "source": "lab"},
        ],
    },
    "effect": {"flip": 1.0},
    "spatial": {"kind": "independent"},
    "persistence": {"kind": "permanent"},
}

REMOVED = object()


def changed(**changes):
    """BASE with values put at paths: `rate__points__0__rate=2` or `sources=REMOVED`."""
    data = copy.deepcopy(BASE)
    for path, value in changes.items():
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("__"))
        place = data
        for step in steps:
            place = place[step]
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return data


def profile(**changes):
    return Profile.parse(changed(**changes), "profile.yaml")


def curve(points, *, axis=None, **rate):
    """A profile with (voltage, keys of the point) over one axis."""
    listed = [{"at": {"voltage_v": v}, "source": "lab", **keys} for v, keys in points]
    axes = [{"name": "voltage_v", "unit": "V", **(axis or {})}]
    return profile(rate={"quantity": "faulty_cells", "axes": axes, "points": listed, **rate})


def rates(points, **keys):
    """A profile of plain (voltage, rate) pairs."""
    return curve([(v, {"rate": r}) for v, r in points], **keys)
