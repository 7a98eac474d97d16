"""How tests run commands, and what these must leave alone; the tiny run that they use is made in tests/conftest.py."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner

from hwfault.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout)


def hwfault(*arguments):
    """Runs a command in this process; anything but a clean exit is this test's failure."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="hwfault")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def good(*arguments):
    """A command that must succeed."""
    done = hwfault(*arguments)
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """A file of data: 24 of the digits to train on, and 24 to test."""
    from hwfault.train.data import digits

    data, path = digits(), tmp_path_factory.mktemp("few") / "few.npz"
    parts = {"x_train": data.train_x, "y_train": data.train_y, "x_test": data.test_x, "y_test": data.test_y}
    np.savez(path, **{name: part[:24].numpy() for name, part in parts.items()})
    return path


def files(folder):
    """Every file below a folder with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments, words, code=(1, 2)):
    """The command fails with one error that says `words`, and prints nothing on stdout."""
    done = hwfault(*arguments)
    assert done.code in (code if isinstance(code, tuple) else (code,)), (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split("Error: ")[1].split())
    for text in [words] if isinstance(words, str) else words:
        assert text in message
    return message


@pytest.fixture
def out(tmp_path):
    """A folder in which no file must appear."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    assert files(folder) == {}


@pytest.fixture
def kept(tmp_path):
    """A folder with an old file that must stay as it was."""
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "old.onnx").write_bytes(b"old")
    yield folder / "old.onnx"
    assert files(folder) == {(folder / "old.onnx").relative_to(folder): b"old"}
