"""The fuzzing driver on the installed library: a few hundred cases, and what it says of a process that crashes."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.calls import CALLS
from tests.fuzz.cases import plain_session
from tests.fuzz.graphs import GRAPHS, fitting
from tests.fuzz.mutate import hostile
from tests.fuzz.race import everything, inputs

ROOT = Path(__file__).parents[2]


def fuzz(*arguments, **environment):
    """The driver in a process of its own."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])} | environment
    command = [sys.executable, "-m", "tests.fuzz", *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def test_some_cases(tmp_path):
    done = fuzz("--seconds", 500, "--cases", 150, "--seed", 5, "--keep", tmp_path / "kept")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.startswith("150 cases in ")
    assert done.stdout.endswith("0 failures\n")
    assert not (tmp_path / "kept").exists()


def test_a_crash_is_told_and_its_input_kept(tmp_path):
    """A library without the C functions ends the first case that calls one."""
    done = fuzz("--seconds", 500, "--cases", 1, "--keep", tmp_path, "--library", os.devnull)
    assert done.returncode == 1
    assert "1 failures" in done.stdout
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "case.json").read_text())["call"] in CALLS
    assert (folder / "log.txt").stat().st_size > 0


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "wrapped"])
def test_the_graphs_to_be_broken_run(name):
    made = plain_session(GRAPHS[name]().SerializeToString())
    (y,) = made.run(None, fitting(made))
    assert np.isfinite(y).all()


def test_equal_numbers_give_equal_cases():
    for name, make in GRAPHS.items():
        first, second, other = (hostile(make(), random.Random(seed)) for seed in (name, name, name + "."))
        assert first == second != other


def test_what_races_strikes_at_every_op():
    """Without its faults the graph would give something else, from each of them on."""
    names = [node.output[0] for node in everything().graph.node if node.domain == "hwfault"]
    model = everything()
    del model.graph.output[:]
    for node in model.graph.node:
        model.graph.output.add().name = node.output[0]
    made = plain_session(model.SerializeToString())
    found = dict(zip([output.name for output in made.get_outputs()], made.run(None, inputs(2)), strict=True))
    before = {node.output[0]: node.input[0] for node in model.graph.node}
    for name in names:
        assert (found[name] != found[before[name]]).any(), name
