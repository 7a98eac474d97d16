"""More epochs for a run: in place, to the very weights of a longer one, or as a new run that says whose it has."""

import csv

import pytest
from safetensors.torch import load_file

from hwfault.errors import FileError
from hwfault.train import TrainConfig
from hwfault.train.longer import extended
from hwfault.train.run import train_into
from tests.cli.conftest import good, refused
from tests.slowly import thinned
from tests.train.test_resume import equal, kept

BASE = {
    "network": "tests.helpers.train.small:network",
    "data": "tests.helpers.train.small:data",
    "validation": 0.25,
    "batch_size": 8,
    "learning_rate": 0.01,
    "faults": [{"model": "bit_flips", "probability": 0.05, "schedule": {"ramp": "linear", "ramp_epochs": 2}}],
}
SCHEDULES = [
    "constant",
    {"name": "step", "step_size": 2},
    {"name": "plateau", "patience": 0},
    {"name": "exponential", "gamma": 0.5},
    {"name": "multistep", "milestones": [1, 3]},
]


def trained(folder, epochs, schedule="constant", **options):
    resume = options.pop("resume", False)
    config = TrainConfig(**BASE, epochs=epochs, schedule={"name": schedule} if isinstance(schedule, str) else schedule)
    config = config.model_copy(update=options)
    return train_into(folder, config, lambda _what, _steps: lambda: None, resume=resume)


@pytest.mark.parametrize("schedule", thinned(SCHEDULES, 5), ids=str)
def test_a_longer_run_is_what_it_would_have_been(tmp_path, schedule):
    trained(tmp_path / "a", 2, schedule)
    trained(tmp_path / "a", 4, schedule, resume=True)
    trained(tmp_path / "b", 4, schedule)
    assert equal(kept(tmp_path / "a"), kept(tmp_path / "b"))
    assert TrainConfig.load(tmp_path / "a" / "config.json").epochs == 4
    with pytest.raises(FileError, match="finished, after 4 epochs"):
        trained(tmp_path / "a", 4, schedule, resume=True)


def test_killed_before_its_first_epoch_it_stays_longer(tmp_path):
    trained(tmp_path / "a", 1)
    config = TrainConfig.load(tmp_path / "a" / "config.json")
    config.model_copy(update={"epochs": 2}).save(tmp_path / "a" / "config.json")
    history = trained(tmp_path / "a", 2, resume=True)
    assert [epoch.epochs for epoch in history] == [2, 2]


def test_what_cannot_be_lengthened(tmp_path):
    trained(tmp_path / "cosine", 1, "cosine")
    with pytest.raises(FileError, match=r"follows a cosine .* --extend .*cosine --epochs 3 --out ANOTHER"):
        trained(tmp_path / "cosine", 3, "cosine", resume=True)
    trained(tmp_path / "other", 1)
    with pytest.raises(FileError, match=r"another configuration, .* changed:\n  epochs: 1 -> 3\n  learning_rate"):
        trained(tmp_path / "other", 3, learning_rate=0.5, resume=True)
    with pytest.raises(FileError, match="finished, after 1 epochs"):
        trained(tmp_path / "other", 1, resume=True)


def test_a_run_that_stopped_early_is_not_lengthened(tmp_path):
    early = {"early_stopping": 1, "learning_rate": 1e-9, "monitor": "accuracy"}
    history = trained(tmp_path / "a", 9, **early)
    assert len(history) < 9
    with pytest.raises(FileError, match=f"stopped early, after {len(history)} of 9 epochs"):
        trained(tmp_path / "a", 12, resume=True, **early)


def test_extended_by_command(tmp_path):
    code = ["--network", BASE["network"], "--data", BASE["data"]]
    trained(tmp_path / "a", 2, "cosine")
    refused("train", "--extend", tmp_path / "a", "--out", tmp_path / "b", words="names the network", code=1)
    good("train", "--extend", tmp_path / "a", *code, "--epochs", 1, "--learning-rate", 1e-12, "--out", tmp_path / "b")
    with (tmp_path / "b" / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["extends"].startswith(f"{tmp_path / 'a'}, 2 epochs, sha256 ")
    before, after = (load_file(tmp_path / name / "checkpoint.safetensors") for name in "ab")
    weights = [key for key in before if key.endswith("weight")]
    assert weights
    for key in weights:
        assert (before[key] - after[key]).abs().max() < 1e-6, "it began with the other's weights"


def test_what_cannot_be_extended(tmp_path):
    (tmp_path / "a").mkdir()
    TrainConfig(**BASE).save(tmp_path / "a" / "config.json")
    with pytest.raises(FileError, match="expected the history of the run to extend"):
        extended(tmp_path / "a", TrainConfig(**BASE))
    words = ["train", "--extend", tmp_path / "a", "--out", tmp_path / "b"]
    refused(*words, "--resume", words="--extend and --resume were both given", code=2)
    refused(*words, "--config", "c.yaml", words="--extend and --config were both given", code=2)
    refused("train", "--extend", tmp_path / "none", "--out", tmp_path / "b", words="holds no run", code=1)


class TestDryRun:
    def test_prints_a_configuration_that_train_takes(self, tmp_path):
        options = ["--ber", 0.03, "--ramp-epochs", 2, "--validation", 0.1, "--epochs", 3]
        done = good("train", *options, "--dry-run")
        assert "# valid: digits_cnn with 25,744 parameters, 1,293 samples for training, 144 for" in done.stdout
        (tmp_path / "c.yaml").write_text(done.stdout)
        again = good("train", "--config", tmp_path / "c.yaml", "--dry-run", "--json")
        assert again.json == good("train", *options, "--dry-run", "--json").json
        assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"], "nothing was trained"

    def test_checks_what_training_checks(self):
        refused("train", "--dry-run", "--ber", 0.1, "--select", "nothing", words="no site matches", code=2)
        refused("train", "--dry-run", "--monitor", "validation_loss", words="monitor", code=2)

    def test_the_folder_is_needed_otherwise(self):
        refused("train", words="no --out was given", code=2)
        refused("train", "--dry-run", "--resume", words="no --out was given", code=2)
