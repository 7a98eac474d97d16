"""Names of runs, what their configurations have otherwise, and their differences."""

import json
from pathlib import Path

import pytest

from hwfault.campaigns.compare import compared, names_of, otherwise
from hwfault.campaigns.trials import Trials
from hwfault.errors import HwfaultError
from hwfault.laws.models import BitFlips
from hwfault.train import TrainConfig


def config(**keys):
    return TrainConfig.parse(keys, "a test")


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["x/a", "y/b"], ["a", "b"]),
        (["x/run", "y/run", "z"], ["x/run", "y/run", "z"]),
        (["/p/x/run", "/q/x/run", "x/b"], ["p/x/run", "q/x/run", "b"]),
        (["x", "y/x"], ["{here}/x", "y/x"]),
        (["run/", "./other/../b"], ["run", "b"]),
    ],
)
def test_names_are_as_short_as_they_can_be(runs, names, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert names_of([Path(run) for run in runs]) == tuple(name.format(here="here") for name in names)


def test_a_run_twice(tmp_path):
    with pytest.raises(HwfaultError, match="given twice"):
        names_of([tmp_path / "a", tmp_path / "b", tmp_path / "." / "a"])


def test_what_configurations_have_otherwise():
    configs = {
        "a": config(epochs=3, network_args={"bits": 4}),
        "b": config(epochs=5, network_args={"bits": 4}, faults=[BitFlips(probability=0.01)]),
        "c": config(epochs=3, network_args={"bits": 8, "wide.r": True}, faults=[BitFlips(probability=0.02)]),
    }
    changed = otherwise(configs)
    assert changed["epochs"] == ("3", "5", "3")
    assert changed["network_args.bits"] == ("4", "4", "8")
    assert changed["network_args.wide.r"] == ("-", "-", "true")
    assert changed["faults"][0] == "-"
    assert "0.01" in changed["faults"][1]
    assert set(changed) == {"epochs", "network_args.bits", "network_args.wide.r", "faults"}
    assert otherwise({"a": configs["a"], "b": configs["a"]}) == {}
    assert otherwise({"a": configs["a"]}) == {}


def test_a_rate_that_differs_is_named_by_its_own_key():
    changed = otherwise({str(p): config(faults=[BitFlips(probability=p)]) for p in (0.01, 0.02)})
    ((key, values),) = changed.items()
    assert key.startswith("faults.0.")
    assert key.endswith("probability")
    assert values == ("0.01", "0.02")


def test_runs_beside_the_first():
    def points(*corrects):
        return [
            Trials(seeds=(1, 2, 3), correct=c, samples=10, ber=ber, golden=9)
            for c, ber in zip(corrects, (0.0, 0.1), strict=True)
        ]

    one, two = compared(
        {"one": ("digits", points((9, 9, 9), (5, 6, 4))), "two": ("x.npz", points((9, 9, 9), (7, 8, 6)))}
    )
    assert one.beyond == ()
    assert [difference.mean for difference in two.beyond] == pytest.approx([0, 0.2])
    low, high = two.beyond[1].interval
    assert (two.beyond[1].by, low < 0.2 < high) == ("bound", True), "three equal differences are no certainty"
    rows = [*one.rows(), *two.rows()]
    assert [(row["network"], row["data"], row["ber"]) for row in rows] == [
        ("one", "digits", 0.0), ("one", "digits", 0.1), ("two", "x.npz", 0.0), ("two", "x.npz", 0.1)
    ]  # fmt: skip
    assert "difference" not in rows[0]
    assert rows[3]["difference"] == pytest.approx(0.2)
    assert json.loads(json.dumps(two.to_data()))["points"][1]["difference"]["mean"] == pytest.approx(0.2)
