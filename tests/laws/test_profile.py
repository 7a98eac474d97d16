"""What profiles and measured maps become in a plan: which sites, which cells, for which device."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.errors import FileError, HwfaultError, ModelError, PlanError
from hwfault.graph.run.strike import strike_codes
from hwfault.laws.models import BitFlips, MapFaults, ProfileFaults, bind
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.profiles.library import library
from hwfault.profiles.profile import Profile
from hwfault.program.processes import MapProcess, MapStep, Process, Site, StreamStep
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.tables import site_number

KC705 = "bram28-kintex7-kc705b-undervolt"
SRAM = "sram14-ibm-7points"
SITES = (
    Site(name="in", kind="input", bit_width=8, signed=False, layer="Identity", shape=(2, 6, 6)),
    Site(name="a.weight", kind="weight", bit_width=4, signed=True, layer="Conv", shape=(64, 16, 3, 3)),
    Site(name="a.bias", kind="bias", bit_width=16, signed=True, layer="Conv", shape=(64,)),
    Site(name="a.act", kind="activation", bit_width=3, signed=False, layer="ReLU", shape=(64, 40, 40)),
    Site(name="b.weight", kind="weight", bit_width=3, signed=True, layer="Linear", shape=(1000, 33)),
)
WEIGHTS = ("a.weight", "b.weight")


def at_voltage(v, **options):
    return ProfileFaults(profile=KC705, at={"voltage_v": v}, **options)


def sram(point=0, **options):
    return ProfileFaults(profile=SRAM, at={"operating_point": point}, **options)


def map_of(plan, name, k=0):
    """The fault map of process k at a site."""
    process = plan.at(name).processes[k]
    assert isinstance(process, MapProcess)
    return process.map


def cells(rows):
    return set(zip(*(column.tolist() for column in rows.cells()), strict=True))


def all_cells(plan):
    return {name: cells(map_of(plan, name)) for name in plan.names}


def saved(folder, words, bits, some, name="device.safetensors", **provenance):
    """A device's map; cells are (word, bit, kind)."""
    FaultMap.from_cells(words, bits, *(zip(*some, strict=True) if some else ([], [], [])), provenance).save(
        folder / name
    )
    return str(folder / name)


def written(folder, **changes):
    """A user's profile: permanent independent faults of weights at any rate."""
    content = {
        "schema_version": 1, "name": "mine", "title": "mine", "component": "weight_memory",
        "rate": {"quantity": "faulty_cells", "free": ["p"]}, "effect": {"stuck_at_0": 1.0},
        "spatial": {"kind": "independent"}, "persistence": {"kind": "permanent"},
        "mapping": {"kind": "linear", "row_bits": 32},
    }  # fmt: skip
    path = folder / "mine.yaml"
    path.write_text(json.dumps(content | changes))
    return str(path)


VOLTAGES = st.lists(st.floats(0.53, 0.62), min_size=2, max_size=4).map(lambda v: sorted(v, reverse=True))


@settings(max_examples=15)
@given(VOLTAGES, st.integers(0, 2**64 - 1))
def test_a_milder_voltage_has_a_subset_of_the_faults(voltages, device):
    plans = [all_cells(resolve(SITES, [at_voltage(v)], device=device)) for v in voltages]
    for milder, harsher in pairwise(plans):
        assert all(milder[name] <= harsher[name] for name in WEIGHTS)


SHARES = st.integers(0, 32).map(lambda n: n / 32)


@settings(max_examples=15)
@given(st.integers(0, 5), SHARES, SHARES)
def test_a_smaller_share_has_a_subset_of_the_faults(device, one, other):
    low, high = sorted((one, other))
    plans = [all_cells(resolve(SITES, [sram(share=share)], device=device)) for share in (low, high)]
    assert all(plans[0][name] <= plans[1][name] for name in WEIGHTS)


def test_operating_points_of_a_list_are_nested_too():
    sizes = []
    plans = [all_cells(resolve(SITES, [sram(point)])) for point in range(6, -1, -1)]
    for milder, harsher in pairwise(plans):
        assert all(milder[name] <= harsher[name] for name in WEIGHTS)
        sizes.append(sum(map(len, harsher.values())))
    assert sizes[-1] > 1000


