"""`hwfault export --bundle` and `hwfault replay BUNDLE`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

import hwfault as package
from hwfault.cli import _OF_TRAINING
from tests.cli.conftest import good, hwfault, refused
from tests.cli.test_process import process

ROOT = Path(package.__file__).parents[1]


@pytest.fixture(scope="session")
def bundle(made):
    """A bundle of the tiny run."""
    good("export", made / "run", "--bundle", "--ber", 0.03, "--samples", 8, "--seeds", "3,4", "--out", made / "bundle")
    return made / "bundle"


def test_export_tells_what_is_in_it_and_how_large_it_is(made, tmp_path):
    options = ("--ber", 0.02, "--samples", 4, "--seeds", 7)
    done = good("export", made / "run", "--bundle", *options, "--out", tmp_path / "b.zip")
    size = sum(entry["bytes"] for entry in manifest(tmp_path / "b.zip")["files"].values())
    assert f"b.zip: 4 samples, 1 seeds, 8 sites, {size / 1e6:.1f} MB unpacked" in done.stdout
    assert f"next: hwfault replay {tmp_path / 'b.zip'}" in done.stdout
    told = good("export", made / "run", "--bundle", "--out", tmp_path / "c", "--json").json
    assert (told["bundle"], told["plan"], told["sites"]) == (str(tmp_path / "c"), None, 8)


def manifest(path):
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("manifest.json"))


def test_replay_passes(bundle, tmp_path):
    done = good("replay", bundle, "--html", tmp_path / "p.html", "--out", tmp_path / "r.json")
    assert done.stdout.splitlines()[-1].startswith("Replay: pass. 8 samples, 3 runs, 8 sites, onnxruntime ")
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "pass"
    assert "Replay: pass." in (tmp_path / "p.html").read_text()
    told = good("replay", bundle, "--seeds", 4, "--only", "faulty", "--json").json
    assert [run["seed"] for run in told["runs"]] == [4]


def test_another_graph_in_the_bundles_place(made, bundle):
    done = good("replay", bundle, "--graph", made / "clean.onnx", "--json").json
    assert ([run["seed"] for run in done["runs"]], done["verdict"]) == ([None], "pass")
    words = "carries another plan than plan.json"
    refused("replay", bundle, "--graph", made / "faulted.onnx", words=words)
    refused("replay", bundle, "--graph", made / "none.onnx", words="none.onnx: cannot be read")


def test_replay_names_the_first_difference_and_ends_with_code_3(bundle, tmp_path):
    from safetensors.numpy import save

    from tests.helpers.proof.bundles import copied, rewritten

    mine = copied(bundle, tmp_path / "mine")
    tensors = load_file(mine / "seed-3.safetensors")
    name = "features.1.act_quant#0"
    word = int(tensors[f"{name}.at"][0])
    for what in ("at", "after"):
        tensors[f"{name}.{what}"] = tensors[f"{name}.{what}"][1:].copy()
    rewritten(mine, "seed-3.safetensors", save(tensors))
    done = hwfault("replay", mine, "--html", tmp_path / "p.html")
    assert done.code == hwfault("replay", mine, "--accept", "codes").code == 3, "a fault that differs is never accepted"
    place = f"the site features.1.act_quant (3 of 8), sample {word // 1024}, word {word % 1024}: code after the faults"
    assert "Replay: faults differ. 8 samples, 3 runs, 8 sites" in done.stdout
    assert place in done.stdout.replace("\n", " ")
    assert "faults drawn on these words:" in done.stdout
    assert place in (tmp_path / "p.html").read_text()


def test_rounding_that_differs_can_be_accepted(bundle, tmp_path):
    from safetensors.numpy import save

    from tests.helpers.proof.bundles import copied, rewritten

    mine = copied(bundle, tmp_path / "mine")
    tensors = load_file(mine / "clean.safetensors")
    output, codes = tensors["output"], tensors["features.1.act_quant#0.codes"]
    largest = np.abs(output).max()

    def ended(*accepted):
        rewritten(mine, "clean.safetensors", save(tensors))
        options = [word for name in accepted for word in ("--accept", name)]
        return hwfault("replay", mine, "--only", "clean", *options)

    output[3, 4] += 5e-6 * largest
    assert ended().code == 3
    assert [ended(name).code for name in ("outputs", "outputs=1e-6", "codes", "outputs=1e-4")] == [0, 3, 0, 0]
    told = ended("outputs").stdout
    assert "Accepted: outputs within 1e-05 of the largest recorded one, and equal predictions." in told
    assert "--arithmetic integer" in told
    assert "--accept outputs" in told
    output[3, 4] += 5e-5 * largest
    assert [ended(name).code for name in ("outputs", "codes", "outputs=1e-4")] == [3, 3, 0]
    assert ended("codes", "outputs=1e-4").code == 0
    assert "Not accepted: outputs differ by up to" in ended("outputs").stdout
    output[3, 4] -= 5.5e-5 * largest
    codes[3, 4] ^= 1
    assert [ended(name).code for name in ("outputs", "codes")] == [3, 0]
    told = ended("codes").stdout.replace("\n", " ")
    share = f"{1 / codes.size:.3%}"
    assert f"Codes of unstruck words differ by at most 1 grid step, at most at {share} of a site's" in told
    assert ended().code == 3


@pytest.mark.parametrize(
    "value", ["words", "outputs=", "outputs=x", "outputs=nan", "outputs=1", "outputs=-1e-5", "codes=1"]
)
def test_what_cannot_be_accepted(bundle, value):
    refused("replay", bundle, "--accept", value, words="cannot be accepted, expected outputs, codes, or", code=2)


def test_a_runner_in_onnxruntimes_place(bundle):
    script = ROOT / "tests" / "helpers" / "proof" / "engines.py"
    command = f"{sys.executable} {script} right {bundle}"
    done = good("replay", bundle, "--runner-command", command)
    assert f"runner {command}" in done.stdout
    wrong = "tests.helpers.proof.engines:wrong_shape"
    refused("replay", bundle, "--runner", wrong, words="the output has the shape")
    own = "tests.helpers.proof.engines:raises"
    refused("replay", bundle, "--runner", own, words=["raised NoBoard", "it is on fire (", "engines.py, line"])
    late = ("--runner", "tests.helpers.proof.engines:hangs", "--runner-timeout", 0.2)
    refused("replay", bundle, *late, words="did not answer within 0.2 s")


USAGE = {
    "two runners": (["--runner", "a:b", "--runner-url", "http://x"], "expected one of --runner, --runner-command"),
    "graph and runner": (["--graph", "g.onnx", "--runner-url", "http://x"], "--graph goes with neither"),
    "timeout alone": (["--runner-timeout", 3], "--runner-timeout goes with"),
    "batch size": (["--batch-size", 3], "--batch-size go with GRAPH and RUN"),
    "network": (["--network", "a:b"], "go with GRAPH and RUN"),
}


@pytest.mark.parametrize("what", USAGE)
def test_options_that_do_not_go_together(bundle, what):
    options, words = USAGE[what]
    refused("replay", bundle, *options, words=words, code=2)


def test_options_of_the_other_form(made, run, bundle):
    for option in (("--only", "clean"), ("--graph", "g.onnx"), ("--runner", "m:f"), ("--runner-timeout", 3)):
        refused("replay", made / "faulted.onnx", run, *option, words="go with a bundle", code=2)
    refused("replay", made / "faulted.onnx", words="Missing argument 'RUN'", code=2)
    refused("export", run, "--samples", 3, "--out", "x.onnx", words="go with --bundle", code=2)
    refused("export", run, "--bundle", "--seeds", 3, "--out", "x", words="--seeds goes with faults", code=2)
    refused("replay", bundle, "--seeds", 9, words="nothing was recorded under seed 9; recorded are [3, 4]")


def test_bundles_that_are_none(tmp_path, run):
    refused("replay", tmp_path / "none", words="there is no such file or folder; expected a bundle")
    refused("replay", run, words="manifest.json cannot be read")
    (tmp_path / "b.zip").write_bytes(b"PK")
    refused("replay", tmp_path / "b.zip", words="not a whole .zip file")


def test_a_folder_of_ones_own_is_left_alone(made, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    refused("export", made / "run", "--bundle", "--out", tmp_path, words="is there already and is no bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


HIDE = """
import sys
from importlib.abc import MetaPathFinder
class Hidden(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from hwfault.cli import main
main({arguments!r}, prog_name="hwfault")
"""


SEVERAL = (
    HIDE[: HIDE.index("main(")]
    + """
for arguments in {commands!r}:
    main(arguments, prog_name="hwfault", standalone_mode=False)
assert not {{"torch", "brevitas", "qonnx"}} & set(sys.modules)
"""
)


def without(names, *commands):
    """Commands, one after the other in one process in which packages of these names cannot be imported."""
    texts = [[str(argument) for argument in command] for command in commands]
    return process(python=("-c", SEVERAL.format(names=names, commands=texts)))


def without_training(*arguments):
    """A command where nothing of the extra `train` can be imported."""
    code = HIDE.format(names=_OF_TRAINING, arguments=[str(a) for a in arguments])
    return process(python=("-c", code))


def test_what_needs_no_torch_works_without_it(made, bundle):
    done = without(
        _OF_TRAINING,
        ("replay", bundle),
        ("sites", made / "faulted.onnx"),
        ("faults", made / "faulted.onnx"),
        ("faults", made / "clean.onnx", "--faults", "sram14-ibm-7points@operating_point=0"),
        ("profiles", "list"),
    )
    assert done.returncode == 0, done.stderr


def test_what_needs_torch_says_how_to_install_it(made, run):
    for command in (
        ("train", "--out", made / "x"),
        ("evaluate", run, "--ber", "0.1"),
        ("export", run, "--out", made / "x.onnx"),
        ("replay", made / "faulted.onnx", run),
        ("sites", "digits_cnn"),
        ("demo", "--out", made / "x"),
    ):
        done = without_training(*command)
        assert done.returncode == 1, command
        words = f"Error: {command[0]} needs torch, which is not installed here; run `pip install 'hwfault[train]'`"
        assert done.stderr.splitlines()[-1] == words
        assert done.stdout == ""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The C++ example, built."""
    build = tmp_path_factory.mktemp("host")
    source = ROOT / "export" / "example"
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    for step in (["-S", source, "-B", build, "-DCMAKE_CXX_FLAGS=-Werror"], ["--build", build]):
        done = subprocess.run(["cmake", *map(str, step)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "host"


def onnxruntime_itself(python=None):
    """The library inside the installed onnxruntime, or that of another Python."""
    code = "import onnxruntime; print(onnxruntime.__file__)"
    asked = [] if python is None else subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    place = asked.stdout.strip() if asked else onnxruntime.__file__
    (library,) = Path(place).parent.glob("capi/libonnxruntime.so.*")
    return library


RUNTIMES = {"newest": None}
if "HWFAULT_OLDEST_ONNXRUNTIME" in os.environ:  # `make test` names its Python
    RUNTIMES["oldest"] = os.environ["HWFAULT_OLDEST_ONNXRUNTIME"]


def numbers(text):
    return np.array([float.fromhex(line) for line in text.split()], np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hosts_without_hwfault_print_the_recorded_outputs(bundle, host, tmp_path, runtime):
    """The C++ host and the one in plain Python, on the bundle's graphs, against what PyTorch recorded."""
    python = RUNTIMES[runtime]
    x = load_file(bundle / "inputs.safetensors")["input"]
    x.tofile(tmp_path / "x.f32")
    np.save(tmp_path / "x.npy", x)
    shape = ",".join(map(str, x.shape))
    library = package.onnxruntime_library()

    def by_cpp(graph, *rest):
        command = [host, onnxruntime_itself(python), library, bundle / graph, tmp_path / "x.f32", shape, *rest]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
        return numbers(done.stdout)

    recorded = {
        None: load_file(bundle / "clean.safetensors")["output"].ravel(),
        4: load_file(bundle / "seed-4.safetensors")["output"].ravel(),
    }
    assert np.array_equal(by_cpp("clean.onnx"), recorded[None])
    assert np.array_equal(by_cpp("faulted.onnx", 4, 0), recorded[4])
    assert not np.array_equal(recorded[None], recorded[4])
    script = [ROOT / "export/example/host.py", library, bundle / "faulted.onnx", tmp_path / "x.npy", 4, 0]
    done = subprocess.run([python or sys.executable, *map(str, script)], capture_output=True, text=True, check=True)
    assert np.array_equal(numbers(done.stdout), recorded[4])


def test_the_cpp_host_says_what_is_wrong(bundle, host, tmp_path):
    library = package.onnxruntime_library()
    assert subprocess.run([host], capture_output=True, check=False).returncode == 2
    for arguments, words in (
        (["/no/onnxruntime.so", library, bundle / "clean.onnx", "x", "1"], "/no/onnxruntime.so"),
        ([onnxruntime_itself(), library, tmp_path / "none.onnx", "x", "1"], "none.onnx"),
        ([onnxruntime_itself(), library, bundle / "clean.onnx", tmp_path / "x.f32", "1,1,8,8"], "cannot be read"),
    ):
        done = subprocess.run([host, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("host: ")
        assert words in done.stderr


@pytest.mark.slow
def test_an_installation_without_the_extra(bundle, tmp_path):
    """`pip install .` in a new environment brings no torch, and replays the bundle."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    constraints = ROOT / "constraints.txt"
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, ROOT]
    subprocess.run([*map(str, pip)], check=True, cwd=tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True, env=environment
    )
    installed = {line.partition("=")[0].lower() for line in listed.stdout.split()}
    assert installed.isdisjoint({"torch", "brevitas", "lightning", "qonnx", "scipy", "matplotlib"})
    command = [python.with_name("hwfault"), "replay", bundle]
    where = {"cwd": tmp_path, "env": environment}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **where)
    assert done.returncode == 0, done.stderr
    assert "Replay: pass." in done.stdout
