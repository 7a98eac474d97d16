"""Whether any fault fell in a trial: as the listing of all its faults says."""

import numpy as np
import pytest

import hwfault as hf
from hwfault.campaigns.falls import any_fault_fell
from hwfault.laws.models import MapFaults
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.protection_scheme import Protection
from tests.slowly import thinned

SITES = [
    Site(name="a.weight_quant", kind="weight", bit_width=4, signed=True, shape=(50, 3)),
    Site(name="b.act_quant", kind="activation", bit_width=7, signed=False, shape=(2, 30)),
]
SAMPLES = 5
RARE = 3e-4
FAULTS = {
    "flips": {"model": "bit_flips", "probability": RARE},
    "to one": {"model": "bit_flips", "p01": RARE, "p10": 0.0},
    "to zero": {"model": "bit_flips", "p01": 0.0, "p10": RARE},
    "both, unlike": {"model": "bit_flips", "p01": RARE, "p10": RARE / 3},
    "clusters": {"model": "cluster", "probability": RARE / 2, "sizes": [0.5, 0.5], "axis": "bit"},
    "words": {"model": "word", "probability": 1e-3, "effect": "random"},
}


def by_listing(plan, seed):
    for entry in plan.sites:
        for sample in range(SAMPLES if entry.site.batched else 1):
            if faults_at(plan, entry.site.name, seed=seed, sample=sample):
                return True
    return False


@pytest.mark.parametrize("name", thinned(FAULTS, 3))
def test_as_the_listing_says(name):
    plan = hf.resolve(SITES, FAULTS[name])
    told = [any_fault_fell(plan, seed, SAMPLES) for seed in range(40)]
    assert told == [by_listing(plan, seed) for seed in range(40)]
    assert 5 < sum(told) < 40


def test_a_range_that_words_are_kept_within_is_no_fault():
    kept = hf.ClippedRange(high=3)
    rare = hf.BitFlips(probability=RARE, sites={"kind": "weight"})
    with_range, without = resolve(SITES, [rare, kept]), resolve(SITES, [rare])
    found = [any_fault_fell(with_range, seed, SAMPLES) for seed in range(20)]
    assert found == [any_fault_fell(without, seed, SAMPLES) for seed in range(20)]
    assert {*found} == {True, False}


def test_many_are_not_looked_for():
    assert any_fault_fell(hf.resolve(SITES, hf.BitFlips(probability=0.3)), 0, 50) is True
    assert any_fault_fell(hf.resolve(SITES, hf.BitFlips(probability=0.0)), 0, 50) is False


def test_what_is_not_to_be_told(tmp_path):
    nothing = SITES[0].model_copy(update={"shape": None})
    plan = resolve([nothing], [hf.BitFlips(probability=1e-9)])
    assert any_fault_fell(plan, 0, 1) is None
    FaultMap.from_cells(40, 9, [3], [1], [Kind.FLIP]).save(tmp_path / "m.safetensors")
    protected = MapFaults(
        file=str(tmp_path / "m.safetensors"),
        protection=Protection(kind="parity", data_bits=8),
        sites="a.weight_quant",
    )
    assert any_fault_fell(resolve(SITES, [protected]), 0, 1) is None


def test_samples_in_parts(monkeypatch):
    from hwfault.campaigns import falls

    plan = hf.resolve(SITES[1:], hf.BitFlips(probability=RARE))
    whole = [any_fault_fell(plan, seed, 64) for seed in range(20)]
    monkeypatch.setattr(falls, "_AT_ONCE", 130)
    assert [any_fault_fell(plan, seed, 64) for seed in range(20)] == whole
    assert np.mean(whole) > 0.5
