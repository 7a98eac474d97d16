"""Files that faults name: read once, and known again by their digests."""

import json
import logging
from hashlib import sha256
from pathlib import Path

import pytest

from hwfault import inputs, notices
from hwfault.errors import ModelError
from hwfault.laws.files import Files
from hwfault.laws.models import MapFaults, ProfileFaults, bind, named_faults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.profiles.library import profile_path
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap
from tests.laws.test_profile import KC705, SITES, saved, sram, written

PERMANENT = {"p": 0.01}


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened, in order."""
    names, before = [], inputs.open_regular

    def counting(path):
        names.append(Path(path).name)
        return before(path)

    monkeypatch.setattr(inputs, "open_regular", counting)
    return names


@pytest.fixture
def told(monkeypatch, caplog):
    """What is logged, also what was told before."""
    monkeypatch.setattr(notices, "_told", set())
    with caplog.at_level(logging.WARNING, logger="hwfault"):
        yield caplog


ARRAY = Site(name="c.accumulator", kind="accumulator", bit_width=16, signed=True, weights=(8, 9), shape=(8,))
PARITY = {"kind": "parity", "data_bits": 32}
LISTS = {
    "cells": [ProfileFaults(profile=KC705, at={"voltage_v": 0.55})],
    "a protected memory": [
        sram(protection={"kind": "secded", "data_bits": 32}, mapping={"kind": "linear", "row_bits": 32})
    ],
    "transient": [ProfileFaults(profile="uniform-flips", at={"ber": 0.01})],
    "twice": [sram(), sram(1, sites="b.*")],
    "elements": [ProfileFaults(profile="systolic-ws-256x256-stuckat", at={"pe_fraction": 0.0})],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_plan_reads_a_profile_once(opened, name):
    resolve([*SITES, ARRAY], LISTS[name])
    assert len(opened) == 1


def test_a_plan_reads_a_map_once(tmp_path, opened):
    path = saved(tmp_path, 10**5, 32, [(1, 2, 0)])
    resolve(SITES, [MapFaults(file=path), MapFaults(file=path, first_row=2)])
    assert opened == ["device.safetensors"]


def test_a_list_of_faults_and_its_plan_read_a_profile_of_ones_own_once(tmp_path, opened):
    path, files = written(tmp_path, rate={"quantity": "faulty_cells", "free": ["p"]}), Files()
    faults = [fault.model_copy(update={"at": PERMANENT}) for fault in named_faults(path, files)]
    resolve(SITES, faults, files=files)
    assert opened == ["mine.yaml"]


def test_what_was_read_stays_as_it_was(tmp_path):
    path, files = written(tmp_path), Files()
    fault = ProfileFaults(profile=path, at=PERMANENT)
    before = resolve(SITES, [fault], files=files)
    written(tmp_path, effect={"stuck_at_1": 1.0})
    assert resolve(SITES, [fault], device=0, files=files) == before
    assert resolve(SITES, [fault]) != before


def test_plans_name_the_content_that_they_were_made_of(tmp_path):
    path, profile = saved(tmp_path, 10**5, 32, [(1, 2, 0)]), written(tmp_path)
    plan = resolve(SITES, [MapFaults(file=path), ProfileFaults(profile=profile, at=PERMANENT), sram()])
    files = (Path(path), Path(profile), profile_path("sram14-ibm-7points"))
    assert [fault.digest for fault in plan.faults] == [sha256(file.read_bytes()).hexdigest() for file in files]
    assert FaultPlan.from_json(plan.to_json()) == plan


def test_plans_without_digests_are_read(tmp_path, told):
    plan = resolve(SITES, [sram()])
    data = json.loads(plan.to_json())
    del data["faults"][0]["digest"]
    assert FaultPlan.from_json(json.dumps(data)).faults == (sram(),)
    assert told.text == ""


def test_a_plan_of_another_content_is_told_so_and_read(tmp_path, told):
    path = written(tmp_path)
    plan = resolve(SITES, [ProfileFaults(profile=path, at=PERMANENT)] * 2)
    plan.save(tmp_path / "plan.json")
    assert FaultPlan.load(tmp_path / "plan.json") == plan
    assert told.text == ""
    written(tmp_path, title="another")
    assert FaultPlan.load(tmp_path / "plan.json") == plan
    assert f"{path}: the file has changed since a plan was made of it" in told.text
    assert told.text.count("has changed") == 1


def test_a_map_with_another_content_is_told_so(tmp_path, told):
    path = saved(tmp_path, 10**5, 32, [(1, 2, 0)])
    plan = resolve(SITES, [MapFaults(file=path)])
    FaultMap.from_cells(10**5, 32, [3], [4], [1]).save(path)
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert "has changed" in told.text


@pytest.mark.parametrize("gone", ["removed", "a folder"])
def test_a_file_that_is_not_there_says_nothing(tmp_path, told, gone):
    path = Path(written(tmp_path))
    plan = resolve(SITES, [ProfileFaults(profile=str(path), at=PERMANENT)])
    path.unlink()
    if gone == "a folder":
        path.mkdir()
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert told.text == ""


def test_a_name_that_the_library_does_not_have_says_nothing(told):
    text = resolve(SITES, [sram()]).to_json().replace('"sram14-ibm-7points","at"', '"another","at"')
    assert FaultPlan.from_json(text).faults[0].profile == "another"
    assert told.text == ""


def test_resolving_a_plans_faults_again_is_of_the_file_as_it_is(tmp_path, told):
    path = written(tmp_path)
    (kept,) = resolve(SITES, [ProfileFaults(profile=path, at=PERMANENT)]).faults
    written(tmp_path, effect={"stuck_at_1": 1.0})
    again = resolve(SITES, [kept])
    assert again.faults[0].digest == sha256(Path(path).read_bytes()).hexdigest() != kept.digest
    assert "has changed" in told.text
    assert "as it is" in told.text


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "G" * 64, 7])
def test_a_digest_is_a_sha_256(digest):
    with pytest.raises(ModelError, match="digest"):
        MapFaults(file="x", digest=digest)


def test_bound_faults_hold_what_was_read(tmp_path):
    path = saved(tmp_path, 10**5, 32, [(1, 2, 0)])
    of_map, of_profile = bind([MapFaults(file=path), sram()])
    assert of_map.cells == FaultMap.load(path)
    assert (of_map.profile, of_profile.cells) == (None, None)
    assert of_profile.profile.name == "sram14-ibm-7points"
