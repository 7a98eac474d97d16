"""Which rooms import which, and what a light import stays clear of."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hwfault

PACKAGE = Path(hwfault.__file__).parent
FLOORS = {
    "errors": 0,
    "codes": 0,
    "files": 0,
    "folders": 0,
    "inputs": 0,
    "locks": 0,
    "notices": 0,
    "terminal": 0,
    "arrays": 0,
    "own_code": 0,
    "differences": 0,
    "stream": 1,
    "profiles": 1,
    "plan": 2,
    "inject": 3,
    "graph": 3,
    "listing": 3,
    "resolving": 4,
    "bundle": 4,
    "train": 4,
    "campaign": 4,
    "demo": 5,
    "cli": 6,
    "__main__": 7,
}
SAME_FLOOR = {
    ("files", "errors"),  # errors lie below everything
    ("inputs", "errors"),
    ("locks", "errors"),
    ("files", "locks"),
    ("folders", "errors"),
    ("folders", "files"),
    ("folders", "locks"),
    ("codes", "errors"),
    ("arrays", "errors"),
    ("arrays", "files"),
    ("arrays", "inputs"),
    ("own_code", "errors"),
    ("profiles", "stream"),  # a model checks its numbers with the one table builder
    ("graph", "inject"),  # replay compares the two
    ("campaign", "train"),  # trials classify the samples of a data set's split
}
EVERYONES = ("hwfault.__version__", "hwfault.__path__", "hwfault.__file__")
HEAVY = ("torch", "onnx", "brevitas", "qonnx", "onnxruntime", "sklearn", "matplotlib", "ray", "triton")


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source, package):
    """The full dotted names that a source imports, relative ones resolved against its package."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from used(tree, alias.asname or alias.name) if "." not in alias.name else (alias.name,)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def used(tree, module):
    """What a source that imports a whole module takes from it, as `module.name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module:
            yield f"{module}.{node.attr}"


def rooms_imported(path):
    """The rooms that a file imports; where the package lies and which version it has is for everyone."""
    package = ".".join(["hwfault", *path.relative_to(PACKAGE).parent.parts])
    for name in imports(path.read_text(encoding="utf-8"), package):
        if name.split(".")[0] == "hwfault" and name not in EVERYONES:
            yield name.split(".")[1]


def allowed(room, other):
    if room == other or (room, other) in SAME_FLOOR:
        return True
    return FLOORS.get(other, 99) < FLOORS[room]


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_room_has_a_floor():
    assert {room_of(path) for path in SOURCES} <= FLOORS.keys()
    assert len(SOURCES) >= 10


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_from_below(path):
    wrong = {other for other in rooms_imported(path) if not allowed(room_of(path), other)}
    assert not wrong, f"{room_of(path)} imports {wrong}"


def test_the_walk_sees_every_way_to_import():
    source = """
import os, hwfault
import hwfault.cli.main
from hwfault import graph, inject
from .sibling import a
from . import b
from ..plan import FaultPlan
def f():
    from hwfault.train.loop import train
    return hwfault.BitFlips, os.path.sep
"""
    assert set(imports(source, "hwfault.stream")) == {
        "os.path",
        "hwfault.BitFlips",
        "hwfault.cli.main",
        "hwfault.graph",
        "hwfault.inject",
        "hwfault.stream.sibling.a",
        "hwfault.stream.b",
        "hwfault.plan.FaultPlan",
        "hwfault.train.loop.train",
    }


def modules_after(statement):
    """The modules that a fresh process holds after a statement."""
    run = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    return {name.split(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import hwfault",
        "import hwfault.errors, hwfault.codes, hwfault.files",
        "import hwfault.stream, hwfault.stream.reference, hwfault.stream.native",
        "import hwfault.profiles, hwfault.profiles.models",
        "import hwfault.profiles.mapping, hwfault.profiles.systolic",
        "import hwfault.profiles.profile, hwfault.profiles.draw, hwfault.profiles.faultmap",
        "import hwfault.plan, hwfault.plan.hardware, hwfault.plan.processes, hwfault.listing",
    ],
)
def test_light_imports_stay_light(statement):
    assert modules_after(statement).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "statement",
    [
        "import hwfault.graph.session, hwfault.graph.carried, hwfault.graph.watched",
        "import hwfault.bundle.check, hwfault.bundle.runners, hwfault.bundle.page, hwfault.cli.bundles",
    ],
)
def test_graphs_run_and_bundles_are_checked_without_pytorch(statement):
    assert modules_after(statement).isdisjoint({"torch", "brevitas", "lightning", "qonnx", "scipy", "matplotlib"})


def test_a_heavy_import_would_be_seen():
    assert "matplotlib" in modules_after("import matplotlib")
