"""`hwfault compare`: runs side by side, their differences paired by fault seed, their configurations."""

import csv
import json
import shutil

import pytest

from hwfault.campaigns.database import Database
from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.campaigns.evaluate import evaluate
from hwfault.campaigns.trials import paired
from hwfault.laws.models import bit_errors
from hwfault.train import TrainConfig, build, checkpoint
from hwfault.train.data import digits
from tests.cli.conftest import files, good, refused

ARGUMENTS = ["--rates", "0,0.03", "--seeds", "0-2"]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run of the same name in another folder, hardly trained and with another configuration."""
    folder = tmp_path_factory.mktemp("other") / "run"
    folder.mkdir()
    checkpoint.save(
        folder / "checkpoint.safetensors", build("digits_cnn", seed=3).eval(), TrainConfig(seed=3, epochs=7)
    )
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run of the user's own network and data."""
    from tests.helpers.train.small import data, network

    folder = tmp_path_factory.mktemp("small") / "mine"
    folder.mkdir()
    learnt = network()
    learnt(data().train_x)  # its scales
    spec = {"network": "tests.helpers.train.small:network", "data": "tests.helpers.train.small:data"}
    checkpoint.save(folder / "checkpoint.safetensors", learnt.eval(), TrainConfig(**spec))
    return folder


def test_two_runs_side_by_side(run, other, tmp_path):
    done = good("compare", run, other, *ARGUMENTS, "--out", tmp_path / "out")
    first, second = f"{run.parent.name}/run", f"{other.parent.name}/run"
    networks = [checkpoint.load(path / "checkpoint.safetensors")[0] for path in (run, other)]
    faults = [bit_errors(ber) for ber in (0.0, 0.03)]
    expected = [[evaluate(net, digits().test, plan=plan, seeds=range(3)) for plan in faults] for net in networks]
    found = good("compare", run, other, *ARGUMENTS, "--json").json
    assert [entry["name"] for entry in found["runs"]] == [first, second]
    assert [entry["data"] for entry in found["runs"]] == ["digits test"] * 2
    for entry, points in zip(found["runs"], expected, strict=True):
        assert [tuple(point["correct"]) for point in entry["points"]] == [point.correct for point in points]
    difference = paired(expected[1][1], expected[0][1])
    assert found["runs"][1]["points"][1]["difference"]["mean"] == difference.mean
    assert found["runs"][1]["points"][1]["difference"]["interval"] == pytest.approx(difference.interval)
    assert "difference" not in found["runs"][0]["points"][0]
    assert found["configurations"]["seed"] == ["0", "3"]
    assert found["configurations"]["epochs"] == ["2", "7"]
    assert "network" not in found["configurations"]

    table = done.stdout
    assert table.splitlines()[0].split()[-2:] == [first, second]
    assert f"{expected[1][1].mean:.2%}" in table
    low, high = (100 * end for end in difference.interval)
    assert f"{100 * difference.mean:+.2f} (bound {low:+.2f} to {high:+.2f})" in table
    assert f"more accurate than {first}, seed by seed, in percentage points" in table
    assert "95 % intervals of the mean over fault seeds on these samples" in table
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["ber"], row["data"]) for row in rows] == [
        (name, ber, "digits test") for name in (first, second) for ber in ("0.0", "0.03")
    ]
    assert float(rows[3]["difference"]) == difference.mean
    assert rows[0]["difference"] == ""
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {key: stored[key] for key in ("runs", "configurations")} == found
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def trials_in(store):
    """The trials of a store, by point and seed: which answers were right."""
    with Database(store, readonly=True) as database:
        return {
            (task.digest, row.key): row.answers.tolist() for task in database.tasks() for row in database.rows(task)
        }


def test_it_goes_on_where_it_was_and_refuses_another_question(run, other, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = good("compare", run, other, *ARGUMENTS, "--out", out)
    before = files(out)
    stores = [out / name for name in before if name.name.startswith("campaign-")]
    assert len(stores) == 2
    kept = [trials_in(store) for store in stores]
    assert [len(trials) for trials in kept] == [6, 6]
    runs, plain = [], TorchEngine.run
    monkeypatch.setattr(TorchEngine, "run", lambda *given: runs.append(given) or plain(*given))
    assert good("compare", run, other, *ARGUMENTS, "--out", out).stdout == first.stdout
    assert runs == []
    assert [trials_in(store) for store in stores] == kept
    refused("compare", run, other, "--rates", "0.1", "--out", out, words="trials of another question")


def test_runs_on_other_data_say_so(run, small):
    own = ["--network", "tests.helpers.train.small:network"]
    done = refused(
        "compare",
        run,
        small,
        *own,
        *ARGUMENTS,
        words=["was trained on the data", "--data tests.helpers.train.small:data"],
    )
    assert "code that a file names is not run" in done
    refused("compare", run, small, *ARGUMENTS, words="--network tests.helpers.train.small:network")


def test_different_data_sets_are_told_apart(run, tmp_path):
    import numpy as np

    x, y = digits().test_x.numpy(), digits().test_y.numpy()
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    mine = tmp_path / "mine"
    mine.mkdir()
    network, config = checkpoint.load(run / "checkpoint.safetensors")
    checkpoint.save(
        mine / "checkpoint.safetensors", network, config.model_copy(update={"data": str(tmp_path / "d.npz")})
    )
    done = good("compare", run, mine, *ARGUMENTS, "--out", tmp_path / "out")
    data = next(line for line in done.stdout.splitlines() if line.startswith("data "))
    assert "digits test" in data
    assert f"{tmp_path / 'd.npz'} test" in data
    assert any(line.startswith("data ") for line in done.stdout.split("what the runs' configurations")[1].splitlines())
    one = good("compare", run, mine, "--data", "digits", *ARGUMENTS, "--json").json["runs"]
    assert one[0]["points"][1]["correct"] == one[1]["points"][1]["correct"]


def test_a_checkpoint_alone_and_one_run_alone(run, tmp_path):
    shutil.copy(run / "checkpoint.safetensors", tmp_path / "c.safetensors")
    done = good("compare", tmp_path / "c.safetensors", "--rates", "0.03", "--seeds", "0-1")
    assert "more accurate" not in done.stdout
    assert "configurations" not in done.stdout
    assert done.stdout.splitlines()[0].split()[-1] == "c.safetensors"


@pytest.mark.parametrize("rates", ["", "x", "0.1,,2"])
def test_wrong_usage(run, out, rates):
    refused("compare", run, f"--rates={rates}", "--out", out, words="--rates", code=2)
    refused("compare", "--out", out, words="Missing argument", code=2)


def test_runs_that_are_none(run, out, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("compare", run, empty, "--out", out, words=["checkpoint.safetensors: cannot be read"])
    refused("compare", run, tmp_path / "nothing", "--out", out, words="cannot be read")
    refused("compare", run, run, "--out", out, words="is given twice")
    refused("compare", run, "--rates", "2", "--out", out, words="expected a number in [0, 1]")
    refused("compare", run, "--select", "nothing*", "--out", out, words="no site matches")
    (tmp_path / "file").write_text("x")
    refused("compare", run, "--out", tmp_path / "file", words="not a folder to write in")
