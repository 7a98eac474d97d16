"""Sites that a run's folder keeps: believed only where the network built anew would have the very same."""

import json
import os
import shutil
from types import SimpleNamespace

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant.mx_quant_ocp import MXInt8Weight
from safetensors.torch import load_file, safe_open
from safetensors.torch import save_file as save_tensors
from torch import nn

import hwfault as package
from hwfault.cli.runs import Trusted
from hwfault.errors import FileError
from hwfault.train import TrainConfig, kept_sites
from hwfault.train import run as training
from hwfault.train.data import digits
from tests.cli.conftest import good, hwfault, refused
from tests.helpers.train import small
from tests.network.test_tied import Tied

WAYS = (
    ["sites"],
    ["sites", "--json"],
    ["faults", "--ber", "0.02"],
    ["faults", "--ber", "0.02", "--save", "plan.json"],
    ["faults", "--ber", "0.05", "--site", "{first}", "--sample", "3", "--json"],
    ["faults", "--ber", "0.05", "--site", "{first}"],
    ["faults", "--ber", "0.05", "--site", "none"],
    ["faults"],
)
"""Commands that are given a run, which comes second."""


@pytest.fixture
def mine(run, tmp_path, monkeypatch):
    """A run of one's own, and a current folder to write in."""
    shutil.copytree(run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def said(run, first):
    """All that the commands say and write of a run."""
    told = []
    for command, *rest in WAYS:
        told.append(hwfault(command, run, *(word.format(first=first) for word in rest)))
    with open("plan.json") as file:
        return [*told, file.read()]


def count_loads(monkeypatch):
    """How often networks are built from here on."""
    loads, load = [], Trusted.load
    monkeypatch.setattr(Trusted, "load", lambda self, run: loads.append(run) or load(self, run))
    return loads


def test_what_training_keeps_is_what_the_network_has(mine, monkeypatch):
    loads = count_loads(monkeypatch)
    kept, before = (mine / "sites.json").read_bytes(), said(mine, "features.0.weight_quant")
    assert loads == []
    (mine / "sites.json").unlink()
    anew = hwfault("sites", mine)
    assert loads == [mine]
    assert anew == before[0]
    assert (mine / "sites.json").read_bytes() == kept
    assert said(mine, "features.0.weight_quant") == before
    assert len(loads) == 1


class Again(nn.Module):
    """An activation that runs three times, with a layer between."""

    def __init__(self):
        super().__init__()
        self.layer = qnn.QuantLinear(4, 4, bias=True)
        self.act = qnn.QuantReLU()

    def forward(self, x):
        for _ in range(2):
            x = self.act(self.layer(self.act(x)))
        return x


def obstructed():
    first = qnn.QuantLinear(4, 64, bias=False, weight_quant=MXInt8Weight)
    return nn.Sequential(first, qnn.QuantReLU(), qnn.QuantLinear(64, 3, bias=False))


def wide():
    return nn.Sequential(qnn.QuantLinear(4, 3, bias=True, weight_bit_width=26), qnn.QuantReLU(bit_width=26))


NETWORKS = {
    "accumulators": (small.network, torch.rand(1, 4)),
    "tied": (Tied, None),
    "several runs": (Again, torch.rand(1, 4)),
    "obstacles": (obstructed, torch.rand(1, 4)),
    "notes": (wide, torch.rand(1, 4)),
    "no shapes": (small.network, None),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_sites_is_kept_whole(name, tmp_path, monkeypatch):
    """Networks of code are never kept; here they are, as if there were built-in ones of every kind."""
    build, example = NETWORKS[name]
    torch.manual_seed(0)
    network, loads = build().eval(), []
    loaded = network, TrainConfig(), SimpleNamespace(example=example)
    monkeypatch.setattr(Trusted, "load", lambda self, run: loads.append(run) or loaded)
    monkeypatch.setattr(kept_sites, "key_of", lambda run: "key")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    first = json.loads(good("sites", run, "--json").stdout)["sites"][0]["name"]
    (run / "sites.json").unlink()
    with monkeypatch.context() as without:
        without.setattr(kept_sites, "keep_sites", lambda run, key, found: None)
        anew = said(run, first)
    assert not (run / "sites.json").exists()
    good("sites", run)
    loads.clear()
    assert said(run, first) == anew
    assert loads == []


def forge(run, **changes):
    """Kept sites that lie, under the key that fits."""
    content = json.loads((run / "sites.json").read_text())
    (run / "sites.json").write_text(json.dumps(content | changes))


LIE = [{"name": "a.lie", "kind": "weight", "bit_width": 2, "signed": True, "shape": [3]}]


def test_they_are_read_where_the_key_fits(mine):
    forge(mine, sites=LIE)
    assert "a.lie" in good("sites", mine).stdout


@pytest.mark.parametrize("words", [["--data", "digits"], ["--example", "x.npy"], ["--network", "digits_cnn"]])
def test_whoever_asks_otherwise_is_told_of_the_network_itself(mine, words):
    np.save("x.npy", np.zeros((2, 1, 8, 8), np.float32))
    forge(mine, sites=LIE)
    told = good("sites", mine, *words).stdout
    assert "a.lie" not in told
    assert "input.act_quant" in told


def test_a_checkpoint_by_its_name_is_read_itself(mine):
    forge(mine, sites=LIE)
    assert "a.lie" not in good("sites", mine / "checkpoint.safetensors").stdout


def other_weights(run, monkeypatch):
    path = run / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_tensors(tensors | {"classifier.weight": tensors["classifier.weight"] * 2}, path, metadata=metadata)


def other_configuration(run, monkeypatch):
    path = run / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["hwfault.config"]) | {"epochs": 77}
    save_tensors(load_file(path), path, metadata=metadata | {"hwfault.config": json.dumps(config)})


def other_version(run, monkeypatch):
    monkeypatch.setattr(package, "__version__", "0.4.9")


def other_brevitas(run, monkeypatch):
    monkeypatch.setattr(kept_sites, "version", lambda name: "0.12.0" if name == "brevitas" else "2.12")


def anothers(run, monkeypatch):
    forge(run, sites=LIE, key="0" * 64)


@pytest.mark.parametrize("change", [other_weights, other_configuration, other_version, other_brevitas, anothers])
def test_of_another_run_they_are_found_anew(mine, monkeypatch, change):
    before = good("sites", mine)
    forge(mine, sites=LIE)
    change(mine, monkeypatch)
    assert good("sites", mine) == before
    assert "a.lie" not in (mine / "sites.json").read_text()
    loads = count_loads(monkeypatch)
    assert good("sites", mine) == before
    assert loads == []


BROKEN = {
    "empty": b"",
    "half": b'{"key": "a", "sites": [{"na',
    "a list": b"[]",
    "deep": b"[" * 200_000,
    "no text": b"\xff\xfe\x00",
    "unknown key": b'{"key": "a", "sites": [], "obstacles": {}, "notes": {}, "code": "import os"}',
    "a site of 99 bits": b'{"key": "a", "sites": [{"name": "q", "kind": "weight", "bit_width": 99, "signed": true}], '
    b'"obstacles": {}, "notes": {}}',
    "a number": b'{"key": "a", "sites": [], "obstacles": {}, "notes": {"q": 1}}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_none_and_is_replaced(mine, content):
    whole, before = (mine / "sites.json").read_bytes(), good("sites", mine)
    (mine / "sites.json").write_bytes(content)
    told = good("sites", mine)
    assert told.stdout == before.stdout
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"warning: {mine}/sites.json: does not hold the sites of a run (")
    assert line.endswith("; they are found anew")
    assert (mine / "sites.json").read_bytes() == whole


def test_too_large_a_file_is_not_read(mine, monkeypatch):
    monkeypatch.setattr(kept_sites, "_LARGEST", 100)
    assert "bytes, expected the sites of a run of at most 100" in good("sites", mine).stderr


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "link to nothing"])
def test_what_is_no_file_stays(mine, kind):
    before, place, elsewhere = good("sites", mine), mine / "sites.json", mine.parent / "precious"
    place.unlink()
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(elsewhere)
    if kind == "link":
        elsewhere.write_bytes(b"{}")
    told = good("sites", mine)
    assert told.stdout == before.stdout
    assert "does not hold the sites of a run" in told.stderr
    assert not place.is_file() or place.read_bytes() == b"{}"
    assert elsewhere.exists() == (kind == "link")


