"""What a process answers of itself: with what its faults change, whether the seed decides, what one plane has."""

import pytest

from hwfault.errors import PlanError
from hwfault.program.processes import SitePlan
from hwfault.program.sites import Site
from hwfault.program.streamed import Process
from hwfault.program.striking import changes_with
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.tables import ALWAYS
from tests.program.test_steps import PERMANENT, SITE, SOMETIMES, TABLES, cells, flips, memory, replaced

WEIGHT = SITE
ACTIVATION = SITE.model_copy(update={"name": "a", "kind": "activation"})
ACCUMULATOR = Site(name="s", kind="accumulator", bit_width=8, signed=True, shape=(4,))
REFRESHES = ("inference", "batch", "epoch", "power_cycle")


def sometimes(refresh, make=lambda **rest: cells(3, **rest)):
    return make(threshold=ALWAYS // 2, refresh=refresh)


def memory_sometimes(**rest):
    return memory().model_copy(update=rest)


def drawn_memory():
    return memory().model_copy(update={"map": None, "tables": (1,)})


def test_with_what_faults_change():
    for process in (flips(), replaced(), drawn_memory()):
        assert [changes_with(process, site) for site in (ACTIVATION, ACCUMULATOR, WEIGHT)] == ["sample"] * 2 + ["step"]
    for process in (PERMANENT, memory(), cells(1, refresh="batch")):
        assert {changes_with(process, site) for site in (ACTIVATION, WEIGHT)} == {"never"}
    for make in (lambda **rest: cells(3, **rest), memory_sometimes):
        found = [
            [changes_with(sometimes(refresh, make), site) for site in (ACTIVATION, WEIGHT)] for refresh in REFRESHES
        ]
        assert found == [["sample", "batch"], ["batch", "batch"], ["epoch", "epoch"], ["never", "never"]]


@pytest.mark.parametrize(
    ("site", "process", "changes"),
    [
        (ACTIVATION, PERMANENT, True),
        (WEIGHT, PERMANENT, False),
        (WEIGHT, flips(), False),
        (WEIGHT, sometimes("inference"), True),
        (WEIGHT, sometimes("epoch"), False),
    ],
)
def test_whether_batches_of_one_seed_differ(site, process, changes):
    assert SitePlan(site=site, processes=(process,)).changes_with_batches is changes


def test_whether_the_seed_decides():
    never = flips().model_copy(update={"tables": (0,) * 4})
    none = cells(3, threshold=0)
    empty = PERMANENT.model_copy(update={"map": FaultMap.from_cells(100, 4, [], [], [])})
    assert not any(process.varies(TABLES) for process in (never, none, empty, PERMANENT, memory()))
    assert all(process.varies(TABLES) for process in (flips(), replaced(), SOMETIMES, drawn_memory()))
    assert all(process.never(TABLES) for process in (never, none, empty))
    assert not any(process.never(TABLES) for process in (flips(), PERMANENT, SOMETIMES, memory(), drawn_memory()))


def test_one_plane_alone():
    plane = flips().in_plane(2, 0)
    assert plane.tables == (0, 0, 1, 0)
    mask = Process(fault=0, site_number=1, kind="mask", tables=(1,), mask=6)
    assert [mask.in_plane(bit, 0) and mask.in_plane(bit, 0).mask for bit in range(4)] == [None, 2, 4, None]
    assert [len(PERMANENT.in_plane(bit, 0).map) for bit in range(4)] == [1, 0, 0, 0]
    clusters = {"kind": "cluster", "tables": (1,) * 4, "sizes": (5,)}
    along = [Process(fault=0, site_number=1, axis=axis, **clusters) for axis in ("bit", "word")]
    assert along[1].in_plane(0, 0).tables == (1, 0, 0, 0)
    for whole in (replaced(), along[0], memory()):
        with pytest.raises(PlanError, match="several bits at once"):
            whole.in_plane(0, 0)


def test_where_hits_on_words_fall():
    assert flips().places_of({3, 5}) == {3, 5}
    # words of 4 bits in memory words of 5: word 0 lies in memory word 0, word 1 in 0 and 1, word 9 in 7
    assert [memory().places_of({word}) for word in (0, 1, 9)] == [{0}, {0, 1}, {7}]
    table = {"number": (4, 8), "cells": ((0, 32, -1, -1, 33), (64, 1, -1, -1, -1))}
    assert [memory_sometimes(**table).places_of({word}) for word in (0, 1, 2, 3)] == [{4, 8}, {4}, {8}, set()]
