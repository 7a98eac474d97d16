"""What a plan says of patterns drawn where they do not hold, and where it is kept."""

import json
import logging

import numpy as np
import pytest

from hwfault.campaigns.points import only_bit, only_site
from hwfault.devices.synthetic import draw_device
from hwfault.laws.models import BitFlips, ProfileFaults
from hwfault.notices import spoken, tell_once
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import Independent
from hwfault.program.processes import Site

KC705 = "bram28-kintex7-kc705b-undervolt"
SITES = [Site(name="w", kind="weight", bit_width=4, signed=True, shape=(64, 16))]
HOLDS = "holds at voltage_v=0.53 only"


def at(voltage, **options):
    return ProfileFaults(profile=KC705, at={"voltage_v": voltage}, **options)


@pytest.fixture
def told(caplog):
    """What is logged for the first time, as far as this test goes."""
    with spoken(lambda _text: None), caplog.at_level(logging.WARNING, logger="hwfault"):
        yield caplog


def test_a_plan_has_the_note_and_tells_it_once(told):
    plans = [resolve(SITES, [at(0.54), BitFlips(probability=0.1)], device=device) for device in range(3)]
    (note,) = plans[0].notes
    assert HOLDS in note
    assert [record.getMessage() for record in told.records] == [note]
    assert f"note: {note}" in str(plans[0])
    again = FaultPlan.from_json(plans[0].to_json())
    assert (again, again.digest) == (plans[0], plans[0].digest)
    assert only_site(plans[0], "w").notes == plans[0].notes
    maps = resolve(SITES, [at(0.54)])
    assert only_bit(maps, 1).notes == maps.notes == plans[0].notes


def test_no_note_where_nothing_is_to_be_said(told):
    for faults in ([at(0.53)], [at(0.54, spatial=Independent())], [at(0.61)], [BitFlips(probability=0.1)]):
        plan = resolve(SITES, faults)
        assert plan.notes is None
        assert "notes" not in json.loads(plan.to_json())
    assert not told.records


def test_scaled_faults_are_at_another_rate():
    assert resolve(SITES, [at(0.53)], factors=[1.0]).notes is None
    (note,) = resolve(SITES, [at(0.53)], factors=[0.25]).notes
    assert "at a share of its rate" in note
    assert resolve(SITES, [at(0.53)], factors=[0.0]).notes is None


def test_a_loaded_plan_tells_its_note(told, tmp_path):
    with spoken(lambda _text: None):
        resolve(SITES, [at(0.54)]).save(tmp_path / "plan.json")
    told.clear()
    with spoken(lambda _text: None):
        FaultPlan.load(tmp_path / "plan.json")
    assert [HOLDS in record.getMessage() for record in told.records] == [True]


def test_independent_cells_keep_the_rate():
    """The rate stands under either pattern."""
    sites = [Site(name="w", kind="weight", bit_width=4, signed=True, shape=(1000, 1000))]
    found = {}
    for name, options in (("pattern", {}), ("independent", {"spatial": Independent()})):
        plans = [resolve(sites, [at(0.54, **options)], device=device) for device in range(12)]
        found[name] = np.mean([plan.at("w").processes[0].map.word.size / 4e6 for plan in plans])
    rate = Profile.load(KC705).resolve_rate({"voltage_v": 0.54}).cells
    assert found["independent"] == pytest.approx(rate, rel=0.15)
    assert found["pattern"] == pytest.approx(rate, rel=0.6)


def test_a_drawn_device_keeps_the_note(told):
    device = draw_device(Profile.load(KC705), {"voltage_v": 0.54}, device=1, rows=1024)
    assert HOLDS in device.provenance["note"]
    assert len(told.records) == 1
    assert "note" not in draw_device(Profile.load(KC705), {"voltage_v": 0.53}, device=1, rows=1024).provenance


def test_notices_from_strangers_are_shown_without_control_codes():
    heard = []
    with spoken(heard.append):
        tell_once(["a\x1b[31mred\nline", "b"])
        tell_once(["b"])
    assert heard == ["warning: a\\x1b[31mred\\nline", "warning: b"]
