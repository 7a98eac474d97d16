"""The schemas take what hwfault takes in files, and refuse misspelt keys and wrong values."""

import re
from pathlib import Path

import jsonschema
import pytest

from hwfault.cli import schema as command
from hwfault.laws.models import LAWS, load_faults
from hwfault.records import parse_yaml
from hwfault.schemas import KINDS, schema_of
from hwfault.train.config import TrainConfig
from tests.cli.conftest import good

ROOT = Path(__file__).parent.parent
PROFILES = sorted((ROOT / "fault_models").rglob("*.yaml"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
VALIDATORS = {kind: jsonschema.Draft202012Validator(schema_of(kind)) for kind in KINDS}


def problems(kind, text):
    return list(VALIDATORS[kind].iter_errors(parse_yaml(text.encode(), "a file")))


def test_the_command_knows_every_kind():
    assert tuple(KINDS) == command._KINDS
    for kind in KINDS:
        assert good("schema", kind).json == schema_of(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_schemas(kind):
    jsonschema.Draft202012Validator.check_schema(schema_of(kind))


@pytest.mark.parametrize("law", LAWS)
def test_each_fault_model(law):
    text = f"faults:\n  - {LAWS[law].example}"
    assert not problems("faults", text)
    assert not problems("train", text)


def test_faults_with_schedules():
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "schedule: {ramp" in block]
    assert not problems("train", text)
    assert problems("train", text.replace("ramp_epochs", "ramp_epoch"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_each_profile(path):
    assert not problems("profile", path.read_text(encoding="utf-8"))


def test_the_worked_study():
    text = (ROOT / "docs" / "study.yaml").read_text(encoding="utf-8")
    assert not problems("campaign", text)
    assert problems("campaign", text.replace("questions:", "question:"))


@pytest.mark.parametrize(
    "text", ["schedule: cosine", "schedule: {name: step, step_size: 3}", "precision: 32", "faults: []", "{}"]
)
def test_short_forms(text):
    assert not problems("train", text)


@pytest.mark.parametrize("sites", ['"*weight*"', "{kind: weight}", '["a", {name: b}]'])
def test_forms_of_sites(sites, tmp_path):
    text = f"faults: [{{model: bit_flips, probability: 0.1, sites: {sites}}}]"
    (tmp_path / "f.yaml").write_text(text)
    load_faults(tmp_path / "f.yaml")
    assert not problems("faults", text)


def test_what_a_run_keeps_of_its_configuration():
    faults = [{"model": "bit_flips", "probability": 0.1, "schedule": {"ramp": "linear", "ramp_epochs": 2}}]
    assert not problems("train", TrainConfig(faults=faults).to_json())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("train", "epoch: 3"),
        ("train", "epochs: 0"),
        ("train", "schedule: step"),
        ("train", "optimizer: adagrad"),
        ("faults", "faults: [{model: bit_flips, probabilty: 0.1}]"),
        ("faults", "faults: [{model: bit_flips, probability: 0.1, sites: 3}]"),
        ("faults", "falts: []"),
        ("campaign", "network: run\nquestions: {a: {flips: double}}"),
        ("profile", "name: x"),
    ],
)
def test_what_is_none(kind, text):
    assert problems(kind, text)
