"""Plans with fault maps: their files, what is wrong with them, names of faults, and listings."""

import json
from functools import cache

import numpy as np
import pytest

from hwfault.errors import ModelError, PlanError
from hwfault.graph.run.strike import strike_codes
from hwfault.laws.models import BitFlips, MapFaults, ProfileFaults, load_faults, named_faults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.plan.listing import faults_at
from hwfault.profiles.profile import Profile
from hwfault.program.processes import Site
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.protection_scheme import Protection
from tests.laws.test_profile import KC705, SITES, SRAM, WEIGHTS, at_voltage, cells, map_of, saved, sram, written


@cache
def mixed_plan():
    faults = [sram(), BitFlips(probability=0.01), at_voltage(0.53, sites={"kind": "activation"})]
    return resolve(SITES, faults, device=2**64 - 1)


def test_plans_survive_json_and_files(tmp_path):
    plan = mixed_plan()
    read = FaultPlan.from_json(plan.to_json())
    assert read == plan
    assert (read.digest, read.device, read.to_json()) == (plan.digest, 2**64 - 1, plan.to_json())
    plan.save(tmp_path / "p.json")
    assert FaultPlan.load(tmp_path / "p.json") == plan
    assert map_of(read, "a.weight") == map_of(plan, "a.weight")
    assert map_of(read, "a.weight").provenance["device"] == str(2**64 - 1)


def test_provenance_says_where_a_map_comes_from():
    provenance = map_of(mixed_plan(), "a.weight").provenance
    assert provenance["name"] == SRAM
    assert provenance["profile"] == Profile.load(SRAM).digest
    assert provenance["at"] == "operating_point=0"


def test_a_plan_is_printed():
    text = str(mixed_plan())
    assert "fault 0 (map)" in text
    assert "fault 1 (bit)" in text
    assert SRAM in text


def changed_json(plan, change):
    data = json.loads(plan.to_json())
    process = next(p for entry in data["sites"] for p in entry["processes"] if p["kind"] == "map")
    change(process)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["map"].pop("word"), "not a fault map"),
        (lambda p: p["map"].update(extra=1), "not a fault map"),
        (lambda p: p["map"]["word"].reverse(), "ascending"),
        (lambda p: p["map"]["word"].__setitem__(0, -1), "word -1"),
        (lambda p: p["map"]["word"].__setitem__(0, 0.5), "integers"),
        (lambda p: p["map"]["word"].__setitem__(0, "x"), "fault map"),
        (lambda p: p["map"]["word"].pop(), "one length"),
        (lambda p: p["map"]["and_mask"].__setitem__(0, -1), "and_mask"),
        (lambda p: p["map"]["and_mask"].__setitem__(0, 2**32 + 5), "and_mask"),
        (lambda p: p["map"]["xor_mask"].__setitem__(0, 16), "bits beyond"),
        (lambda p: p["map"]["xor_mask"].__setitem__(0, 2**70), "fault map"),
        (lambda p: p["map"].update(bit_width=5), "words of 5 bits for"),
        (lambda p: p["map"].update(words=10**6), "1000000 words"),
        (lambda p: p["map"].update(word={}), "fault map"),
        (lambda p: p["map"].update(provenance=[1]), "fault map"),
        (lambda p: p.update(map=3), "not a fault map"),
        (lambda p: p.update(threshold=2**32 + 1), "threshold"),
        (lambda p: p.update(refresh="day"), "refresh"),
        (lambda p: p.update(site_number=5), "is not its own"),
        (lambda p: p.update(representation="gray"), "representation"),
    ],
)
def test_plans_whose_maps_are_wrong(change, words):
    plan = resolve(SITES, [sram()])
    with pytest.raises(PlanError, match=words):
        FaultPlan.from_json(changed_json(plan, change))


# names


