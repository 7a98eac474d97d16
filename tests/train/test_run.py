"""What a run leaves in its folder, and what folders it refuses."""

import csv
import json
import os
import subprocess

import pytest
import torch
from tensorboardX.proto.event_pb2 import Event
from torch import nn

from hwfault.errors import FileError, HwfaultError
from hwfault.laws.models import bit_errors
from hwfault.train import TrainConfig, checkpoint
from hwfault.train.environment import environment
from hwfault.train.run import _batches, resumed_config, train_into
from tests.helpers.train import small

OWN = {"network": "tests.helpers.train.small:network", "data": "tests.helpers.train.small:data", "batch_size": 16}


def begin(_what, _steps):
    return lambda: None


def run(folder, resume=False, **changes):
    return train_into(folder, TrainConfig(**OWN | {"epochs": 3} | changes), begin, resume=resume)


def events(folder):
    """(step, name, value) of every figure in TensorBoard's files: records of length, checksum, event, checksum."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


def test_the_folder(tmp_path):
    history = run(tmp_path, validation=0.25, faults=bit_errors(0.05), checkpoint_every=2)
    names = {"config.json", "environment.json", "history.csv", "last.ckpt", "checkpoint.safetensors"}
    assert set(os.listdir(tmp_path)) == names | {"best.safetensors", "epoch-0002.safetensors", "tensorboard"}
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    told = [
        {key: "" if value is None else str(value) for key, value in epoch.model_dump().items()} for epoch in history
    ]
    assert told == rows
    config = TrainConfig.load(tmp_path / "config.json")
    assert config.validation == 0.25
    for name in ("checkpoint", "best", "epoch-0002"):
        assert checkpoint.load(tmp_path / f"{name}.safetensors", OWN["network"])[1] == config


def test_the_best_network_is_that_of_the_best_epoch(tmp_path):
    history = run(tmp_path, validation=0.5, faults=bit_errors(0.05), checkpoint_every=1, epochs=8, learning_rate=0.05)
    best = max(history, key=lambda epoch: epoch.faulty_accuracy)
    kept, named = ((tmp_path / name) for name in ("best.safetensors", f"epoch-{best.epoch:04}.safetensors"))
    one, other = (checkpoint.load(path, OWN["network"])[0].state_dict() for path in (kept, named))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert best.epoch != history[-1].epoch


def test_the_best_network_by_a_loss_is_that_of_the_smallest(tmp_path):
    """With steps so long that the loss rises again, so that neither the last nor the first epoch is the best."""
    options = {"validation": 0.5, "checkpoint_every": 1, "epochs": 6, "learning_rate": 0.2}
    history = run(tmp_path, monitor="validation_loss", **options)
    best = min(history, key=lambda epoch: epoch.validation_loss)
    worst = max(history, key=lambda epoch: epoch.validation_loss)
    kept = checkpoint.load(tmp_path / "best.safetensors", OWN["network"])[0].state_dict()
    for epoch, same in ((best, True), (worst, False)):
        named = checkpoint.load(tmp_path / f"epoch-{epoch.epoch:04}.safetensors", OWN["network"])[0].state_dict()
        assert all(torch.equal(kept[key], named[key]) for key in kept) == same


def test_figures_in_tensorboard(tmp_path):
    history = run(tmp_path, validation=0.25)
    found = {(step, name): value for step, name, value in events(tmp_path)}
    for epoch in history:
        for name in ("loss", "accuracy", "learning_rate", "validation_accuracy"):
            assert found[epoch.epoch, name] == pytest.approx(getattr(epoch, name))
    assert not any(name.startswith("faulty") for _, name in found)


def test_the_environment(tmp_path):
    run(tmp_path, epochs=1)
    (start,) = json.loads((tmp_path / "environment.json").read_text())
    # an installation calls the builds of one version by one name, or has "+cpu" or "+cu130" behind it
    assert start["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert start["versions"].keys() >= {"python", "hwfault", "brevitas", "lightning"}
    assert start.keys() >= {"started", "command", "platform", "cpu", "gpus", "threads", "ranks", "git"}


def test_the_commit_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git"] is None
    (tmp_path / "a").write_text("a")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "a"), (*who, "commit", "-qm", "a")):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert environment()["git"] == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("b")
    assert environment()["git"] == {"commit": commit, "dirty": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["git"] == {"commit": commit, "dirty": None}, "without git, files are not compared"


def test_checkpoints_hold_plain_data_only(tmp_path):
    run(tmp_path, validation=0.25, faults=bit_errors(0.05), early_stopping=5, schedule="plateau")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    seen = set()

    def walk(value):
        seen.add(type(value))
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        for part in inner:
            walk(part)

    walk(content)
    assert seen <= {dict, list, tuple, str, int, float, bool, type(None), torch.Tensor}, seen


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    run(tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(FileError, match=r"holds a run already \(last\.ckpt\); go on with --resume, or choose another"):
        run(tmp_path, epochs=1)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises(FileError, match=r"holds a run already \(checkpoint\.safetensors\)"):
        run(tmp_path, epochs=1)


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(FileError, match=r"holds no run to resume \(no config\.json\); leave out --resume"):
        run(tmp_path, resume=True)
    run(tmp_path)
    with pytest.raises(FileError, match="the run is finished, after 3 epochs; there is nothing to resume"):
        run(tmp_path, resume=True)


def test_a_run_that_stopped_early_is_finished(tmp_path):
    still = {"learning_rate": 1e-30, "validation": 0.5, "early_stopping": 1, "epochs": 30}
    epochs = len(run(tmp_path, **still))
    assert epochs < 30
    with pytest.raises(FileError, match=f"the run is finished, after {epochs} epochs"):
        run(tmp_path, resume=True, **still)


def test_a_resume_with_another_configuration_lists_what_changed(tmp_path):
    run(tmp_path, faults=bit_errors(0.1))
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(FileError) as error:
        run(tmp_path, resume=True, faults=bit_errors(0.2), learning_rate=0.5, network_args={"bits": 3})
    lines = str(error.value).splitlines()
    assert "another configuration" in lines[0]
    assert lines[1:] == [
        "  network_args.bits: none -> 3",
        "  faults.0.fault.probability: 0.1 -> 0.2",
        "  learning_rate: 0.02 -> 0.5",
    ]
    assert (tmp_path / "config.json").read_bytes() == before


def test_code_that_a_run_names_is_not_run_on_resume(tmp_path):
    run(tmp_path)
    for given, words in (
        ({}, "names the network 'tests.helpers.train.small:network'; code that a file names is not run"),
        ({"network": OWN["network"]}, "names the data 'tests.helpers.train.small:data'"),
    ):
        with pytest.raises(FileError) as error:
            resumed_config(tmp_path, given)
        assert words in str(error.value)
    named = {key: OWN[key] for key in ("network", "data")}
    assert resumed_config(tmp_path, named) == TrainConfig.load(tmp_path / "config.json")
    assert resumed_config(tmp_path, named | {"epochs": 9}).epochs == 9


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no checkpoint at all", "bomb", "other", "half"])
def test_a_state_that_is_none(tmp_path, content):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    run(tmp_path, epochs=1)
    if content == "other":
        torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    elif content == "half":
        torch.save({"state_dict": {}, "hwfault": {"phase": 1, "done": False}}, tmp_path / "last.ckpt")
    elif content == "bomb":
        torch.save({"hwfault": Bomb()}, tmp_path / "last.ckpt")
    else:
        (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(FileError, match=r"last\.ckpt: not a"):
        run(tmp_path, resume=True, epochs=1)
    assert not (tmp_path / "boom").exists()


def test_every_truncation_of_a_state(tmp_path):
    run(tmp_path, epochs=1)
    whole = (tmp_path / "last.ckpt").read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "last.ckpt").write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"last\.ckpt: not a"):
            run(tmp_path, resume=True, epochs=1)


STILL = {"epochs": 1, "learning_rate": 1e-30, "weight_decay": 0}


def test_initial_weights_of_the_float_twin(tmp_path):
    twin = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    torch.save(twin.state_dict(), tmp_path / "float.pt")
    run(tmp_path / "run", **STILL, initial=str(tmp_path / "float.pt"))
    got = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors", OWN["network"])[0]
    assert torch.equal(got[0].weight, twin[0].weight)
    assert torch.equal(got[3].bias, twin[3].bias)
    with pytest.raises(FileError, match="cannot be read"):
        run(tmp_path / "none", initial=str(tmp_path / "none.safetensors"))
    assert os.listdir(tmp_path / "none") == []


def test_initial_weights_of_the_same_network(tmp_path):
    run(tmp_path / "first", epochs=20, learning_rate=0.05)
    initial = tmp_path / "first" / "checkpoint.safetensors"
    run(tmp_path / "second", **STILL, initial=str(initial))
    one, other = (
        checkpoint.load(tmp_path / name / "checkpoint.safetensors", OWN["network"])[0].state_dict()
        for name in ("first", "second")
    )
    assert all(torch.equal(one[key], other[key]) for key in one), "scales that were learned, too"
    with pytest.raises(FileError, match="is 4 bit signed, expected 3 bit signed"):
        run(tmp_path / "third", **STILL, initial=str(initial), network_args={"bits": 3})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"faults": bit_errors(0.1, "features.*")}, "no site matches"),
        ({"freeze": ["features"]}, "freeze: no parameter matches"),
        ({"monitor": "faulty_loss"}, "monitor is 'faulty_loss'"),
        ({"validation": 1000}, "validation is 1000"),
        ({"network": "digits_cnn"}, "the network does not run on the data's inputs of shape (4,)"),
    ],
)
def test_what_does_not_fit_leaves_nothing(tmp_path, given, words):
    with pytest.raises(HwfaultError) as error:
        run(tmp_path, **given)
    assert words in str(error.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("done", "left"), [(0, 10**9 * 12 + 3 * 3 + 12), (10**9, 3 * 3 + 12), (10**9 + 2, 3 + 12), (10**9 + 4, 0)]
)
def test_the_steps_announced_are_those_that_are_left(done, left):
    """Told without a list of as many epochs."""
    config = TrainConfig(epochs=10**9, batch_size=4, phases=[{}, {"epochs": 3, "batch_size": 16}, {"epochs": 1}])
    assert _batches(config, small.data(), 1, done) == left
    assert _batches(config, small.data(), 2, 10**9) == 3 * 2 + 6
