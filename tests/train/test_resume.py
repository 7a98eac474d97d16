"""A run that was killed goes on to the very weights and history of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hwfault import files
from hwfault.train import TrainConfig
from hwfault.train.run import train_into
from tests.slowly import thinned

FLIPS = {"model": "bit_flips", "probability": 0.05}
CONFIG = {
    "network": "tests.helpers.train.small:network",
    "data": "tests.helpers.train.small:data",
    "augment": "tests.helpers.train.small:jitter",
    "validation": 0.25,
    "batch_size": 4,
    "accumulate": 2,
    "learning_rate": 0.01,
    "checkpoint_every": 2,
    "checkpoint_every_steps": 2,
    "faults": [
        FLIPS | {"schedule": {"ramp": "linear", "ramp_epochs": 2, "share": 0.7}},
        FLIPS | {"sites": "*weight*", "schedule": {"refresh_epochs": 2, "until_epoch": 9}},
    ],
    "phases": [
        {"epochs": 3, "optimizer": "sgd", "schedule": {"name": "plateau", "patience": 0}},
        {"epochs": 1, "freeze": ["3"], "clip_weights": 0.2, "faults": []},
        {"epochs": 2, "loss_on": "average", "draws": 2},
        {"epochs": 2, "faults": [FLIPS | {"schedule": {"ramp": "cosine", "ramp_epochs": 1}}]},
    ],
}
BATCHES = 9


class KilledError(BaseException):
    """What stands for the process's end."""


def run(folder, killed_after=None, **options):
    """Trains; the process "ends" after a number of batches."""
    done = 0

    def advance():
        nonlocal done
        done += 1
        if done == killed_after:
            raise KilledError

    return train_into(folder, TrainConfig(**CONFIG), lambda _what, _steps: advance, **options)


def resumed(folder, killed_after=None):
    return run(folder, killed_after, resume=(folder / "config.json").exists())


def kept(folder):
    """Everything of a run that does not name a time or a process."""
    tensors = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    return tensors, (folder / "history.csv").read_text()


def equal(one, other):
    (tensors, history), (others, other_history) = one, other
    assert history == other_history
    assert tensors.keys() == others.keys()
    for name, part in tensors.items():
        assert part.keys() == others[name].keys()
        for key, tensor in part.items():
            assert torch.equal(tensor, others[name][key]), (name, key)
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp("whole")
    assert len(run(folder)) == 8
    return kept(folder)


@pytest.mark.parametrize("batches", thinned([3 * BATCHES + 1, 1, 4, 5, 3 * BATCHES, 5 * BATCHES + 7], 6))
def test_killed_after_a_batch(tmp_path, whole, batches):
    with pytest.raises(KilledError):
        run(tmp_path, batches)
    resumed(tmp_path)
    assert equal(kept(tmp_path), whole)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path, whole):
    for _ in range(40):
        try:
            resumed(tmp_path, killed_after=6)
        except KilledError:
            continue
        break
    assert equal(kept(tmp_path), whole)


@pytest.mark.parametrize("first", thinned([2, 4, 7, 8, 11], 5))
def test_killed_when_a_file_is_to_be_replaced(tmp_path, whole, monkeypatch, first):
    """At a write, before the new file takes the old one's place; what is half written lies about."""
    replace, count = os.replace, 0

    def replaced(source, target):
        nonlocal count
        count += 1
        if count in (first, first + 11, first + 30):
            (tmp_path / f".{os.path.basename(target)}.left.ckpt").write_bytes(b"half")
            raise KilledError
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", replaced)
    killed = 0
    while True:
        try:
            resumed(tmp_path)
            break
        except KilledError:
            killed += 1
    assert killed == 3
    assert equal(kept(tmp_path), whole)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_statistics_that_are_gathered_over_the_first_batches_go_on(tmp_path):
    """Activations of Brevitas learn their scale from the statistics of 30 batches, which no state_dict tells."""
    few = {"network": "tests.helpers.train.small:gathering", "checkpoint_every_steps": 2, "validation": 0}
    config = TrainConfig(**CONFIG | few | {"phases": [], "epochs": 4})
    ends = []
    for name, kills in (("one", []), ("other", [13, 15])):
        for kill in [*kills, None]:
            count = [0]

            def advance(kill=kill, count=count):
                count[0] += 1
                if count[0] == kill:
                    raise KilledError

            try:
                resume = (tmp_path / name / "config.json").exists()
                train_into(tmp_path / name, config, lambda _what, _steps, advance=advance: advance, resume=resume)
            except KilledError:
                continue
        ends.append(kept(tmp_path / name))
    assert equal(*ends)


@pytest.mark.every(2)
@pytest.mark.parametrize("kill", [3, 7])
def test_numbers_that_a_module_of_the_users_own_keeps_go_on(tmp_path, kill):
    """One with a fraction, one whole and a truth, of a layer that fades its noise out: none is in its state_dict."""
    config = TrainConfig(
        **CONFIG | {"network": "tests.helpers.train.small:fading", "phases": [], "epochs": 2, "faults": []}
    )
    count = [0]

    def advance():
        count[0] += 1
        if count[0] == kill:
            raise KilledError

    train_into(tmp_path / "whole", config, lambda _what, _steps: lambda: None)
    with pytest.raises(KilledError):
        train_into(tmp_path / "killed", config, lambda _what, _steps: advance)
    train_into(tmp_path / "killed", config, lambda _what, _steps: lambda: None, resume=True)
    assert equal(kept(tmp_path / "killed"), kept(tmp_path / "whole"))


def test_a_run_of_one_rank_is_not_resumed_by_two(tmp_path, monkeypatch):
    with pytest.raises(KilledError):
        run(tmp_path, 12)
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(Exception, match="the run had 1 ranks, now 2; resume with as many"):
        resumed(tmp_path)


def started(folder, *more):
    command = [sys.executable, "-m", "hwfault", "train", "--config", folder / "run.yaml", "--out", folder / "run"]
    resume = ["--resume"] if (folder / "run" / "config.json").exists() else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([*command, *resume, *more], stderr=subprocess.PIPE, text=True, env=environment)


def begun(folder):
    """When the latest start of the run got as far as its first step; 0 before."""
    path = folder / "run" / "environment.json"
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "often"), [(0, 1), (0, 2), (1, 2), (2, 2)])
def test_killed_by_the_system(tmp_path, whole, seed, often):
    """SIGKILL at random moments, a few times over."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    chance, kills = random.Random(seed), 0
    while True:
        before, process = begun(tmp_path), started(tmp_path)
        while process.poll() is None and begun(tmp_path) == before:
            time.sleep(0.005)
        try:
            process.wait(chance.uniform(0, 0.8) if kills < often else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, error = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
    assert process.returncode == 0 or "the run is finished" in error
    assert kills > 0
    assert equal(kept(tmp_path / "run"), whole)
