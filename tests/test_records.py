"""Reading fault lists from YAML: what is read, and the one clear error that everything else gets."""

import os
import subprocess
import sys

import pytest

from hwfault.errors import FileError, ModelError
from hwfault.laws.models import BitFlips, Clusters, WordFaults, load_faults
from hwfault.program.selectors import Select
from hwfault.records import Record, read_yaml

GOOD = """
faults:
  - {model: bit_flips, probability: 1e-3}
  - model: bit_flips
    sites: [conv*, {kind: weight, layer: QuantLinear}]
    p01: [0.1, 0.2]
    p10: 0
  - {model: word, sites: a, probability: 0.25, effect: 0x80}
  - {model: cluster, probability: 0.01, sizes: [0.5, 0.5], axis: word}
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "faults.yaml"

    def from_text(text):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_faults(path)

    return from_text


def test_a_fault_list(load):
    assert load(GOOD) == (
        BitFlips(probability=0.001),
        BitFlips(sites=["conv*", Select(kind="weight", layer="QuantLinear")], p01=(0.1, 0.2), p10=0.0),
        WordFaults(sites="a", probability=0.25, effect=128),
        Clusters(probability=0.01, sizes=(0.5, 0.5), axis="word"),
    )


def test_paths_may_be_text(tmp_path):
    (tmp_path / "faults.yaml").write_text(GOOD)
    assert len(load_faults(str(tmp_path / "faults.yaml"))) == 4


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fault: []", "unknown key 'fault': did you mean 'faults'"),
        ("{}", "faults: Field required"),
        ("", "expected a mapping of keys to values, found NoneType"),
        ("- a", "expected a mapping of keys to values, found list"),
        ("faults", "expected a mapping of keys to values, found str"),
        ("3: 4", "unknown key 3, expected a word"),
        ("faults: 3", r"faults: .*\(given: 3\)"),
        ("faults: [3]", r"faults.0: .*\(given: 3\)"),
        ("faults: [{model: bit_flip, probability: 0.1}]", "faults.0: .*'bit_flip'.*'bit_flips', 'word', 'cluster'"),
        ("faults: [{probability: 0.1}]", "faults.0: .*'model'"),
        ("faults: [{model: bit_flips}]", "faults.0.*expected either `probability`, or `p01` and `p10`"),
        ("faults: [{model: bit_flips, probabilty: 0.1}]", "faults.0.*'probabilty': did you mean 'probability'"),
        (
            "faults: [{model: word, probability: 0.1}, {model: word, probability: 3}]",
            r"faults.1.*is 3.0, expected a num",
        ),
        ("faults: [{model: word, probability: .nan}]", r"faults.0.*is nan, expected a number in \[0, 1\]"),
        ("faults: [{model: word, probability: 3%}]", r"faults.0.*probability.*'3%'"),
        ("faults: [{model: word, probability: yes}]", "faults.0.*probability"),
        ("faults: [{model: bit_flips, p01: []}]", "faults.0.*p01"),
        ("faults: [{model: word, effect: lsb}]", "faults.0.*probability: Field required"),
        ("faults: [{model: cluster, probability: 0.1, sizes: [0.5]}]", r"faults.0.*sizes.*sums to 1"),
        ("faults: [{model: word, probability: 0.1, sites: {nam: a}}]", "faults.0.*sites.0.*'nam': did you mean 'name'"),
        ("faults: [{model: word, probability: 0.1, sites: []}]", "faults.0.*an empty list selects no site"),
        ("faults: [{model: word, probability: 0.1, 3: 4}]", "faults.0.*unknown key"),
        ("faults: [{model: word, probability: 0.1, sites: {3: 4}}]", "faults.0.*unknown key"),
        ("faults: [", "not a YAML file"),
        ("a: b: c", "not a YAML file"),
        ("faults: !!python/object/apply:os.system [ls]", "not a YAML file"),
        ("faults: 2020-99-99", "faults: .*2020-99-99"),
        (b"\xff\xfe\x00faults", "not a YAML file"),
        (b"\x80abc", "not a YAML file"),
        ("[" * 1500, "YAML file"),
        ("{a: " * 1500, "YAML file"),
    ],
    ids=range(31),
)
def test_wrong_lists(load, text, error):
    with pytest.raises(ModelError, match=f"(?s)faults.yaml: .*{error}"):
        load(text)


def test_every_problem_is_named(load):
    with pytest.raises(ModelError) as caught:
        load("faults: [{model: word, probability: 2}, {model: cluster, axis: row}]")
    text = str(caught.value)
    assert "faults.0" in text
    assert "faults.1" in text
    assert "axis" in text


def test_many_problems_are_counted(load):
    with pytest.raises(ModelError) as caught:
        load("faults: [" + "{model: word, probability: 2}, " * 20 + "]")
    lines = str(caught.value).split("\n")
    assert len(lines) == 9
    assert lines[-1] == "and 12 more problems"
    with pytest.raises(ModelError) as caught:
        load("faults: [" + "{model: word, probability: 2}, " * 8 + "]")
    assert "more problems" not in str(caught.value)


EXPLODING = """
import resource
from hwfault.errors import ModelError
from hwfault.profiles.models import load_faults
from tests.process import mapped_memory
most = mapped_memory() + (1 << 31)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    load_faults("faults.yaml")
except ModelError as error:
    print(len(str(error)))
"""


def test_anchors_that_explode_are_refused_at_once(tmp_path):
    layers = (f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    (tmp_path / "faults.yaml").write_text("faults:\n  - &a0 [x, x]\n" + "".join(layers))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", EXPLODING]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-500:]
    assert int(run.stdout) < 10_000


def test_a_list_that_is_missing(tmp_path):
    with pytest.raises(FileError, match=r"no.yaml: cannot be read \(No such file or directory\); expected a YAML file"):
        load_faults(tmp_path / "no.yaml")


def test_a_list_that_is_a_folder(tmp_path):
    with pytest.raises(FileError, match=r"cannot be read \(Is a directory\)"):
        load_faults(tmp_path)


def test_a_list_that_is_too_long(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_bytes(b"#" * (1 << 20))
    assert read_yaml(path) is None
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(FileError, match="1048577 bytes, expected a YAML file of at most 1048576"):
        read_yaml(path)


class Example(Record):
    number: int
    word: str = ""


def test_records_say_what_was_given():
    with pytest.raises(ModelError, match=r"^number: .*\(given: 'x'\)$"):
        Example(number="x")
    with pytest.raises(ModelError, match=r"^number: Field required$"):
        Example()
    with pytest.raises(ModelError, match=r"^Example: unknown key 'wort': did you mean 'word'\?$"):
        Example(number=1, wort="a")
    with pytest.raises(ModelError, match=r"^here: number: "):
        Example.parse({"number": None}, "here")
    assert Example.parse({"number": 3}, "here") == Example(number=3)


def test_what_was_given_is_cut_short():
    with pytest.raises(ModelError) as caught:
        Example(number="x" * 10_000)
    assert len(str(caught.value)) < 300
