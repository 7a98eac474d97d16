"""Runs whose data lie elsewhere now, and those that name code: every command takes the words that say so."""

import shutil

import pytest

from tests.cli.conftest import good, hwfault, refused
from tests.helpers.train import files

TRANSFORM = "tests.train.test_data_folder:to_bytes"


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run on images that lay in another folder, with a transform, and the folder where they are now."""
    folder = tmp_path_factory.mktemp("moved")
    files.write_image_folder(folder / "before", size=(8, 8), classes=tuple("abcdefghij"), n_train=1, n_val=1)
    good(
        "train", "--epochs", 1, "--network", "tiny_cnn", "--data", "image_folder", "--data-folder", folder / "before",
        "--transform", TRANSFORM, "--out", folder / "run",
    )  # fmt: skip
    shutil.move(folder / "before", folder / "now")
    return folder / "run", ["--data-folder", folder / "now", "--transform", TRANSFORM]


@pytest.mark.parametrize("command", ["sites", "faults", "evaluate", "export", "compare", "replay"])
def test_every_command_takes_them(moved, tmp_path, command):
    run, words = moved
    rest = {
        "sites": [],
        "faults": ["--ber", 0.1],
        "evaluate": ["--seeds", "0"],
        "export": ["--out", tmp_path / "g.onnx"],
        "compare": ["--rates", "0", "--seeds", "0"],
        "replay": ["--seeds", "0", "--accept", "codes"],
    }[command]
    if command == "replay":
        good("export", run, *words, "--ber", 0.1, "--out", tmp_path / "g.onnx")
    before = [tmp_path / "g.onnx"] if command == "replay" else []
    good(command, *before, run, *words, *rest)
    refused(command, *before, run, *words[:2], *rest, words=f"(--transform {TRANSFORM}) if you trust it")
    refused(command, *before, run, *words[2:], *rest, words="before: there is no such folder; data 'image_folder'")


def test_shapes_are_those_of_the_data(moved):
    run, words = moved
    found = good("sites", run, *words, "--json").json["sites"]
    assert next(site["shape"] for site in found if site["kind"] == "activation") == [3, 8, 8]


@pytest.mark.parametrize("option", ["--network", "--data", "--data-folder", "--transform"])
@pytest.mark.parametrize(
    "command",
    [
        ["sites", "digits_cnn"],
        ["sites", "none.onnx"],
        ["faults", "digits_cnn", "--ber", "0.1"],
        ["faults", "none.onnx", "--ber", "0.1"],
        ["faults", "none.onnx"],
        ["faults", "none.json"],
    ],
    ids=" ".join,
)
def test_what_is_no_run_takes_none(command, option):
    done = hwfault(*command, option, "a:b")
    assert done.code == 2
    assert f"go with a run or checkpoint, given {command[1]}" in " ".join(done.stderr.split())
