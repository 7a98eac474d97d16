"""Two processes that train together, with gloo on the CPU."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.helpers.train.recording import NOTES, notes
from tests.process import own_words
from tests.train.test_resume import equal, kept

CONFIG = {
    "network": "tests.helpers.train.recording:network",
    "data": "tests.helpers.train.small:data",
    "validation": 9,
    "batch_size": 4,
    "epochs": 2,
    "accelerator": "cpu",
    "faults": [{"model": "bit_flips", "probability": 0.1, "sites": "*weight*"}],
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]


def train(folder, *options, launcher=(sys.executable,), code=0, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "OMP_NUM_THREADS": "1",
        NOTES: str(folder / "notes"),
    }
    command = [*launcher, "-m", "hwfault", "train", "--config", folder / "run.yaml", "--out", folder / "run", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return done


# most of the time goes to starting processes
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """(folder, what was printed) of a run by two processes that Lightning starts."""
    folder = tmp_path_factory.mktemp("two")
    return folder, train(folder, "--devices", "2", "--json")


def test_the_first_rank_alone_writes_and_speaks(two):
    folder, done = two
    assert [epoch["epoch"] for epoch in json.loads(done.stdout)] == [1, 2]
    assert done.stderr.count("training") == 1
    lines = own_words(done.stderr).strip().splitlines()
    assert len(lines) == 2, done.stderr
    assert sum("run as one operator each" in line for line in lines) == 1
    assert len(list((folder / "run" / "tensorboard").iterdir())) == 1
    assert len(json.loads((folder / "run" / "environment.json").read_text())) == 1


def test_ranks_see_different_data_and_different_faults(two):
    ranks = notes(two[0] / "notes")
    assert len(ranks) == 2
    forwards = [[n for n in rank if n["training"]] for rank in ranks]
    assert len(forwards[0]) == len(forwards[1]) == 2 * 5, "39 samples are 20 for each rank, in batches of 4"
    for epoch in (slice(0, 5), slice(5, 10)):
        seen = [[x for note in rank[epoch] for x in note["x"]] for rank in forwards]
        assert len(set(seen[0] + seen[1])) == 39, "all samples, and one of them twice"
    weights = [tuple(note["weight"]) for rank in forwards for note in rank]
    assert len(set(weights)) == len(weights), "faults are drawn for each batch and rank"


def test_ranks_share_the_validation_out(two):
    measured = []
    for rank in notes(two[0] / "notes"):
        first = next(i for i, note in enumerate(rank) if note["training"])
        measured.append([x for note in rank[first:] if not note["training"] for x in note["x"]])
    assert [len(part) for part in measured] == [5 * 4, 4 * 4], "9 samples, clean and faulty, after two epochs"
    assert len({round(x, 6) for part in measured for x in part}) == 9


def test_torchrun_comes_to_the_same(two, tmp_path):
    whole = kept(two[0] / "run")
    train(tmp_path / "a", launcher=[*TORCHRUN, "29517"], devices=2)
    assert equal(kept(tmp_path / "a" / "run"), whole)


def test_a_run_of_two_is_killed_and_resumed(two, tmp_path):
    killer = "tests.helpers.train.recording:mortal"
    train(tmp_path, "--devices", "2", network=killer, code=-9, checkpoint_every_steps=3)
    assert (tmp_path / "run" / "last.ckpt").exists()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["network"] == killer
    train(tmp_path, "--devices", "2", "--resume", network=killer, checkpoint_every_steps=3)
    assert equal(kept(tmp_path / "run"), kept(two[0] / "run"))


def test_a_loss_that_is_not_finite_ends_both_and_is_told_once(tmp_path):
    done = train(tmp_path, "--devices", "2", "--learning-rate", "1e30", "--optimizer", "sgd", code=1)
    assert done.stderr.count("Error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "in epoch 1 of 2, step" in done.stderr
