"""YAML 1.2's plain values, and documents that are larger than they look."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import ModelError
from hwfault.profiles.library import folder
from hwfault.records import read_yaml
from hwfault.yaml12 import load_yaml

# the examples of the core schema's table (yaml.org/spec/1.2.2, 10.3.2), and what YAML 1.1 reads otherwise
VALUES = {
    "~": None, "null": None, "": None, "NULL": None, "nULL": "nULL",
    "true": True, "FALSE": False, "tRUE": "tRUE",
    "yes": "yes", "no": "no", "on": "on", "Off": "Off", "y": "y",
    "0": 0, "-19": -19, "+3": 3, "010": 10, "08": 8, "0o7": 7, "0o17": 15, "0x3A": 58, "-0x1": "-0x1", "0b101": "0b101",
    "1_000": "1_000", "1:30": "1:30", "190:20:30": "190:20:30", "190:20:30.15": "190:20:30.15",
    "0.": 0.0, "-0.0": -0.0, ".5": 0.5, "+12e03": 12000.0, "-2E+05": -2e5, "1e-3": 0.001,
    "1e3": 1000.0, "685_230.15": "685_230.15",
    ".inf": math.inf, "-.Inf": -math.inf, "+.INF": math.inf, ".": ".", "e3": "e3", "1e": "1e",
    "2001-12-14": "2001-12-14", "=": "=", "0.5.1": "0.5.1",
}  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_plain_values(text):
    for found in (load_yaml(text), load_yaml(f"a: {text}")["a"] if text else None, load_yaml(f"[{text}]") or [None]):
        value = found[0] if isinstance(found, list) and found else found
        assert value == VALUES[text] or (found == [] and not text)
        assert type(value) is type(VALUES[text])


def test_numbers_that_are_none():
    assert math.isnan(load_yaml(".nan"))
    assert load_yaml('"1"') == "1"


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text(max_size=20)))
def test_what_python_writes_is_read_back(value):
    assert load_yaml(yaml.safe_dump({"a": value}))["a"] == value or str(value) == str(load_yaml(f"a: {value}")["a"])


@pytest.mark.parametrize("text", ["!!int 1:30", "!!int 0b1", "!!float 1:30.5", "!!python/name:os.system x"])
def test_tags_are_no_way_round(text):
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)


def test_aliases_and_merges_within_reason():
    assert load_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    assert load_yaml("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}")["b"] == {"p": 1, "q": 3}


@pytest.mark.parametrize("key", ["network_args", "faults"])
def test_aliases_that_stand_for_billions(tmp_path, key):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "c.yaml").write_text("\n".join([*lines, f"{key}: *a11"]))
    with pytest.raises(ModelError, match="aliases stand for more than 1048576 values"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "a: &a [1, {b: *a}]"])
def test_aliases_that_contain_themselves(text):
    with pytest.raises(yaml.YAMLError, match="which has no end"):
        load_yaml(text)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "{a: 1, b: {c: 1, c: 1}}"])
def test_keys_that_are_given_twice(text):
    with pytest.raises(yaml.YAMLError, match="is given twice"):
        load_yaml(text)


def test_words_that_were_truth_values_are_told(caplog):
    assert load_yaml("bias: no\nmode: 'off'") == {"bias": "no", "mode": "off"}
    assert caplog.text.count("is the text") == 1
    assert "bias is the text 'no'" in caplog.text


def test_the_library_reads_as_before():
    for path in folder().glob("*.yaml"):
        assert load_yaml(path.read_text()) == yaml.safe_load(path.read_text()), path