def test_scaled_faults_are_nested_and_full_at_1():
    fault = sram(2)
    none, half, full = (all_cells(resolve(SITES, [fault.scaled(factor)])) for factor in (0.0, 0.5, 1.0))
    assert full == all_cells(resolve(SITES, [fault]))
    for name in WEIGHTS:
        assert not none[name]
        assert none[name] <= half[name] <= full[name]
    with pytest.raises(ModelError):
        fault.scaled(1.5)


def test_nothing_fails_where_the_source_says_fail_free():
    plan = resolve(SITES, [at_voltage(0.61)])
    assert plan.names == WEIGHTS
    assert all(len(map_of(plan, name)) == 0 for name in WEIGHTS)


def test_kc705_cells_are_stuck_at_0():
    kinds = {kind for found in all_cells(resolve(SITES, [at_voltage(0.53)], device=3)).values() for _, _, kind in found}
    assert kinds == {Kind.STUCK_AT_0}


def test_half_of_the_srams_cells_are_stuck_at_1():
    found = [kind for some in all_cells(resolve(SITES, [sram()])).values() for _, _, kind in some]
    ones, n = found.count(Kind.STUCK_AT_1), len(found)
    assert found.count(Kind.STUCK_AT_0) == n - ones
    assert abs(ones - n / 2) < 5 * (n / 4) ** 0.5


def test_the_rate_is_that_of_cells():
    """Over several devices, |z| < 5."""
    bits = sum(site.words * site.bit_width for site in SITES if site.kind == "weight")
    p = Profile.load(SRAM).resolve_rate({"operating_point": 0}).cells
    counts = [sum(map(len, all_cells(resolve(SITES, [sram()], device=d)).values())) for d in range(20)]
    trials = bits * len(counts)
    assert abs(sum(counts) - trials * p) < 5 * (trials * p) ** 0.5


@pytest.mark.parametrize(
    ("component", "names"),
    [("weight_memory", WEIGHTS), ("activation_memory", ("in", "a.act")), ("input", ("in",))],
)
def test_a_profile_strikes_the_sites_of_its_component(tmp_path, component, names):
    path = written(tmp_path, component=component)
    assert resolve(SITES, [ProfileFaults(profile=path, at={"p": 0.01})]).names == names


def test_chosen_sites_come_first():
    assert resolve(SITES, [sram(sites="b.*")]).names == ("b.weight",)
    assert resolve(SITES, [sram(sites=[{"kind": "bias"}, "in"])]).names == ("in", "a.bias")


def test_no_site_of_the_component(tmp_path):
    with pytest.raises(ModelError, match=r"no site matches any of '\* kind=weight', which the profile strikes"):
        resolve(SITES[:1], [sram()])
    with pytest.raises(ModelError, match=r"no site matches the selector 'b\.wieght': did you mean 'b\.weight'"):
        resolve(SITES, [sram(sites="b.wieght")])


@pytest.mark.parametrize("fault", [sram(), MapFaults(file="x")], ids=["profile", "map"])
def test_sites_of_unknown_shape(tmp_path, fault):
    if isinstance(fault, MapFaults):
        fault = MapFaults(file=saved(tmp_path, 10, 4, []))
    blind = [site.model_copy(update={"shape": None}) for site in SITES]
    with pytest.raises(PlanError, match=r"the shape of the site 'a\.weight' is not known.*an example batch"):
        resolve(blind, [fault])


def test_strict_sources():
    assert resolve(SITES, [at_voltage(0.53, strict_sources=True)]).names == WEIGHTS
    sun = ProfileFaults(profile="sram65-lowvdd-sun2017", at={"voltage_v": 0.5})
    assert resolve(SITES, [sun]).names == WEIGHTS
    with pytest.raises(ModelError, match="strict sources"):
        resolve(SITES, [sun.model_copy(update={"strict_sources": True})])
    with pytest.raises(ModelError, match="strict sources"):
        resolve(SITES, [ProfileFaults(profile="uniform-flips", at={"ber": 0.1}, strict_sources=True)])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (at_voltage(0.52), r"voltage_v = 0\.52 lies beyond the measured range, 0\.53 to 0\.59"),
        (ProfileFaults(profile=KC705), "the operating point lacks voltage_v"),
        (ProfileFaults(profile=KC705, at={"voltage": 0.55}), "did you mean 'voltage_v'"),
        (ProfileFaults(profile="bram28-kintex7-kc705-undervolt", at={}), f"did you mean '{KC705}'"),
        (sram(0.5), r"operating_point = 0\.5 is not among the points"),
        (ProfileFaults(profile="uniform-flips"), "the free parameter ber is not given"),
        (ProfileFaults(profile="uniform-flips", at={"ber": 1.5}), r"expected a number in \[0, 1\]"),
    ],
)
def test_operating_points_that_are_none(fault, words):
    with pytest.raises(ModelError, match=words):
        resolve(SITES, [fault])


