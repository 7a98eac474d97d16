"""Which steps strike the same cells always, and what is left of their processes without any."""

import numpy as np
import pytest

from hwfault.laws.cells import CellFaults
from hwfault.laws.models import bit_errors
from hwfault.plan.fault_plan import resolve
from hwfault.program.permanent import permanent_cells, without_cells
from hwfault.program.processes import Site

WEIGHT = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(3, 5))
ACTIVATION = Site(name="a", kind="activation", bit_width=4, signed=False, shape=(7,), batch={"axis": 0})
CELL = {"word": 2, "bit": 3, "kind": "flip"}


def planned(*faults):
    return resolve([WEIGHT, ACTIVATION], faults)


def only_step(plan, site):
    (step,) = plan.steps(site)
    return step


@pytest.mark.parametrize("site", ["w", "a"])
def test_cells_of_every_sample_are_permanent(site):
    plan = planned(CellFaults(cells=({"site": site, **CELL},)))
    cells = permanent_cells(only_step(plan, site))
    assert (cells.word.tolist(), cells.xor_mask.tolist()) == ([2], [8])


def test_cells_of_one_sample_are_not():
    plan = planned(CellFaults(cells=({"site": "a", "sample": 4, **CELL},)))
    assert permanent_cells(only_step(plan, "a")) is None


def test_what_is_drawn_is_not():
    assert permanent_cells(only_step(planned(*bit_errors(0.1)), "w")) is None


@pytest.mark.parametrize("by_sample", [False, True])
@pytest.mark.parametrize("site", [WEIGHT, ACTIVATION], ids=["weight", "activation"])
def test_without_cells(site, by_sample):
    plan = planned(CellFaults(cells=({"site": site.name, **CELL},)))
    (entry,) = [entry for entry in plan.sites if entry.site.name == site.name]
    left = without_cells(entry, by_sample=by_sample)
    assert left.site_number == entry.processes[0].site_number
    assert np.size(left.map.word) == 0
    assert left.kind == ("sampled" if by_sample and site.batched else "map")
