"""Graphs with functions, branches and loops, from the command line."""

import numpy as np
import onnx
import pytest

from tests.cli.conftest import good
from tests.helpers.graph.levels import branch, function, loop, samples

GRAPHS = {"branch": branch, "function": function, "loop": loop}


def test_faults_go_into_a_loop_and_out_of_it(tmp_path):
    path, faulted, again = (tmp_path / f"{name}.onnx" for name in ("g", "faulted", "again"))
    onnx.save(loop(), path)
    np.save(tmp_path / "x.npy", samples(loop()))
    listed = good("sites", path).stdout
    assert "q#2" in listed
    assert "no sites, which no fault strikes" not in listed
    good("insert", path, "--ber", 0.1, "--out", faulted)
    good("run", faulted, "--input", tmp_path / "x.npy", "--seed", 7, "--output", tmp_path / "y.npy")
    good("run", path, "--input", tmp_path / "x.npy", "--output", tmp_path / "clean.npy")
    assert not np.array_equal(np.load(tmp_path / "y.npy"), np.load(tmp_path / "clean.npy"))
    good("strip", faulted, "--out", again)
    assert onnx.load(again) == onnx.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_their_accuracy_is_measured_and_their_bundle_is_proved(name, tmp_path):
    model = GRAPHS[name]()
    onnx.save(model, tmp_path / "g.onnx")
    x = samples(model, 12)
    np.savez(tmp_path / "xy.npz", x=x, y=np.arange(12) % 4)
    data = ("--data", tmp_path / "xy.npz")
    measured = good("evaluate", tmp_path / "g.onnx", *data, "--rates", "0,0.05", "--seeds", "0-2", "--json").json
    assert measured
    good("export", tmp_path / "g.onnx", "--bundle", *data, "--ber", 0.05, "--seeds", "5", "--out", tmp_path / "b.zip")
    assert good("replay", tmp_path / "b.zip", "--json").json["verdict"] == "pass"
