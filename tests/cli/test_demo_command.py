"""`hwfault demo` on a tenth of its work: what it prints as JSON, and its exit code."""

import json
from functools import partial

import pytest

from hwfault import demo
from hwfault.graph.run import session
from hwfault.train import Dataset, TrainConfig
from hwfault.train.data import digits
from tests.cli.conftest import hwfault


def few_digits():
    data = digits()
    return Dataset(data.train_x[:128], data.train_y[:128], data.test_x[:60], data.test_y[:60])


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(demo, "digits", few_digits)
    monkeypatch.setattr(demo, "TrainConfig", partial(TrainConfig, epochs=1))
    monkeypatch.setattr(demo, "RATES", (0.0, 0.03))
    monkeypatch.setattr(demo, "SEEDS", (5, 6))
    monkeypatch.setattr(demo, "REPLAY_SEEDS", (5,))


def test_json(tmp_path):
    done = hwfault("demo", "--out", tmp_path / "out", "--json")
    assert done.code == 0
    assert set(done.json) == {"accuracy", "replay"}
    assert list(done.json["accuracy"]) == ["trained clean", "trained at BER 0.03"]
    for points in done.json["accuracy"].values():
        assert [point["ber"] for point in points] == [0.0, 0.03]
        assert all(set(point) >= {"seeds", "correct", "samples", "ber"} for point in points)
    stored = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert done.json["replay"]["verdict"] == stored["verdict"] == "pass"
    assert done.json["replay"]["plan_sha256"] == stored["plan_sha256"]


def test_exit_code_3_where_faults_differ(tmp_path, monkeypatch):
    right = session.check_seeds
    monkeypatch.setattr(session, "check_seeds", lambda seed: right(seed ^ 1))
    done = hwfault("demo", "--out", tmp_path / "out")
    assert done.code == 3
    assert "Replay: faults differ." in done.stdout
    assert json.loads((tmp_path / "out" / "replay.json").read_text())["verdict"] == "faults differ"


@pytest.mark.slow
def test_run_again_it_replaces_its_files(tmp_path):
    for _ in range(2):
        assert hwfault("demo", "--out", tmp_path / "out").code == 0
        assert len(list((tmp_path / "out").iterdir())) == 8
