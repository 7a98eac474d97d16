"""Nobody but the rooms of laws and processes asks which of them one has."""

import ast
from functools import cache
from pathlib import Path

import pytest

import hwfault
from hwfault.laws.models import LAWS
from hwfault.program.clipped import ClipProcess
from hwfault.program.kinds import KINDS
from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.sampled import SampledProcess
from hwfault.program.steps import ClipStep, MapStep, ProtectedStep, StreamStep
from hwfault.program.streamed import Process

PACKAGE = Path(hwfault.__file__).parent
RECORDS = {law.record.__name__ for law in LAWS.values()} | {"OnSites", "OnLayers", "OnElements"}
MODEL_NAMES = LAWS.keys()
PROCESSES = {
    each.__name__
    for each in (
        *(Process, MapProcess, SampledProcess, ProtectedProcess, ClipProcess),
        *(StreamStep, MapStep, ProtectedStep, ClipStep),
    )
}
KIND_NAMES = {kind.name for kind in KINDS}
OWN_ROOMS = ("laws", "program")
ENGINES = ("stream",)
"""Whose kernels read fault programs, in which a kind is a number."""


def held_names(tree):
    """What a source calls the classes that it imports from laws and program, by the name that it uses."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("hwfault.laws", "hwfault.program")):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
    return found


def decisions(source):
    """("laws" or "processes", line) of each place that asks which law or process one has."""
    tree = ast.parse(source)
    held = held_names(tree)
    rooms = dict.fromkeys(RECORDS, "laws") | dict.fromkeys(PROCESSES, "processes")
    for node in ast.walk(tree):
        asked = set()
        if is_call(node, "isinstance", "issubclass"):
            asked = names_in(node.args[1])
        elif isinstance(node, ast.Compare) and any(is_named(side, "kind") for side in (node.left, *node.comparators)):
            if words_in(node) & KIND_NAMES:
                yield "processes", node.lineno
        elif isinstance(node, ast.Compare) and any(is_named(side, "model") for side in (node.left, *node.comparators)):
            if words_in(node) & MODEL_NAMES:
                yield "laws", node.lineno
        elif isinstance(node, ast.Compare) and any(is_call(side, "type") for side in (node.left, *node.comparators)):
            asked = names_in(node)
        elif isinstance(node, ast.Dict):  # of what is to be done, by class
            asked = {key.id for key in node.keys if isinstance(key, ast.Name)}
        elif isinstance(node, ast.MatchClass):
            asked = names_in(node.cls)
        for room in {rooms[held[name]] for name in asked if held.get(name) in rooms}:
            yield room, node.lineno


@cache  # each room asks for those of all files
def decisions_in(path):
    return list(decisions(path.read_text(encoding="utf-8")))


def names_in(node):
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def words_in(node):
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def is_named(node, name):
    return name in (getattr(node, "attr", None), getattr(node, "id", None))


def is_call(node, *names):
    return isinstance(node, ast.Call) and getattr(node.func, "id", None) in names


def found_in(room):
    """`path:line` of every decision about a room's records outside of it."""
    places = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] not in (*OWN_ROOMS, *ENGINES):
            lines = [line for about, line in decisions_in(path) if about == room]
            places += [f"{inside}:{line}" for line in sorted(lines)]
    return places


@pytest.mark.parametrize("room", ["laws", "processes"])
def test_nobody_else_asks_which_law_or_process_it_has(room):
    assert found_in(room) == []


@pytest.mark.parametrize(
    ("line", "room"),
    [
        ("isinstance(fault, BitFlips)", "laws"),
        ("isinstance(fault, Word | LateBits)", "laws"),
        ("isinstance(fault, (int, BitFlips))", "laws"),
        ("type(fault) is BitFlips", "laws"),
        ("{BitFlips: 1}", "laws"),
        ("fault.model == 'bit_flips'", "laws"),
        ("model in ('map', 'profile')", "laws"),
        ("isinstance(process, MapProcess)", "processes"),
        ("{MapStep: 1}", "processes"),
        ("process.kind == 'late'", "processes"),
        ("kind in ('bit', 'cluster')", "processes"),
        ("'map' != process.kind", "processes"),
        ("isinstance(fault, Clusters)", None),
        ("site.kind == 'accumulator'", None),
        ("run.model == 'cnn'", None),
        ("BitFlips(probability=0.1)", None),
        ("{'bit': MapProcess}", None),
    ],
)
def test_the_count_sees_what_it_is_to_see(line, room):
    imports = """
from hwfault.laws.models import BitFlips, LateBits
from hwfault.laws.models import WordFaults as Word
from hwfault.profiles.spatial import Clusters
from hwfault.program.processes import MapProcess, MapStep
"""
    assert [about for about, _ in decisions(f"{imports}{line}\n")] == ([room] if room else [])