def test_a_profile_that_is_no_file(tmp_path):
    with pytest.raises(FileError, match="cannot be read"):
        resolve(SITES, [ProfileFaults(profile=str(tmp_path / "no.yaml"))])


def test_transient_profiles_become_laws_of_the_stream():
    plan = resolve(SITES, [ProfileFaults(profile="uniform-flips", at={"ber": 0.01})])
    law = resolve(SITES, [BitFlips(probability=0.01, sites={"kind": "weight"})])
    assert (plan.names, plan.device, plan.tables) == (WEIGHTS, None, law.tables)
    assert [plan.program(name) for name in WEIGHTS] == [law.program(name) for name in WEIGHTS]
    plan = resolve(SITES, [ProfileFaults(profile="asymmetric", at={"p01": 0.01, "p10": 0.03}, share=0.5)])
    law = resolve(SITES, [BitFlips(p01=0.005, p10=0.015, sites={"kind": "weight"})])
    assert [plan.program(name) for name in WEIGHTS] == [law.program(name) for name in WEIGHTS]


def test_transient_clusters_are_clusters_of_the_stream():
    plan = resolve(SITES, [ProfileFaults(profile="mcu", at={"event_probability": 1e-3})])
    (process,) = plan.at("a.weight").processes
    assert isinstance(process, Process)
    assert (process.kind, process.axis, len(process.sizes)) == ("cluster", "word", 3)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_share_of_clusters_strikes_that_share_of_the_cells(share):
    """A cell flips if an odd number of events reach it, each of size s from one of the s cells before and on it."""
    sizes, h = (0.7738095238, 0.1190476190, 0.0714285714, 0.0357142858), 4e-3
    even = math.prod(1 - 2 * h * sum(sizes[offset:]) for offset in range(4))
    p = share * (1 - even) / 2
    words = 1 << 18
    site = Site(name="w", kind="weight", bit_width=4, signed=False, shape=(words,))
    fault = ProfileFaults(profile="mcu", at={"event_probability": h}, share=share)
    (step,) = resolve([site], [fault]).steps("w")
    codes = strike_codes(step, np.zeros((1, words), np.uint32), 5, np.zeros(1, np.int64), False)
    flips = sum(int((codes >> plane & 1).sum()) for plane in range(4))
    # flips of one event come together, so that their number varies more than that of independent ones: 1.37 on average
    assert abs(flips - 4 * words * p) < 5 * math.sqrt(4 * words * p * 2)


def test_intermittent_profiles_keep_their_activity(tmp_path):
    persistence = {"kind": "intermittent", "p_active": 0.3, "refresh": "batch"}
    plan = resolve(SITES, [ProfileFaults(profile=written(tmp_path, persistence=persistence), at={"p": 0.01})], device=4)
    for k, name in enumerate(WEIGHTS):
        (process,) = plan.at(name).processes
        assert (process.threshold, process.refresh) == (int(0.3 * 2**32), "batch")
        assert process.site_number == site_number(name, 0)
        assert not process.permanent
        assert len(process.map), k
    permanent = resolve(SITES, [ProfileFaults(profile=written(tmp_path), at={"p": 0.01})], device=4)
    assert all_cells(plan) == all_cells(permanent)


def test_what_strikes_no_memory_is_refused():
    with pytest.raises(ModelError, match="no site matches any of '\\* kind=accumulator'"):
        resolve(SITES, [ProfileFaults(profile="stuck-mac-array", at={"pe_fraction": 0.1})])
    with pytest.raises(ModelError, match="faults of processing elements strike accumulators"):
        resolve(SITES, [ProfileFaults(profile="stuck-mac-array", at={"pe_fraction": 0.1}, sites="*.weight")])


