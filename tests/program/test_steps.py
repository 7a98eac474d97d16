"""Which processes strike together, and what the steps are that engines take."""

import numpy as np
import pytest

from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.processes import Site, SitePlan
from hwfault.program.steps import in_steps
from hwfault.program.streamed import Process
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import ACCEPT_ALL, ALWAYS

SITE = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(100,))
TABLES = [(0,), (1, 5)]


def cells(word, kind=0, **rest):
    rows = FaultMap.from_cells(100, 4, [word], [0], [kind])
    return MapProcess(fault=0, site_number=word, map=rows, **rest)


def flips(number=1, accept=ACCEPT_ALL, **rest):
    accepts = {"accept01": (ACCEPT_ALL,) * 4, "accept10": (accept,) * 4}
    return Process(fault=0, site_number=number, kind="bit", tables=(1,) * 4, **accepts, **rest)


def replaced(number=2):
    return Process(fault=0, site_number=number, kind="random", tables=(1,))


def memory():
    rows = FaultMap.from_cells(100, 6, [0], [0], [0])
    protection = Protection(kind="parity", data_bits=5)
    return ProtectedProcess(fault=0, site_number=9, protection=protection, slot=4, map=rows)


PERMANENT, OTHER, SOMETIMES = cells(1), cells(2), cells(3, threshold=ALWAYS // 2)
STORED = flips(7, representation="offset_binary")


@pytest.mark.parametrize(
    ("processes", "sizes"),
    [
        ([], []),
        ([flips(), replaced(), flips(3)], [3]),
        ([flips(), STORED, flips(3)], [1, 1, 1]),
        ([PERMANENT, OTHER], [2]),
        ([PERMANENT, SOMETIMES], [1, 1]),
        ([SOMETIMES, PERMANENT], [1, 1]),
        ([SOMETIMES, SOMETIMES], [1, 1]),
        ([flips(), PERMANENT, OTHER, replaced()], [1, 2, 1]),
        ([memory(), memory()], [1, 1]),
    ],
)
def test_neighbours_of_one_kind_strike_together(processes, sizes):
    groups = in_steps(processes)
    assert [len(group) for group in groups] == sizes
    assert [process for group in groups for process in group] == processes


def test_the_steps_of_a_site():
    plan = SitePlan(site=SITE, processes=(flips(), replaced(), PERMANENT, cells(1, kind=2), memory()))
    stream, rows, protected = plan.steps(TABLES)
    assert [step.mechanism for step in (stream, rows, protected)] == ["stream", "map", "protected"]
    assert stream.program == (*flips().program(TABLES), *replaced().program(TABLES)) == plan.program(TABLES)
    codes = np.zeros(100, np.uint32)
    assert np.flatnonzero(rows.process.map.apply(codes)).tolist() == [1]
    assert protected.program == ()


@pytest.mark.parametrize(
    ("processes", "reads"),
    [
        ([flips()], False),
        ([flips(accept=0)], True),
        ([replaced()], False),
        ([flips(), replaced()], True),
        ([PERMANENT, flips(), PERMANENT], False),
    ],
)
def test_whether_the_codes_stored_decide(processes, reads):
    """Words that are replaced beside another process may become what they were."""
    assert SitePlan(site=SITE, processes=tuple(processes)).reads_stored(TABLES) is reads


def test_late_bits_tell_their_layers():
    late = Process(fault=0, site_number=3, kind="late", tables=(1,), mask=8, elements=(2, 3, 5, 20))
    (step,) = SitePlan(site=SITE, processes=(flips(), late)).steps(TABLES)
    assert step.layers == [(5, 20)]
    assert step.reads_others
    (step,) = SitePlan(site=SITE, processes=(flips(),)).steps(TABLES)
    assert step.layers == []
    assert not step.reads_others
