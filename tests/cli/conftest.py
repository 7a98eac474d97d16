"""One tiny training run, its graphs and a plan, made once."""

import json
from dataclasses import dataclass

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
def made(tmp_path_factory):
    """A folder with run/, clean.onnx, faulted.onnx, plan.json."""
    folder = tmp_path_factory.mktemp("cli")
    good("train", "--epochs", 2, "--ber", 0.01, "--out", folder / "run")
    good("export", folder / "run", "--out", folder / "clean.onnx")
    good("faults", folder / "run", "--ber", 0.02, "--save", folder / "plan.json")
    good("export", folder / "run", "--plan", folder / "plan.json", "--out", folder / "faulted.onnx")
    return folder


@pytest.fixture(scope="session")
def run(made):
    return made / "run"


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