def test_a_folder_that_cannot_be_written(mine, monkeypatch):
    before = good("sites", mine)
    (mine / "sites.json").unlink()

    def full(path, _content):
        raise FileError(f"{path}: cannot be written (Read-only file system); choose another place")

    monkeypatch.setattr(kept_sites, "write_atomically", full)
    assert good("sites", mine) == before
    assert good("sites", mine) == before


def test_a_run_that_is_trained_on_meanwhile(mine, monkeypatch):
    (mine / "sites.json").unlink()
    load = Trusted.load

    def slowly(self, run):
        found = load(self, run)
        other_weights(run, monkeypatch)
        return found

    monkeypatch.setattr(Trusted, "load", slowly)
    good("sites", mine)
    assert not (mine / "sites.json").exists()


def unchanged(batch):
    """A transform of the user's own."""
    return batch


CODE = {
    "network": "tests.helpers.train.small:half_quantized",
    "transform": "tests.cli.test_kept_sites:unchanged",
    "data": "tests.cli.test_kept_sites:own_digits",
}


def own_digits():
    return digits()


@pytest.mark.parametrize("key", CODE)
def test_code_that_a_run_names_is_asked_for_whatever_its_folder_keeps(tmp_path, monkeypatch, key):
    run, words = tmp_path / "run", [f"--{key}", CODE[key]]
    good("train", *words, "--epochs", 1, "--out", run)
    assert not (run / "sites.json").exists()
    with monkeypatch.context() as hostile:  # who makes the folder can compute every key
        hostile.setattr(kept_sites, "is_code", lambda spec: False)
        hostile.setattr(kept_sites, "_DATA_IN_PACKAGES", ("digits", CODE["data"]))
        forged = kept_sites.key_of(run)
    assert forged is not None
    (run / "sites.json").write_text(json.dumps({"key": forged, "sites": LIE, "obstacles": {}, "notes": {}}))
    for command in (["sites"], ["faults", "--ber", "0.1"]):
        message = refused(command[0], run, *command[1:], words=f"(--{key} {CODE[key]}) if you trust it")
        assert "code that a file names is not run" in message
    assert "a.lie" not in good("sites", run, *words).stdout


