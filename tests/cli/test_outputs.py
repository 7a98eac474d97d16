"""No command writes over what it reads, under whatever name; links stay, and devices are no files to replace."""

import json
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import onnx
import pytest

from hwfault.profiles.library import profile_path
from hwfault.stream.fault_map import FaultMap
from hwfault.train.folder import FILES
from tests.cli.conftest import files, good, hwfault, refused

INPUT = "is an input of this command as well, and would be destroyed; choose another place"
PART = "and would be destroyed; choose another place"


@pytest.fixture
def mine(made, tmp_path):
    """A copy of the run, its graphs and plan, and inputs; what is in it must stay."""
    place = tmp_path / "mine"
    shutil.copytree(made, place)
    np.save(place / "x.npy", np.zeros((1, 1, 8, 8), np.float32))
    before = files(place)
    yield place
    assert {path: content for path, content in files(place).items() if path in before} == before


def same(path):
    """Other names for a file: itself, spelt otherwise, by a link, by a hard link, and beyond a linked folder."""
    link, hard, folder = (path.parent.parent / name for name in ("link.onnx", "hard.onnx", "elsewhere"))
    link.symlink_to(path)
    os.link(path, hard)
    folder.symlink_to(path.parent)
    return [path, path.parent / "run" / ".." / path.name, link, hard, folder / path.name]


def test_the_graph_itself_under_any_name(mine):
    for out in same(mine / "clean.onnx"):
        refused("insert", mine / "clean.onnx", "--ber", 0.1, "-o", out, words=[str(out), INPUT])
        refused("insert", out, "--ber", 0.1, "-o", mine / "clean.onnx", words=INPUT)


def test_every_command_that_writes_a_file(mine):
    clean, faulted, plan, run, x = (mine / n for n in ("clean.onnx", "faulted.onnx", "plan.json", "run", "x.npy"))
    weights = run / "checkpoint.safetensors"
    for words in (
        ("insert", clean, "--plan", plan, "-o", plan),
        ("strip", faulted, "-o", faulted),
        ("bake", faulted, "--seed", "1", "-o", faulted),
        ("export", run, "--out", weights),
        ("export", weights, "--out", weights),
        ("export", run, "--plan", plan, "--out", plan),
        ("run", clean, "--input", x, "--output", x),
        ("run", clean, "--input", f"input={x}", "--output", x),
        ("run", clean, "--input", x, "--output", clean),
        ("faults", plan, "--save", plan),
        ("faults", faulted, "--save", faulted),
        ("replay", faulted, run, "--out", faulted),
        ("replay", faulted, run, "--out", weights),
    ):
        refused(*words, words=PART)


def test_files_that_faults_and_configurations_name(tmp_path, monkeypatch):
    """A map of a measured device, a profile of one's own, and what a run was configured with."""
    FaultMap.from_cells(12872, 8, np.array([1, 4]), [0, 3], [0, 0]).save(tmp_path / "device.safetensors")
    shutil.copy(profile_path("sram14-ibm-7points"), tmp_path / "own.yaml")
    listed = [
        {"model": "map", "file": "device.safetensors", "mapping": {"kind": "linear", "row_bits": 8}},
        {"model": "profile", "profile": "./own.yaml", "at": {"operating_point": 0}},
    ]
    (tmp_path / "faults.yaml").write_text(json.dumps({"faults": listed}))
    monkeypatch.chdir(tmp_path)
    for out in ("device.safetensors", tmp_path / "own.yaml"):
        words = [str(out), "belongs to the input faults.yaml", PART]
        refused("faults", "digits_cnn", "--faults", "faults.yaml", "--save", out, words=words)
    good("faults", "digits_cnn", "--faults", "faults.yaml", "--save", "plan.json")
    refused("faults", "plan.json", "--save", "device.safetensors", words=PART)  # whose plan names it still
    (tmp_path / "settings.yaml").write_text("initial: start/weights.safetensors")
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "weights.safetensors").touch()
    os.link("start/weights.safetensors", "checkpoint.safetensors")
    refused("train", "--config", "settings.yaml", "--out", tmp_path, words=[PART, "settings.yaml"])


def test_profiles_and_dumps(tmp_path):
    dump, profile = tmp_path / "d.csv", tmp_path / "p.yaml"
    dump.write_text("# rows=64 row_bits=8\naddress,bit,kind\n3,1,stuck_at_0\n9,7,stuck_at_0\n")
    fit = ("profiles", "fit", f"{dump}@voltage_v=0.5", "--devices", 0)
    refused(*fit, "-o", dump, words=INPUT)
    refused(*fit, "-o", profile, "--save-map", dump, words=INPUT)
    refused(*fit, "-o", profile, "--plot", dump, words="is an input of this command as well")
    refused(*fit, "-o", profile, "--save-map", tmp_path / "x" / ".." / "p.yaml", words="was given for two outputs")
    assert not profile.exists()
    good(*fit, "-o", profile)
    before = profile.read_bytes()
    refused("profiles", "draw", f"{profile}@voltage_v=0.5", "-o", profile, words=INPUT)
    refused("profiles", "plot", profile, "--out", profile, words=INPUT)
    assert profile.read_bytes() == before


