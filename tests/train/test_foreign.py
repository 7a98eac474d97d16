"""Networks trained elsewhere: weights alone, with their network and data named beside them."""

import shlex
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hwfault.errors import FileError
from hwfault.train import TrainConfig, build, train
from hwfault.train.checkpoint import load
from hwfault.train.loading import RunOptions
from hwfault.train.state_files import read_state
from tests.cli.conftest import good, hwfault, refused
from tests.helpers.train import small

OWN = "tests.helpers.train.small:network"
DATA = "tests.helpers.train.small:data"


@pytest.fixture(scope="module")
def network():
    """A trained one: before, Brevitas' learned scales are no part of a state."""
    network = build(OWN, seed=3)
    train(network, small.data(), TrainConfig(network=OWN, epochs=1, batch_size=16))
    return network.eval()


def wrapped(state):
    return {f"model.{name}": tensor for name, tensor in state.items()}


WAYS = {
    "w.safetensors": lambda path, state: save_file({k: v.clone() for k, v in state.items()}, path),
    "w.pth": lambda path, state: torch.save(state, path),
    "data_parallel.pt": lambda path, state: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "lightning.ckpt": lambda path, state: torch.save({"epoch": 3, "state_dict": wrapped(state)}, path),
    "loop.bin": lambda path, state: torch.save({"model": state, "lr": 0.1}, path),
}


@pytest.mark.parametrize("name", WAYS)
def test_weights_are_those_of_the_network(tmp_path, network, name):
    WAYS[name](tmp_path / name, network.state_dict())
    loaded, config = load(tmp_path / name, network=OWN)
    assert config.network == OWN
    assert not loaded.training
    x = small.data().test_x
    assert torch.equal(loaded(x), network(x))


def test_the_commands_take_them(tmp_path, network):
    weights = tmp_path / "w.pth"
    WAYS["w.pth"](weights, network.state_dict())
    options = ["--network", OWN, "--data", DATA]
    assert "weight" in good("sites", weights, *options).stdout
    rates = ["--rates", "0,0.05", "--seeds", "0-1"]
    assert good("evaluate", weights, *options, *rates, "--json").json
    graph = tmp_path / "my graph.onnx"
    done = good("export", weights, *options, "--ber", 0.05, "--out", graph)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("next: hwfault ")]
    replayed = good(*shlex.split(line)[2:], "--seeds", "0", "--accept", "outputs")
    assert "Accepted: " in replayed.stdout


def test_a_run_of_ones_own_code_says_how_it_is_evaluated(tmp_path):
    options = ["--network", OWN, "--data", DATA]
    done = good("train", *options, "--epochs", 1, "--out", tmp_path / "my run")
    line = done.stdout.splitlines()[-1].partition("next: hwfault ")[2]
    assert good(*shlex.split(line), "--seeds", "0-1").code == 0


def test_without_their_network_the_refusal_says_what_is_needed(tmp_path, network):
    for name in ("w.safetensors", "w.pth"):
        WAYS[name](tmp_path / name, network.state_dict())
        message = refused(
            "evaluate", tmp_path / name, "--ber", 0.1, words=["hf.save", "--network module:function --data"]
        )
        assert str(tmp_path / name) in message


def test_without_their_data(tmp_path, network):
    WAYS["w.pth"](tmp_path / "w.pth", network.state_dict())
    refused("evaluate", tmp_path / "w.pth", "--network", OWN, "--ber", 0.1, words="holds weights alone, not what the")


def test_another_networks(tmp_path, network):
    state = network.state_dict()
    first = next(iter(state))
    WAYS["w.pth"](tmp_path / "less.pth", {name: tensor for name, tensor in state.items() if name != first})
    with pytest.raises(FileError, match=rf"is another network's.*it has no {first}"):
        load(tmp_path / "less.pth", network=OWN)
    WAYS["w.pth"](tmp_path / "more.pth", state | {"more": torch.zeros(1)})
    with pytest.raises(FileError, match=r"is another network's.*unknown more"):
        load(tmp_path / "more.pth", network=OWN)


class Made:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_is_run(tmp_path, network):
    torch.save({"state_dict": network.state_dict(), "hyper": Made(tmp_path / "made")}, tmp_path / "w.ckpt")
    with pytest.raises(FileError, match="not a checkpoint of tensors alone"):
        load(tmp_path / "w.ckpt", network=OWN)
    assert not (tmp_path / "made").exists()
    done = hwfault("evaluate", tmp_path / "w.ckpt", "--network", OWN, "--data", DATA, "--ber", 0.1)
    assert done.code == 1
    assert "Traceback" not in done.stderr


def test_a_packed_archive_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as source, zipfile.ZipFile(tmp_path / "p.pth", "w") as packed:
        for member in source.infolist():
            packed.writestr(member.filename, source.read(member), zipfile.ZIP_DEFLATED)
    assert read_state(tmp_path / "w.pth")["a"].shape == (100,)
    with pytest.raises(FileError, match="packed members"):
        read_state(tmp_path / "p.pth")


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileError, match="cannot be read"):
        load(tmp_path / "none.pth", network=OWN)
    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(FileError, match="not a checkpoint of tensors alone"):
        load(tmp_path / "x.pth", network=OWN)
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(FileError, match=r"x\.npz"):
        load(tmp_path / "x.npz", network=OWN)


def test_words_are_quoted():
    assert RunOptions().words == ""
    assert RunOptions("a:b", "my data.npz").words == " --network a:b --data 'my data.npz'"
