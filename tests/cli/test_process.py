"""The commands as processes: exit codes, streams, and installations that are not whole."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hwfault
from hwfault.graph.run import session as session_module
from tests.cli.conftest import good
from tests.cli.conftest import hwfault as in_process
from tests.process import own_words

PACKAGE = Path(hwfault.__file__).parent


def process(*arguments, path=None, python=("-m", "hwfault")):
    """A command in a process of its own; with `path` the package is taken from there, not from its installation."""
    places = [str(path or PACKAGE.parent), *(place for place in sys.path if place)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    # without the site module an editable installation has no say in where the package comes from
    command = [sys.executable, *(["-S"] if path else []), *python, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=path, check=False, timeout=120)


def test_code_0_and_json_alone_on_stdout(made):
    done = process("sites", made / "faulted.onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["sites"]) == 12


@pytest.mark.slow
def test_a_replay_has_json_alone_on_stdout(made, run):
    done = process("replay", made / "faulted.onnx", run, "--seeds", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"


def test_code_1_without_a_traceback(tmp_path):
    done = process("sites", tmp_path / "none.onnx")
    assert done.returncode == 1
    assert done.stdout == ""
    assert own_words(done.stderr).startswith(f"Error: {tmp_path}/none.onnx: cannot be read")
    assert len(own_words(done.stderr).splitlines()) == 1


def test_code_2_for_wrong_usage():
    done = process("sites")
    assert done.returncode == 2
    assert "Error: Missing argument 'SOURCE'" in done.stderr


def test_code_3_where_the_faults_differ(made, run, tmp_path, monkeypatch):
    """A host that gives the graph another seed than PyTorch had."""
    right = session_module.check_seeds
    monkeypatch.setattr(session_module, "check_seeds", lambda seed: right(seed ^ 1))
    done = in_process("replay", made / "faulted.onnx", run, "--seeds", "4", "--out", tmp_path / "r.json")
    assert done.code == 3
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Replay: faults differ. ")
    assert "First difference, in the run under seed 4: the site" in last
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["verdict"] == "faults differ"
    (faulty,) = report["runs"]
    place = faulty["first"]
    assert (faulty["seed"], place["kind"], place["site"]) == (4, "faults", faulty["sites"][0]["name"])
    here = next(codes for codes in place["words"] if codes["word"] == place["word"])
    assert here["recorded_before"] == here["found_before"]
    assert here["recorded_after"] != here["found_after"]


def test_code_3_from_a_graph_that_swaps_its_numbers(made, run, tmp_path):
    """Without any patch: one fault node takes the sample number for the seed, and the seed for the number."""
    import onnx

    graph = onnx.load(made / "faulted.onnx")
    node = [node for node in graph.graph.node if node.op_type == "TransientFaults"][2]
    node.input[3], node.input[4] = node.input[4], node.input[3]
    onnx.save(graph, tmp_path / "g.onnx")
    done = in_process("replay", tmp_path / "g.onnx", run, "--seeds", "1")
    assert done.code in (1, 3), done.stdout
    assert "Traceback" not in done.stderr
    if done.code == 3:
        assert "Replay: faults differ" in done.stdout


def test_output_into_a_pipe_that_closes(run):
    command = f"{sys.executable} -m hwfault faults {run} --ber 0.3 --site features.4.weight_quant --json | head -1"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *filter(None, sys.path)])}
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.stdout == "[\n"
    assert "Traceback" not in done.stderr


def test_the_installed_script():
    script = Path(sys.executable).with_name("hwfault")
    if not script.exists():
        pytest.skip("hwfault is not installed here, only importable")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hwfault, version ")


def test_help_needs_nothing_heavy():
    code = """
import runpy, sys
sys.argv = ["hwfault", "--help"]
try:
    runpy.run_module("hwfault")
except SystemExit:
    print(sorted({"torch", "onnx", "brevitas", "sklearn"} & set(sys.modules)))
"""
    done = process(python=("-c", code))
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def never_built(tmp_path_factory):
    """A source folder as it is after `git clone`: no native library."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(PACKAGE, folder / "hwfault", ignore=shutil.ignore_patterns("_native", "__pycache__"))
    return folder


@pytest.mark.slow
def test_a_source_folder_that_was_never_built(never_built, made, run, tmp_path):
    where = process(path=never_built, python=("-c", "import hwfault; print(hwfault.__file__)"))
    assert where.stdout.startswith(str(never_built)), where.stderr
    words = f"imported from {never_built}/hwfault, where its native library was never built; run `pip install .`"
    for command in (
        ["replay", made / "faulted.onnx", run, "--seeds", "1", "--out", tmp_path / "r.json"],
        ["evaluate", run, "--ber", "0.1", "--seeds", "1", "--out", tmp_path],
    ):
        done = process(*command, path=never_built)
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr
        assert words in " ".join(done.stderr.split())
        assert done.stdout == ""
    (trials,) = tmp_path.iterdir()
    assert len(trials.read_text().splitlines()) == 1, "the question alone, and no trial"


def test_what_needs_no_native_library_works_without_it(never_built, made):
    code = """
import hwfault
from hwfault.errors import NativeLibraryError
plan = hwfault.FaultPlan.load({plan!r})
print(len(plan.names))
try:
    hwfault.onnxruntime_library()
except NativeLibraryError as error:
    print(isinstance(error, ImportError), error)
from hwfault.stream import hits
print(len(hits(seed=1, site=2, sample=0, words=1000, plane=0, probability=0.5, engine="reference")[0]) > 0)
"""
    done = process(path=never_built, python=("-c", code.format(plan=str(made / "plan.json"))))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "8"
    assert lines[1].startswith("True hwfault was imported from")
    assert lines[2] == "True"
    listed = process("faults", made / "plan.json", "--site", "classifier.weight_quant", "--json", path=never_built)
    assert (
        json.loads(listed.stdout)
        == good("faults", made / "plan.json", "--site", "classifier.weight_quant", "--json").json
    )


@pytest.mark.slow  # in tests/stream/test_library.py without a network
def test_a_library_that_cannot_be_loaded(never_built, tmp_path, run):
    broken = tmp_path / "broken"
    shutil.copytree(never_built, broken)
    (broken / "hwfault" / "_native").mkdir()
    (broken / "hwfault" / "_native" / "libhwfault.so").write_bytes(b"not a library")
    done = process("evaluate", run, "--ber", "0.1", "--seeds", "1", path=broken)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be loaded" in done.stderr
