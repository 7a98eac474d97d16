"""Ten epochs of CNV on images in CIFAR-10's true format, end to end through the command line."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch

from hwfault.train import checkpoint
from tests.helpers.train.files import write_cifar10
from tests.train.test_resume import equal, kept

pytestmark = pytest.mark.slow

CONFIG = """
network: cnv
data: cifar10
validation: 64
augment: crop_flip
batch_size: 32
epochs: 10
learning_rate: 1e-3
schedule: {name: multistep, milestones: [8]}
warmup_epochs: 1
faults:
  - {model: bit_flips, probability: 0.001, schedule: {ramp: cosine, ramp_epochs: 3}}
"""


def hwfault(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hwfault", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    (folder / "data").mkdir()
    write_cifar10(folder / "data", n_train=320, n_test=64)
    (folder / "run.yaml").write_text(CONFIG)
    return folder


def train(folder, out, *options):
    return hwfault(folder, "train", "--config", "run.yaml", "--data-folder", "data", "--out", out, *options)


def rows(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def test_one_process(folder):
    printed = train(folder, "one")
    history = rows(folder / "one")
    assert "after 10 epochs" in printed
    assert [row["epoch"] for row in history] == [str(epoch) for epoch in range(1, 11)]
    assert float(history[-1]["accuracy"]) > 0.9 > float(history[0]["accuracy"])
    assert [float(row["ramp"]) for row in history][:5] == pytest.approx([0.146, 0.5, 0.854, 1, 1], abs=1e-3)
    checkpoint.load(folder / "one" / "best.safetensors")
    found = json.loads(
        hwfault(folder, "evaluate", "one", "--ber", "0.001", "--seeds", "0-1", "--json", "--out", "found")
    )
    assert found


def test_two_processes_that_come_to_the_same_every_time(folder):
    train(folder, "two", "--devices", "2", "--accelerator", "cpu", "--epochs", "3")
    train(folder, "again", "--devices", "2", "--accelerator", "cpu", "--epochs", "3")
    assert equal(kept(folder / "two"), kept(folder / "again"))
    history = rows(folder / "two")
    assert float(history[-1]["loss"]) < float(history[0]["loss"])
    assert all(torch.isfinite(t).all() for t in kept(folder / "two")[0]["checkpoint.safetensors"].values())