EXAMPLES = {
    KC705: {"voltage_v": 0.53}, "bram28-virtex7-vc707-undervolt": {"voltage_v": 0.55}, SRAM: {"operating_point": 1},
    "sram65-lowvdd-sun2017": {"voltage_v": 0.5}, "ddr3l-retention-70c-1v35": {"refresh_interval_ms": 2048},
    "ddr3l-retention-1v35": {"refresh_interval_ms": 2048, "temperature_c": 70},
    "seu-sram-iec61508-ref": {"exposure_h": 24}, "uniform-flips": {"ber": 0.01},
    "asymmetric": {"p01": 0.01, "p10": 0.02}, "mcu": {"event_probability": 0.001},
}  # fmt: skip


def test_every_profile_of_the_library_that_strikes_words_is_tried():
    arrays = {name for name in library() if Profile.load(name).component in ("accumulator", "datapath")}
    assert set(library()) - arrays == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_profile_of_the_library_makes_a_plan(name):
    fault = ProfileFaults(profile=name, at=EXAMPLES[name])
    plan = resolve(SITES, [fault], device=1)
    assert plan.names == WEIGHTS
    assert (plan.device == 1) == (Profile.load(name).persistence.kind != "transient") == bind([fault])[0].by_specimen
    assert FaultPlan.from_json(plan.to_json()) == plan


def test_devices_differ_and_are_repeatable():
    one, same, other = (resolve(SITES, [sram()], device=d) for d in (1, 1, 2))
    assert one == same
    assert one.digest == same.digest != other.digest
    assert all_cells(one) != all_cells(other)
    assert (one.device, other.device) == (1, 2)
    for device in (2**64 - 1, 2**63):
        assert resolve(SITES, [sram()], device=device).device == device
    for device in (-1, 2**64, 1.5, True):
        with pytest.raises(HwfaultError):
            resolve(SITES, [sram()], device=device)


def test_a_plan_without_a_device_says_nothing_of_one(tmp_path):
    faults = [BitFlips(probability=0.1), MapFaults(file=saved(tmp_path, 10**5, 32, []))]
    plan = resolve(SITES, faults, device=7)
    assert plan.device is None
    assert '"device"' not in plan.to_json()
    assert not any(one.by_specimen for one in bind(faults))


def test_two_faults_of_one_kind_are_one_step_and_two_processes(tmp_path):
    device = saved(tmp_path, 10**5, 32, [(0, 0, 0), (5, 7, 2)])
    plan = resolve(SITES, [sram(), MapFaults(file=device), BitFlips(probability=0.1), sram(1)], device=1)
    assert [type(step) for step in plan.steps("a.weight")] == [MapStep, StreamStep, MapStep]
    first, second = (map_of(plan, "a.weight", k) for k in (0, 1))
    assert plan.steps("a.weight")[0].process.map == first.then(second)
    assert [p.fault for p in plan.at("a.weight").processes] == [0, 1, 2, 3]


# one behind the other


@pytest.mark.parametrize(
    "wrong", [{"p_active": 1.5}, {"p_active": -1}, {"refresh": "day"}, {"first_row": -1}, {"fil": "x"}]
)
def test_map_faults_that_are_none(wrong):
    with pytest.raises(ModelError):
        MapFaults(**{"file": "x"} | wrong)


@pytest.mark.parametrize(
    "wrong", [{"share": 1.1}, {"share": -0.1}, {"profil": "x"}, {"at": {"v": "much"}}, {"sites": 3}]
)
def test_profile_faults_that_are_none(wrong):
    with pytest.raises(ModelError):
        ProfileFaults(**{"profile": SRAM} | wrong)


def test_measured_maps_that_come_and_go(tmp_path):
    path = saved(tmp_path, 10**5, 32, [(0, 0, 0)])
    plan = resolve(SITES, [MapFaults(file=path, p_active=0.25, refresh="power_cycle")])
    (process,) = plan.at("a.weight").processes
    assert (process.threshold, process.refresh) == (2**30, "power_cycle")
    assert resolve(SITES, [MapFaults(file=path)]).at("a.weight").processes[0].permanent
