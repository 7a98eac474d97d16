"""A network of token numbers from its training to its proof: its data are integers all the way."""

import pytest

from hwfault.proof.storage import Bundle
from tests.cli.conftest import good, refused

CODE = """
import torch
from brevitas import nn as qnn
from torch import nn

from hwfault.train.data import Dataset
from tests.helpers.graph.networks import WEIGHTS, signed


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = qnn.QuantEmbedding(12, 4, **WEIGHTS)
        self.each = signed(5)
        self.head = qnn.QuantLinear(20, 3, bias=False, **WEIGHTS)

    def forward(self, ids):
        return self.head(self.each(self.embed(ids)).value.flatten(1))


def network(spec=None, seed=0, **_):
    torch.manual_seed(seed)
    return Words()


def data(**_):
    drawn = torch.Generator().manual_seed(1)
    x = torch.randint(0, 12, (60, 5), generator=drawn)
    y = x.sum(1) % 3
    return Dataset(x[:40], y[:40], x[40:], y[40:])
"""


@pytest.mark.slow
def test_a_run_on_tokens(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hwfault_test_words.py").write_text(CODE)
    own = ("--network", "hwfault_test_words:network", "--data", "hwfault_test_words:data")
    run = tmp_path / "run"
    good("train", *own, "--epochs", 1, "--out", run)
    listed = good("sites", run, *own, "--json").json["sites"]
    assert [site["name"] for site in listed][:1] == ["embed.weight_quant"]
    good("evaluate", run, *own, "--ber", 0.02, "--seeds", "0,1")
    good("export", run, *own, "--ber", 0.02, "--out", tmp_path / "g.onnx")
    replayed = good("replay", tmp_path / "g.onnx", run, *own, "--seeds", "0,1", "--json").json
    assert (replayed["verdict"], replayed["samples"]) == ("pass", 20)
    good("export", run, *own, "--ber", 0.02, "--bundle", "--out", tmp_path / "b")
    (entry,) = Bundle.open(tmp_path / "b").manifest.inputs
    assert (entry.name, entry.dtype, entry.shape) == ("input", "int64", (5,))
    assert good("replay", tmp_path / "b", "--json").json["verdict"] == "pass"


TURN = "        if ids.float().mean() > 100:\n            return -self.head(self.embed(ids).flatten(1))\n"
DECIDES = CODE.replace("        return self.head(", f"{TURN}        return self.head(")


@pytest.mark.slow
def test_a_network_that_decides_is_exported_as_traced_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hwfault_test_decides.py").write_text(DECIDES)
    own = ("--network", "hwfault_test_decides:network", "--data", "hwfault_test_decides:data")
    run = tmp_path / "run"
    good("train", *own, "--epochs", 1, "--out", run)
    words = ["the network's own forward (", "hwfault_test_decides.py:18: if ids.float().mean() > 100:)", "--as-traced"]
    refused("export", run, *own, "--out", tmp_path / "g.onnx", words=words)
    done = good("export", run, *own, "--as-traced", "--ber", 0.02, "--out", tmp_path / "g.onnx")
    assert "warning: the network's own forward (" in done.stderr
    assert good("replay", tmp_path / "g.onnx", run, *own, "--seeds", 0, "--json").json["verdict"] == "pass"