def test_tensors_in_files_beside_the_graph(made, tmp_path):
    model = onnx.load(made / "clean.onnx")
    onnx.save(model, tmp_path / "g.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = files(tmp_path)
    (tmp_path / "link").symlink_to("weights.bin")
    for out in ("weights.bin", "link"):
        words = [f"belongs to the input {tmp_path / 'g.onnx'}", PART]
        refused("insert", tmp_path / "g.onnx", "--ber", 0.1, "-o", tmp_path / out, words=words)
    (tmp_path / "link").unlink()
    assert files(tmp_path) == before
    good("insert", tmp_path / "g.onnx", "--ber", 0.1, "-o", tmp_path / "new.onnx")
    good("insert", tmp_path / "g.onnx", "--ber", 0.1, "-o", tmp_path / "new.onnx")


def test_bundles_and_what_lies_in_them(mine):
    bundle = mine / "b"
    good("export", mine / "run", "--bundle", "--samples", 1, "--seeds", 0, "--ber", 0.01, "--out", bundle)
    before = files(bundle)
    for option in ("--out", "--html"):
        for name in ("manifest.json", "faulted.onnx"):
            refused("replay", bundle, option, bundle / name, words=[f"belongs to the input {bundle}", PART])
    both = mine / "report"
    refused("replay", bundle, "--out", both, "--html", both, words="was given for two outputs")
    assert files(bundle) == before
    good("replay", bundle, "--out", bundle / "report.json")
    good("replay", bundle, "--out", bundle / "report.json")
    shutil.copytree(mine / "run", bundle / "run")
    words = f"{bundle}: holds the input {bundle / 'run'}, which would be lost"
    refused("export", bundle / "run", "--bundle", "--samples", 1, "--out", bundle, words=words)


def test_pictures_and_results_that_are_links_to_the_run(mine, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("accuracy.png", "results.json", "results.csv", "campaign.sqlite"):
        (folder / name).symlink_to(mine / "run" / "checkpoint.safetensors")
        for command in ("evaluate", "compare"):
            refused(command, mine / "run", "--rates", 0, "--seeds", 0, "--out", folder, words=[name, PART])
        (folder / name).unlink()


def test_the_configuration_that_is_read(mine):
    config = mine / "new" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"epochs": 1}))
    refused("train", "--config", config, "--out", config.parent, words=INPUT)
    assert json.loads(config.read_text()) == {"epochs": 1}
    done = hwfault("train", "--config", config, "--out", config.parent, "--resume")
    assert "input of this command" not in done.stderr


def test_the_demo_leaves_a_run_alone(mine):
    refused("demo", "--out", mine / "run", words="holds a training run (last.ckpt); choose another folder")


def test_links_are_written_through(mine, tmp_path):
    link, target = tmp_path / "out.onnx", tmp_path / "target.onnx"
    target.write_bytes(b"old")
    link.symlink_to(target.name)
    good("insert", mine / "clean.onnx", "--ber", 0.1, "-o", link)
    assert link.is_symlink()
    assert onnx.load(target).graph.node


def test_the_null_device_stays(mine):
    good("insert", mine / "clean.onnx", "--ber", 0.1, "-o", os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("name", ["", ".", "x/.."])
def test_names_that_no_file_can_have(mine, tmp_path, monkeypatch, name):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    for words in (
        ("insert", mine / "clean.onnx", "--ber", 0.1, "-o", name),
        ("export", mine / "run", "--out", name),
        ("faults", mine / "plan.json", "--save", name),
        ("run", mine / "clean.onnx", "--input", mine / "x.npy", "--output", name),
    ):
        message = refused(*words, words="")
        assert message.endswith(("choose another place", "or .npy for a single one"))


@pytest.mark.parametrize("name", ["\0", "a\0b"])
def test_names_with_a_zero(mine, name):
    """A shell gives none, but other programs may."""
    for words in (
        ("insert", mine / "clean.onnx", "--ber", 0.1, "-o", name),
        ("train", "--out", name),
        ("sites", name),
        ("profiles", "show", name),
    ):
        refused(*words, words="holds a zero byte", code=2)


def test_the_names_of_a_run_are_those_that_training_writes(mine):
    good("train", "--epochs", 1, "--validation", 0.2, "--out", mine / "new")
    assert {path.name for path in (mine / "new").iterdir()} == {*FILES, "tensorboard"}


def test_two_that_resume_one_run(mine):
    good("train", "--epochs", 1, "--checkpoint-every-steps", 5, "--out", mine / "r")
    held = f"""
import sys
from hwfault.locks import locked_folder
with locked_folder({str(mine / "r")!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    words = [sys.executable, "-c", held]
    before = files(mine / "r")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        said = "r: another process writes in this folder; wait for it to end"
        refused("train", "--resume", "--out", mine / "r", words=said)
        refused("train", "--epochs", 1, "--out", mine / "r", words=said)
        refused("evaluate", mine / "run", "--rates", 0, "--seeds", 0, "--out", mine / "r", words=said)
        refused("compare", mine / "run", "--rates", 0, "--seeds", 0, "--out", mine / "r", words=said)
        assert files(mine / "r") == before
        other.stdin.close()
    refused("train", "--resume", "--out", mine / "r", words="the run is finished")
