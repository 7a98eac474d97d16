"""What a store says of its runs: kept, merged, and refused where damaged."""

import pytest

from hwfault.campaigns.about import About, merge_runs, note_end, note_start, read_about, read_runs
from hwfault.campaigns.database import FILE, Database
from hwfault.errors import FileError, ModelError


@pytest.fixture
def stores(tmp_path):
    opened = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        opened.append(Database(tmp_path / name / FILE))
    yield opened
    for store in opened:
        store.close()


def test_a_run_is_kept_with_its_command_and_its_end(stores, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/hwfault", "campaign", "run", "my study.yaml"])
    note_start(stores[0])
    (run,) = read_runs(stores[0])
    assert run.command == "hwfault campaign run 'my study.yaml'"
    assert run.ended is None
    assert "hwfault" in run.versions
    note_end(stores[0])
    (run,) = read_runs(stores[0])
    assert run.ended >= run.started


def test_runs_are_merged_once(stores):
    for store in stores:
        note_start(store)
        note_end(store)
    several = [run for store in stores for run in read_runs(store)]
    for _ in range(2):
        merge_runs(stores[0], stores[1])
    found = read_runs(stores[0])
    assert set(map(str, found)) == set(map(str, several))
    assert len(found) == len(set(map(str, found)))


def test_nothing_said_is_nothing(stores):
    assert read_about(stores[0]) is None
    assert read_runs(stores[0]) == []


@pytest.mark.parametrize("text", ["{", "3", '{"engine": 1}', "[1]"])
def test_damage_is_told(stores, text):
    stores[0].say("about", text)
    stores[0].say("runs", text)
    with pytest.raises((FileError, ModelError)):
        read_about(stores[0])
    with pytest.raises((FileError, ModelError)):
        read_runs(stores[0])


def test_what_is_said_is_read_again(stores):
    told = About(engine="torch", version="2", exact=True, note="sums are integers", faults={"d": ("bit_flips",)})
    stores[0].say("about", told.model_dump_json(exclude_defaults=True))
    assert read_about(stores[0]) == told
