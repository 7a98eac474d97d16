import json

import pytest

from hwfault.errors import FileError, ModelError
from hwfault.profiles.models import BitFlips, bit_errors
from hwfault.train import TrainConfig

YAML = """
network: tests.train.small:network
network_args: {width: 5}
faults:
  - {model: bit_flips, probability: 0.03, sites: "*weight*"}
learning_rate: 1.0e-3
"""


def test_yaml(tmp_path):
    (tmp_path / "config.yaml").write_text(YAML)
    config = TrainConfig.load(tmp_path / "config.yaml")
    assert config.network_args == {"width": 5}
    assert config.faults == (BitFlips(probability=0.03, sites="*weight*"),)
    assert (config.learning_rate, config.epochs) == (1e-3, TrainConfig().epochs)


def test_what_is_saved_is_loaded(tmp_path):
    config = TrainConfig(faults=bit_errors(0.1), seed=2**64 - 1, network_args={"bits": 3})
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2**64 - 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", "unknown key 'epoch': did you mean 'epochs'"),
        ("epochs: 0", "epochs"),
        ("batch_size: many", "batch_size"),
        ("learning_rate: .nan", "learning_rate"),
        ("learning_rate: .inf", "learning_rate"),
        ("weight_decay: -1", "weight_decay"),
        ("ramp: 2", "ramp"),
        ("seed: 18446744073709551616", "seed"),
        ("optimizer: adam", "optimizer"),
        ("faults: [{model: bit_flips, probability: 3}]", "probability"),
        ("faults: [{model: bit_flips, probabilty: 0.1}]", "did you mean 'probability'"),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "not a YAML file"),
    ],
)
def test_wrong_configurations(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ModelError) as error:
        TrainConfig.load(path)
    assert str(error.value).startswith(str(path))
    assert words in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="cannot be read"):
        TrainConfig.load(tmp_path / "none.yaml")
