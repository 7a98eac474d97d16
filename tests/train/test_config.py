import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwfault.errors import FileError, ModelError
from hwfault.laws.models import BitFlips, bit_errors
from hwfault.train import Phase, TrainConfig
from hwfault.train.config import changes, merge_settings
from hwfault.train.learning import Cosine, MultiStep
from hwfault.train.schedule import Schedule, ScheduledFault

YAML = """
network: tests.helpers.train.small:network
network_args: {width: 5}
faults:
  - {model: bit_flips, probability: 0.03, sites: "*weight*"}
learning_rate: 1e-3
precision: 32
"""

PHASES = """
network: resnet20
data: cifar10
data_folder: data/cifar
validation: 5000
augment: crop_flip
learning_rate: 0.1
optimizer: sgd
schedule: {name: multistep, milestones: [10, 15]}
phases:
  - epochs: 20
  - epochs: 10
    learning_rate: 0.01
    schedule: cosine
    faults:
      - {model: bit_flips, probability: 0.02, schedule: {ramp: linear, ramp_epochs: 3}}
  - epochs: 5
    freeze: [features]
    faults: [{model: bit_flips, probability: 0.05}]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_yaml(tmp_path):
    config = TrainConfig.load(written(tmp_path, YAML))
    assert config.network_args == {"width": 5}
    assert config.faults == (ScheduledFault(fault=BitFlips(probability=0.03, sites="*weight*")),)
    assert (config.learning_rate, config.epochs, config.precision) == (1e-3, TrainConfig().epochs, "32")


def test_yaml_with_phases(tmp_path):
    config = TrainConfig.load(written(tmp_path, PHASES))
    one, two, three = config.parts
    assert config.total_epochs == 35
    assert [part.epochs for part in config.parts] == [20, 10, 5]
    assert [part.schedule for part in config.parts] == [MultiStep(milestones=(10, 15)), Cosine(), one.schedule]
    assert (one.faults, two.faults[0].schedule) == ((), Schedule(ramp="linear", ramp_epochs=3))
    assert (two.freeze, three.freeze, three.learning_rate) == ((), ("features",), 0.1)
    assert all(part.data == "cifar10" and part.phases == () for part in config.parts)


def test_a_run_without_phases_is_its_own_part():
    assert TrainConfig(epochs=7).parts == (TrainConfig(epochs=7),)
    assert TrainConfig(epochs=7, phases=[{}, {"epochs": 2}]).total_epochs == 9


def test_every_key_of_a_phase_is_one_of_the_run():
    assert Phase.model_fields.keys() <= TrainConfig.model_fields.keys()
    assert not Phase.model_fields.keys() & {"network", "data", "seed", "devices", "precision", "phases", "validation"}


def test_the_docstring_names_every_key():
    assert [key for key in TrainConfig.model_fields if f"`{key}`" not in TrainConfig.__doc__] == []


@pytest.mark.parametrize("text", [YAML, PHASES])
def test_what_is_saved_is_loaded(tmp_path, text):
    config = TrainConfig.load(written(tmp_path, text))
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config


def test_the_largest_seed(tmp_path):
    config = TrainConfig(faults=bit_errors(0.1), seed=2**64 - 1, network_args={"bits": 3})
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2**64 - 1


def test_changes():
    one = TrainConfig(faults=bit_errors(0.1), epochs=3, network_args={"bits": 3}, phases=[{"epochs": 2}])
    assert changes(one, one) == []
    assert changes(one, one.model_copy(update={"epochs": 4, "network_args": {"width": 2}})) == [
        "network_args.bits: 3 -> none",
        "network_args.width: none -> 2",
        "epochs: 3 -> 4",
    ]
    louder = TrainConfig(faults=bit_errors(0.2), epochs=3, network_args={"bits": 3}, phases=[{"epochs": 5}])
    assert changes(one, louder) == [
        "faults.0.fault.probability: 0.1 -> 0.2",
        "phases.0.epochs: 2 -> 5",
    ]
    (changed,) = changes(TrainConfig(), TrainConfig(freeze=["a", "b"]))
    assert changed == "freeze: [] -> [a, b]"


def test_options_override_keys_also_nested_ones():
    given = {"network_args": {"bits": 3}, "epochs": 5, "schedule": "plateau"}
    config = merge_settings(given, {"network_args.width": 7, "epochs": 6, "schedule.patience": 2}, "x")
    assert config.network_args == {"bits": 3, "width": 7}
    assert (config.epochs, config.schedule.name, config.schedule.patience) == (6, "plateau", 2)
    assert given == {"network_args": {"bits": 3}, "epochs": 5, "schedule": "plateau"}
    with pytest.raises(ModelError, match="epochs is 5, which has no keys"):
        merge_settings(given, {"epochs.x": 1}, "x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", "unknown key 'epoch': did you mean 'epochs'"),
        ("ramp: 2", "unknown key 'ramp'"),
        ("epochs: 0", "epochs"),
        ("epochs: true", "epochs"),
        ("epochs: 2.5", "epochs"),
        ("batch_size: many", "batch_size"),
        ("batch_size: 0", "batch_size"),
        ("learning_rate: .nan", "learning_rate"),
        ("learning_rate: .inf", "learning_rate"),
        ("learning_rate: 0", "learning_rate"),
        ("weight_decay: -1", "weight_decay"),
        ("momentum: 1", "momentum"),
        ("seed: 18446744073709551616", "seed"),
        ("optimizer: adagrad", "optimizer"),
        ("draws: 0", "draws"),
        ("accumulate: 0", "accumulate"),
        ("devices: 0", "devices"),
        ("precision: 16", "precision"),
        ("accelerator: tpu", "accelerator"),
        ("monitor: acuracy", "monitor"),
        ("loss_on: faults", "loss_on"),
        ("gradient: one", "gradient"),
        ("clip_weights: -1", "clip_weights"),
        ("validation: 1.5", "validation is 1.5, expected a share of the training data below 1, or a whole number"),
        ("warmup_epochs: 40", "warmup_epochs is 40, expected fewer than epochs (40)"),
        ("loss_on: average", "loss_on is 'average', but there are no faults"),
        ("draws: 2", "draws is 2, but no faults are in the loss"),
        ("{draws: 2, loss_on: clean, faults: [{model: bit_flips, probability: 0.1}]}", "draws is 2"),
        ("faults: [{model: bit_flips, probability: 3}]", "probability"),
        ("faults: [{model: bit_flips, probabilty: 0.1}]", "did you mean 'probability'"),
        ("faults: [{model: bit_flips, probability: 0.1, schedule: {ramp_epoch: 3}}]", "did you mean 'ramp_epochs'"),
        ("faults: 3", "faults"),
        ("schedule: {name: step, step_size: 0}", "step_size"),
        ("schedule: {name: multistep, milestones: []}", "milestones"),
        ("phases: [{epoch: 3}]", "phases.0: Phase: unknown key 'epoch': did you mean 'epochs'"),
        ("phases: [{}, {network: cnv}]", "phases.1: Phase: unknown key 'network'"),
        ("phases: [{}, {epochs: 0}]", "phases.1: epochs"),
        ("phases: [{}, {loss_on: average}]", "phases.1: loss_on is 'average', but there are no faults"),
        ("{epochs: 5, warmup_epochs: 3, phases: [{}, {epochs: 2}]}", "phases.1: warmup_epochs is 3"),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not a YAML file"),
    ],
)
def test_wrong_configurations(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ModelError) as error:
        TrainConfig.load(path)
    assert str(error.value).startswith(str(path))
    assert words in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="cannot be read"):
        TrainConfig.load(tmp_path / "none.yaml")


def test_configurations_and_the_training_function_are_had_without_lightning():
    """Which takes seconds to import."""
    statement = "import hwfault.train.run, hwfault.train.driver, hwfault.demo, sys; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", statement], capture_output=True, text=True, check=True, env=environment
    )
    assert not {"lightning", "tensorboardX"} & {name.split(".")[0] for name in done.stdout.split()}
