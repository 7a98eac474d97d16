"""How many faults a plan is expected to make, against those that are listed and against arithmetic by hand."""

import numpy as np
import pytest

from hwfault.laws.models import BitFlips, Clusters, MapFaults, ProfileFaults, WordFaults
from hwfault.plan.expected import Range, expected_faults, hit_probability
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.tables import encode_table

WEIGHTS = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(64, 32))
ACTS = Site(name="a", kind="activation", bit_width=3, signed=False, shape=(500,))
UNKNOWN = Site(name="u", kind="activation", bit_width=3, signed=False)


@pytest.mark.parametrize("h", [0, 1, 1e-12, 3e-7, 0.01, 0.5, 0.999])
def test_the_probability_that_a_table_draws(h):
    assert hit_probability(encode_table(h)) == pytest.approx(h, rel=1e-3 if h < 1e-8 else 1e-6)


@pytest.mark.parametrize(
    ("fault", "once", "each"),
    [
        (BitFlips(probability=0.01), 0.01 * 2048 * 4, 0.01 * 500 * 3),
        (WordFaults(probability=0.01), 0.01 * 2048, 0.01 * 500),
        (WordFaults(probability=0.02, effect="msb"), 0.02 * 2048, 0.02 * 500),
        (Clusters(probability=0.001, sizes=[0.5, 0.5]), 0.001 * 2048 * 4, 0.001 * 500 * 3),
        (BitFlips(probability=0.02, sites="a"), 0, 0.02 * 500 * 3),
        (BitFlips(probability=1.0, sites="w"), 2048 * 4, 0),
    ],
)
def test_by_hand(fault, once, each):
    found = expected_faults(resolve([WEIGHTS, ACTS], [fault]))
    assert found.once == pytest.approx((once, once))
    assert found.each == pytest.approx((each, each))
    assert found.in_trial(10) == pytest.approx((once + 10 * each,) * 2)
    assert not found.nothing


def test_bits_that_read_wrong_in_one_direction_depend_on_what_is_stored():
    found = expected_faults(resolve([WEIGHTS], [BitFlips(p01=0.01, p10=0.04)]))
    assert found.once == pytest.approx((0.01 * 8192, 0.04 * 8192), rel=1e-2)
    assert str(found.once) == f"{found.once.low:.3g} to {found.once.high:.3g}"
    assert expected_faults(resolve([WEIGHTS], [BitFlips(p01=0.0, p10=0.04)])).once.low == 0


@pytest.mark.every(2)
@pytest.mark.parametrize("fault", [BitFlips(probability=0.004), WordFaults(probability=0.01)])
@pytest.mark.parametrize("site", [WEIGHTS, ACTS])
def test_it_is_the_mean_of_what_is_listed(fault, site):
    plan = resolve([site], [fault])
    seeds = 300
    counts = [len(faults_at(plan, site.name, seed=seed, sample=0)) for seed in range(seeds)]
    found = expected_faults(plan)
    mean = (found.once if site is WEIGHTS else found.each).low
    assert abs(np.mean(counts) - mean) < 5 * np.sqrt(mean / seeds)


def test_sites_of_unknown_size_are_told():
    found = expected_faults(resolve([WEIGHTS, UNKNOWN], [BitFlips(probability=0.01)]))
    assert found.unknown == ("u",)
    assert "without 1 sites whose words are not known: 'u'" in str(found)


def test_nothing_that_strikes_is_told():
    plan = resolve([WEIGHTS, ACTS], [BitFlips(probability=0.0)])
    found = expected_faults(plan)
    assert found.nothing
    assert found.idle == ("w", "a")
    assert str(found) == "no fault can strike any of 2 sites: every rate is 0"
    assert str(plan).splitlines()[-1].strip() == str(found)
    some = expected_faults(resolve([WEIGHTS, ACTS], [BitFlips(probability=0.0), BitFlips(probability=0.1, sites="a")]))
    assert (some.idle, some.nothing) == (("w",), False)
    assert str(some).endswith("; 1 of 2 sites cannot be struck")


def test_cells_of_permanent_maps_count_once():
    fault = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})
    sites = [WEIGHTS, ACTS.model_copy(update={"kind": "weight"})]
    plan = resolve(sites, [fault], device=3)
    cells = sum(len(faults_at(plan, name, seed=0, sample=0)) for name in plan.names)
    assert expected_faults(plan).once == (cells, cells)
    assert expected_faults(plan).each == (0, 0)


@pytest.mark.parametrize(("refresh", "once"), [("inference", 0), ("batch", 3), ("epoch", 3), ("power_cycle", 3)])
@pytest.mark.parametrize("protection", [None, {"kind": "parity", "data_bits": 3}])
def test_cells_that_come_and_go_count_once_unless_each_sample_draws_them(tmp_path, refresh, once, protection):
    cells = range(6)
    FaultMap.from_cells(4 * 500, 1, cells, [0] * 6, [Kind.FLIP] * 6).save(tmp_path / "m.safetensors")
    own = {"file": str(tmp_path / "m.safetensors"), "mapping": {"kind": "linear", "row_bits": 3 + bool(protection)}}
    fault = MapFaults(**own, sites="*", p_active=0.5, refresh=refresh, protection=protection)
    found = expected_faults(resolve([ACTS], [fault]))
    assert found.once == pytest.approx((once, once))
    assert found.each == pytest.approx((3 - once, 3 - once))


def test_one_site_alone():
    plan = resolve([WEIGHTS, ACTS], [BitFlips(probability=0.01)])
    assert expected_faults(plan, "a").once == (0, 0)
    assert expected_faults(plan, "w").each == (0, 0)


def test_a_range_in_words():
    assert [str(Range(*pair)) for pair in ((0, 0), (2, 2), (0, 3.14159))] == ["no", "2", "0 to 3.14"]
