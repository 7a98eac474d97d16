"""A graph alone is measured without torch, which need not even be installed."""

import numpy as np
import onnx

from hwfault.cli import _OF_MEASURING, _OF_TRAINING
from tests.cli.test_bundle import without
from tests.helpers.graph.classifier import classifier, samples

NAMES = tuple(name for name in _OF_TRAINING if name not in _OF_MEASURING)


def without_torch(*commands):
    """Commands, one after the other in one process in which nothing of torch can be imported."""
    return without(NAMES, *commands)


def test_all_that_is_told_of_a_graph_needs_no_torch(tmp_path):
    onnx.save(classifier(1), tmp_path / "g.onnx")
    np.savez(tmp_path / "xy.npz", x=samples(4), y=np.arange(4) % 3)
    data = ("--data", tmp_path / "xy.npz", "--seeds", "0-1")
    bundle, page = tmp_path / "b.zip", tmp_path / "page.html"
    done = without_torch(
        ("evaluate", tmp_path / "g.onnx", *data, "--rates", "0,0.02", "--out", tmp_path / "out"),
        ("export", tmp_path / "g.onnx", *data, "--ber", 0.02, "--bundle", "--out", bundle),
        ("replay", bundle, "--html", page),
    )
    assert done.returncode == 0, done.stderr
    assert page.exists()
    assert {"accuracy.png", "results.csv", "campaign.sqlite"} <= {file.name for file in (tmp_path / "out").iterdir()}
