"""The options that name faults: what they read, and what they tell of a file of faults."""

from pathlib import Path

import pytest

from hwfault import records
from hwfault.laws.models import LAWS, load_faults
from tests.cli.conftest import good
from tests.laws.test_profile import written


@pytest.mark.parametrize(
    "arguments",
    [
        ("faults", "run"),
        ("evaluate", "run", "--seeds", "0-1"),
        ("evaluate", "run", "--seeds", "0-1", "--sweep", "p=0.001,0.01"),
        ("export", "run", "--out", "out"),
        ("insert", "clean.onnx", "--out", "out"),
    ],
    ids=" ".join,
)
def test_a_command_reads_a_profile_once(made, tmp_path, monkeypatch, arguments):
    read, parse = [], records.load_yaml
    monkeypatch.setattr(records, "load_yaml", lambda text: read.append(text) or parse(text))
    path = written(tmp_path)
    words = {"run": made / "run", "clean.onnx": made / "clean.onnx", "out": tmp_path / "out.onnx"}
    good(*[words.get(word, word) for word in arguments], "--faults", f"{path}@p=0.01")
    assert len([text for text in read if text == Path(path).read_text()]) == 1


def test_a_command_tells_which_fault_models_there_are(tmp_path):
    done = good("faults", "--models")
    path = tmp_path / "faults.yaml"
    path.write_text(done.stdout)
    assert [type(fault) for fault in load_faults(path)] == [law.record for law in LAWS.values()]
