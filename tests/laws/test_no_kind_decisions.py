"""No code outside of laws/ asks which fault model a fault is: the records answer what is asked of them."""

import ast
from pathlib import Path

import pytest

import hwfault
from hwfault.laws.models import LAWS

PACKAGE = Path(hwfault.__file__).parent
AT_HOME = ("laws", "program")
"""Rooms that know the fault models, and those that know the processes."""
RECORDS = {law.record.__name__ for law in LAWS.values()} | {"OnSites", "OnLayers", "OnElements"}


def decisions(source):
    """The lines of a source that ask for the class or the name of a fault model."""
    tree = ast.parse(source)
    laws = set(imported_laws(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("isinstance" | "issubclass"), args=[_, asked]) if names_in(asked) & laws:
                yield node.lineno
            case ast.MatchClass(cls=cls) if names_in(cls) & laws:
                yield node.lineno
            case ast.Compare(left=left, comparators=others):
                sides = [left, *others]
                if any(is_type(side) for side in sides) and any(names_in(side) & laws for side in sides):
                    yield node.lineno
                if any(is_model(side) for side in sides) and any(texts_in(side) & LAWS.keys() for side in sides):
                    yield node.lineno
            case ast.Dict(keys=keys) if any(names_in(key) & laws for key in keys if key is not None):
                yield node.lineno


def imported_laws(tree):
    """The names under which a source has records of laws; a spatial pattern of the same name is none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("hwfault.profiles"):
            yield from (alias.asname or alias.name for alias in node.names if alias.name in RECORDS)


def names_in(node):
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} | {
        part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)
    }


def texts_in(node):
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def is_type(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"


def is_model(node):
    return isinstance(node, ast.Attribute) and node.attr == "model"


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in AT_HOME]


def test_nobody_else_decides_by_the_fault_model():
    found = [f"{path.relative_to(PACKAGE)}:{line}" for path in SOURCES for line in decisions(path.read_text())]
    assert len(SOURCES) > 150
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(fault, BitFlips)",
        "isinstance(fault, models.BitFlips)",
        "isinstance(fault, MapFaults | Faults)",
        "isinstance(fault, (MapFaults, int))",
        "issubclass(kind, OnSites)",
        "type(fault) is MapFaults",
        "type(fault) in (MapFaults, BitFlips)",
        "fault.model == 'bit_flips'",
        "'word' != fault.model",
        "fault.model in ('map', 'profile')",
        "{BitFlips: 1}[type(fault)]",
        "match fault:\n    case BitFlips(): pass",
    ],
)
def test_every_way_to_decide_is_seen(line):
    source = f"from hwfault.laws.models import BitFlips, MapFaults, ProfileFaults as Faults, OnSites\n{line}"
    assert list(decisions(source))


@pytest.mark.parametrize("line", ["BitFlips(probability=0.1)", "isinstance(fault, Spatial)", "site.model == 'other'"])
def test_what_is_no_decision_is_not(line):
    assert not list(decisions(f"from hwfault.laws.models import BitFlips\n{line}"))


def test_a_pattern_of_the_same_name_is_no_law():
    assert not list(decisions("from hwfault.profiles.spatial import Clusters\nisinstance(pattern, Clusters)"))
