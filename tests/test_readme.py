"""What the README shows runs as it stands."""

import re
from pathlib import Path

import yaml

from hwfault.laws.models import FaultList

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_first_example_runs():
    example = re.search(r"## Ten lines\n\n```python\n(.*?)```", README, re.DOTALL)
    assert example
    exec(compile(example[1], "README.md", "exec"), {})  # it ends with an assertion of its own


def test_the_faults_in_yaml_are_faults():
    block = re.search(r"```yaml\n(faults:.*?)```", README, re.DOTALL)
    assert block
    assert len(FaultList.parse(yaml.safe_load(block[1]), "README.md").faults) == 10


def test_the_training_configuration_is_one():
    from hwfault.train.config import TrainConfig

    block = re.search(r"```yaml\n(# hwfault train.*?)```", README, re.DOTALL)
    assert block
    assert len(TrainConfig.parse(yaml.safe_load(block[1]), "README.md").faults) == 2


def test_every_command_and_link_is_there():
    from hwfault.cli import COMMANDS

    assert {name for name in COMMANDS if f"`hwfault {name}" in README} == set(COMMANDS)
    root = Path(__file__).parents[1]
    assert all((root / target).exists() for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README))