def test_named_faults(tmp_path):
    assert named_faults("map:a b.safetensors") == (MapFaults(file="a b.safetensors"),)
    assert named_faults(f"{KC705}@voltage_v=0.53") == (at_voltage(0.53),)
    assert named_faults(KC705) == (ProfileFaults(profile=KC705),)
    mine = written(tmp_path)
    assert named_faults(f"{mine}@p=0.5") == (ProfileFaults(profile=mine, at={"p": 0.5}),)
    assert named_faults(mine) == load_faults(mine) == (ProfileFaults(profile=mine),)
    listed = tmp_path / "faults.yaml"
    listed.write_text(
        f"faults: [{{model: profile, profile: {KC705}, at: {{voltage_v: 0.53}}}}, {{model: map, file: x}}]"
    )
    assert named_faults(str(listed)) == (at_voltage(0.53), MapFaults(file="x"))


@pytest.mark.parametrize(
    "text", [f"{KC705}@", f"{KC705}@voltage_v", f"{KC705}@voltage_v=x", f"{KC705}@v=1,v=2", "@a=1", "x@=1"]
)
def test_names_that_are_none(text):
    with pytest.raises(ModelError):
        named_faults(text)


# listings


def test_the_listing_of_a_map_is_its_cells():
    plan = resolve(SITES, [BitFlips(probability=1e-3), sram()])
    found = [f for f in faults_at(plan, "a.weight", seed=1, sample=0) if f.process == 1]
    words = {"flip": 0, "stuck at 0": 1, "stuck at 1": 2}
    listed = [(f.word, f.bit, words[f.effect]) for f in found]
    assert listed == sorted(cells(map_of(plan, "a.weight", 1)))
    assert all(f.aux is None for f in found)


def test_the_listing_of_an_intermittent_map_is_what_is_active(tmp_path):
    every = [(w, b, 0) for w in range(2000) for b in range(32)]
    path = saved(tmp_path, 2000, 32, every)
    site = SITES[3].model_copy(update={"shape": (100, 10)})
    for refresh, period in (("inference", 5), ("batch", 5), ("epoch", 0), ("power_cycle", 0)):
        plan = resolve([site], [MapFaults(file=path, sites="a.act", p_active=0.3, refresh=refresh)])
        (step,) = plan.steps("a.act")
        listed = {(f.word, f.bit, 0) for f in faults_at(plan, "a.act", seed=2, sample=5, first_sample=5)}
        assert listed == cells(step.active(2, period))
        assert 0 < len(listed) < 3000


def test_the_listing_stays_within_the_words_asked_for():
    plan = resolve(SITES, [sram()])
    whole = faults_at(plan, "a.weight", seed=1, sample=0)
    assert [f for f in whole if f.word < 100] == faults_at(plan, "a.weight", seed=1, sample=0, words=100)


@pytest.mark.parametrize("words", [1, 2, 3, 4, 7, 8])
def test_protected_words_that_lie_across_memory_words_are_struck_to_the_last_bit(tmp_path, words):
    """Two flips in each memory word of 8 data bits, which parity does not see, in words of 6 bits."""
    rows = -(-words * 6 // 8)
    flips = [(row, bit) for row in range(rows) for bit in (0, 1)]
    FaultMap.from_cells(rows, 9, *zip(*flips, strict=True), [Kind.FLIP] * len(flips)).save(tmp_path / "m.safetensors")
    fault = MapFaults(file=str(tmp_path / "m.safetensors"), protection=Protection(kind="parity", data_bits=8))
    site = Site(name="w", kind="weight", bit_width=6, signed=False, shape=(words,))
    (step,) = resolve([site], [fault]).steps("w")
    struck = strike_codes(step, np.zeros((1, words), np.uint32), 0, np.zeros(1, np.int64), False)[0]
    ones = {8 * row + bit for row, bit in flips if 8 * row + bit < 6 * words}
    assert {6 * word + bit for word, code in enumerate(struck.tolist()) for bit in range(6) if code >> bit & 1} == ones


def test_selectors_of_maps_are_weights_unless_given(tmp_path):
    path = saved(tmp_path, 10**5, 32, [])
    assert resolve(SITES, [MapFaults(file=path)]).names == WEIGHTS
    assert resolve(SITES, [MapFaults(file=path, sites=[Select(kind="bias")])]).names == ("a.bias",)
    with pytest.raises(ModelError, match="no site matches"):
        resolve(SITES[:1], [MapFaults(file=path)])
