"""Which rooms import which, and what a light import stays clear of."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import hwfault

PACKAGE = Path(hwfault.__file__).parent
ROOMS = (
    "moved",
    "errors",
    "notices",
    "terminal",
    "codes",
    "locks",
    "inputs",
    "image_files",
    "files",
    "folders",
    "npz",
    "own_code",
    "differences",
    "versions",
    "yaml12",
    "records",
    "stream",
    "program",
    "profiles",
    "devices",
    "laws",
    "plan",
    "torch_ops",
    "fast",
    "network",
    "fusion",
    "arithmetic",
    "injection",
    "resolving",
    "graph.ops",
    "graph.read",
    "graph.edit",
    "graph.run",
    "graph.export",
    "report",
    "proof",
    "train",
    "campaigns",
    "demo",
    "schemas",
    "cli",
    "__main__",
)
"""From the ground up: a room imports only from those before it."""
EVERYONES = ("hwfault.__version__", "hwfault.__path__", "hwfault.__file__")
HEAVY = ("torch", "onnx", "brevitas", "qonnx", "onnxruntime", "sklearn", "matplotlib", "ray", "triton")


def room_of(module):
    """The room that a dotted name below hwfault lies in; graph has several."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "graph" and len(parts) > 1 else parts[0]


def module_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


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


@cache
def imported(path):
    """The dotted names below hwfault that a file imports; where the package lies and its version are for everyone."""
    package = ".".join(["hwfault", *path.relative_to(PACKAGE).parent.parts])
    found = imports(path.read_text(encoding="utf-8"), package)
    own = [name for name in found if name.split(".")[0] == "hwfault" and name not in EVERYONES]
    return [name.removeprefix("hwfault.") for name in own]


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
MODULES = {module_of(path): path for path in SOURCES}


def test_every_room_has_a_floor():
    rooms = {room_of(module) for module in MODULES} - {"graph"}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_only_from_below(module):
    if module == "graph":
        return
    own = room_of(module)
    below = ROOMS[: ROOMS.index(own)]
    others = {room_of(name) for name in imported(MODULES[module])}
    assert others - {own} <= set(below), f"{module} imports {sorted(others - {own} - set(below))}"


def test_no_modules_import_each_other():
    reach = {module: {name for name in modules_in(path) if name != module} for module, path in MODULES.items()}
    todo = dict(reach)
    while leaves := [module for module, needed in todo.items() if not needed & todo.keys()]:
        for module in leaves:
            del todo[module]
    assert not todo, f"import cycles among {sorted(todo)}"


def modules_in(path):
    """The modules that a file imports: those named, and those that names are taken from."""
    for name in imported(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            yield name


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
        "import hwfault.profiles, hwfault.laws.models",
        "import hwfault.stream.mapping, hwfault.devices.systolic",
        "import hwfault.profiles.profile, hwfault.devices.draw, hwfault.stream.fault_map",
        "import hwfault.plan, hwfault.laws.memory, hwfault.program.processes, hwfault.plan.listing",
        "import hwfault.graph.ops",
        "import hwfault.train.config, hwfault.train.kept_sites, hwfault.cli.sites, hwfault.cli.faults",
    ],
)
def test_light_imports_stay_light(statement):
    assert modules_after(statement).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "statement",
    [
        "import hwfault.graph.run.session, hwfault.graph.edit.carried, hwfault.graph.run.watched",
        "import hwfault.proof.check, hwfault.proof.runners, hwfault.proof.page, hwfault.cli.bundles",
    ],
)
def test_graphs_run_and_bundles_are_checked_without_pytorch(statement):
    assert modules_after(statement).isdisjoint({"torch", "brevitas", "lightning", "qonnx", "scipy", "matplotlib"})


def test_a_heavy_import_would_be_seen():
    assert "matplotlib" in modules_after("import matplotlib")
