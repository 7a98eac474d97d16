"""A store with something of everything that a page tells, and hostile names."""

import numpy as np

from hwfault.campaigns.database import FILE, Row
from hwfault.campaigns.nesting.turns import Found, mask_names
from tests.helpers.campaigns.stores import VERSIONS, Store, row

EVIL = "<script>alert(1)</script>&\"'"
SITES = [["first", 2, 2], [EVIL, 4, 1]]  # 4 bits and 4
STOPPED = "20 trials, as many as were allowed"


def curve(store, ber, wrong):
    rows = [row(seed, wrong if seed % 2 else (), faults=seed) for seed in range(20)]
    looks = [(20, True, STOPPED)]
    faults = {"models": [{"probability": ber}]}
    store.add("curve", rows, faults=faults, labels={"ber": ber}, looks=looks, label=f"curve ber={ber}")


def turns(store):
    """Image 0 turns at the first point under every second seed, image 1 at the last; two of 20 that ran turned back."""
    labels = [{"ber": 0.001}, {"ber": 0.1}]
    rows = []
    for seed in range(20):
        first = np.full(10, 2)
        first[0], first[1] = (0, 1) if seed % 2 else (2, 1)
        checked = np.arange(10) == 0
        found = Found(first, checked, checked & (seed in (1, 3)))
        rows.append(Row(seed, found.masks(2), faults=1))
    faults = {"sweep": [{"labels": one, "models": []} for one in labels]}
    looks = [(20, True, "above 1%, so that the grid runs")]
    names = mask_names(labels)
    store.add("turning", rows, faults=faults, draw="turns", looks=looks, label="turning first turn", masks=names)


def write_store(folder):
    """A sweep, a census, drawn pairs with failed trials, first turns, a task that was never looked at."""
    questions = {
        "turning": {"sweep": {"ber": [0.001, 0.1]}, "first_turn": True},
        "curve": {"sweep": {"ber": [0.001, 0.1]}},
        "census": {"flips": "single"},
        "pairs": {"flips": "single", "exhaustive": "never"},
        "late": {"flips": 2},
    }
    store = Store(folder / FILE, {"network": EVIL, "questions": questions})
    curve(store, 0.001, ())
    curve(store, 0.1, (1, 2, 7))
    flips = {"flips": "single", "sites": SITES}
    census = [row(cell, range(cell), faults=1) for cell in range(8)]
    looks = [(8, True, "exact, all 8")]
    store.add("census", census, faults=flips | {"trials": "all"}, draw="all", total=8, looks=looks)
    pairs = [row(key, (0,) if key < 5 else (), 1, faults=1) for key in range(40)]
    pairs[39] = pairs[39]._replace(answers=None, failed=EVIL)
    looks = [(20, False, "not yet"), (40, True, STOPPED)]
    store.add("pairs", pairs, faults=flips | {"trials": "pairs"}, draw="pairs", total=8, looks=looks, samples=1)
    store.add("late", [], faults={"flips": 2, "sites": SITES, "trials": "seeds"})
    turns(store)
    source = {"key": "k", "citation": EVIL, "status": "verified", "measured": True}
    profile = {"name": "bram", "title": EVIL, "digest": "c" * 64, "sources": [source]}
    about = {"engine": "torch", "version": "2.0", "exact": False, "note": EVIL, "profiles": [profile]}
    run = {"started": "2026-01-02T03:04:05+00:00", "command": f"hwfault campaign run '{EVIL}'", "versions": VERSIONS}
    store.close(about=about, runs=[run])
    return folder