def test_data_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = small.data(shape=(1, 8, 8))
    arrays = {"x_train": data.train_x, "y_train": data.train_y, "x_test": data.test_x, "y_test": data.test_y}
    arrays = {name: tensor.numpy() for name, tensor in arrays.items()}
    np.savez("data.npz", **arrays)
    good("train", "--data", "data.npz", "--epochs", 1, "--out", "run")
    loads = count_loads(monkeypatch)
    before = good("sites", "run")
    assert loads == []
    np.savez("data.npz", **arrays | {"x_train": arrays["x_train"] / 2})
    assert good("sites", "run") == before
    assert len(loads) == 1
    os.rename("data.npz", "other.npz")
    refused("sites", "run", words="data.npz: there is no such file")


def test_data_in_a_folder_are_looked_at_each_time(run, tmp_path, monkeypatch):
    assert kept_sites.key_of(run) is not None
    for changes in ({"data": "mnist"}, {"data_folder": str(tmp_path)}, {"data": "image_folder"}):
        monkeypatch.setattr(kept_sites, "_configuration", lambda _path, changes=changes: TrainConfig(**changes))
        assert kept_sites.key_of(run) is None


def test_a_run_whose_sites_cannot_be_told_is_trained_all_the_same(tmp_path, monkeypatch):
    def none(*_):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(training, "sites", none)
    good("train", "--epochs", 1, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run" / "sites.json").exists()
