"""What makes a command line kind: examples, nearest names, early refusals, how much is said, how it is stopped."""

import importlib
import logging
import shlex
import signal
import sys

import click
import pytest

from hwfault.cli import COMMANDS, main
from hwfault.cli import command as base
from hwfault.cli.common import progress
from hwfault.errors import FileError, HwfaultError, ModelError, nearest
from hwfault.notices import remark
from tests.cli.conftest import good, hwfault, refused


def leaves(group, names=()):
    """Every command with the words that call it."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*names, name))
        else:
            yield (*names, name), command


LEAVES = dict(leaves(main))


def test_all_commands_were_found():
    assert {words[0] for words in LEAVES} == set(COMMANDS)
    assert len(LEAVES) > 25


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_help_has_an_example_that_is_understood(words):
    command = LEAVES[words]
    assert command.examples
    text = good(*words, "--help").stdout
    for example in command.examples:
        assert f"\n  hwfault {example}\n" in text
        called = tuple(shlex.split(example))
        called = called[: called.index(">")] if ">" in called else called
        assert called[: len(words)] == words
        context = command.make_context(words[-1], list(called[len(words) :]))  # raises for what is no option or value
        assert context.params


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evalute", "run"], "no command 'evalute': did you mean 'evaluate'?"),
        (["campaign", "reprot", "x"], "no command 'reprot': did you mean 'report'?"),
        (["profiles", "lists"], "no command 'lists': did you mean 'list'?"),
        (["xyzzy"], "no command 'xyzzy': expected one of demo, train, "),
        (["evaluate", "run", "--rate", "0"], "No such option '--rate'"),
        (["sites", "resnet21"], "did you mean 'resnet20'?"),
    ],
)
def test_names_that_are_near(words, told):
    refused(*words, words=told, code=2)


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [
        ("bit_flip", ["word", "bit_flips", "cluster"], "bit_flips"),
        ("resnet21", ["resnet32", "resnet20", "resnet110"], "resnet20"),
        ("features.0.wieght_quant", ["features.1.weight_quant", "features.0.weight_quant"], "features.0.weight_quant"),
    ],
)
def test_of_several_as_similar_the_one_that_begins_alike(given, known, meant):
    for order in (known, known[::-1]):
        assert nearest(given, order) == f"did you mean {meant!r}?"


def test_a_fault_model_that_is_near(tmp_path):
    (tmp_path / "f.yaml").write_text("faults: [{model: bit_flip, probability: 0.1}]")
    refused("faults", "digits_cnn", "--faults", tmp_path / "f.yaml", words="'bit_flips'", code=2)


@pytest.mark.parametrize(
    "words",
    [
        ["faults", "digits_cnn", "--ber", "2"],
        ["faults", "digits_cnn", "--ber", "0.1", "--select", "nothing"],
        ["train", "--optimizer", "adagrad", "--dry-run"],
        ["train", "--epochs", "0", "--dry-run"],
        ["sites", "resnet"],
        ["profiles", "show", "bram28-kintex7-kc705b-undervolt@voltage=0.53"],
    ],
    ids=" ".join,
)
def test_wrong_values_are_wrong_usage(words):
    refused(*words, words="", code=2)


def test_what_cannot_be_read_is_an_error(tmp_path):
    refused("sites", tmp_path / "none.onnx", words="cannot be read", code=1)


@pytest.mark.parametrize("error", [HwfaultError, FileError, ModelError])
def test_the_code_is_that_of_the_error(monkeypatch, error):
    def fails(*_):
        raise error("so it is")

    monkeypatch.setattr(importlib.import_module("hwfault.program.notes"), "notes_on", fails)
    refused("sites", "digits_cnn", words="so it is", code=2 if error is ModelError else 1)


class TestOutputs:
    """They are looked at before the graph, which is not there, is read."""

    @pytest.mark.parametrize(
        ("words", "endings"),
        [
            (["strip", "a.onnx", "-o", "b.txt"], "ends in .onnx"),
            (["insert", "a.onnx", "--ber", "0.1", "-o", "b"], "ends in .onnx"),
            (["run", "a.onnx", "--input", "x.npy", "--output", "y.csv"], "ends in .npy or .npz"),
            (["campaign", "export", "a", "--out", "t.xlsx"], "ends in .csv or .parquet"),
            (["profiles", "plot", "a", "--out", "b.gif"], "ends in .png, .svg or .pdf"),
            (["profiles", "fit", "a", "--out", "b.json"], "ends in .yaml or .yml"),
            (["replay", "bundle.zip", "--html", "page"], "ends in .html or .htm"),
        ],
        ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
    )
    def test_another_suffix(self, words, endings):
        refused(*words, words=endings, code=2)

    def test_a_folder_that_is_not_there_or_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        for place in (tmp_path / "none" / "b.onnx", tmp_path / "file" / "b.onnx"):
            refused("strip", "a.onnx", "-o", place, words=f"{place}: cannot be written", code=1)

    def test_a_folder_in_a_files_place(self, tmp_path):
        (tmp_path / "b.onnx").mkdir()
        refused("strip", "a.onnx", "-o", tmp_path / "b.onnx", words="cannot be written (Is a directory)", code=1)

    def test_a_folder_that_must_not_be_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.access", lambda *_: False)
        refused("strip", "a.onnx", "-o", tmp_path / "b.onnx", words="(Permission denied)", code=1)

    def test_nothing_is_imported_for_it(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnx", None)
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        refused("strip", "a.onnx", "-o", tmp_path / "none" / "b.onnx", words="cannot be written", code=1)


def test_bundles_in_the_place_of_graphs_and_runs(tmp_path, made):
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(b"PK\x03\x04")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "manifest.json").write_text("{}")
    for given in (bundle, tmp_path / "folder"):
        for words in (["sites", given], ["strip", given, "-o", tmp_path / "o.onnx"], ["evaluate", given]):
            refused(*words, words=[f"{given}: is a bundle, expected", f"`hwfault replay {given}` takes it"], code=1)


@click.command("speak", cls=base.Command, examples=["speak"])
def speak():
    """A command that says all there is to be said."""
    remark("a remark")
    logging.getLogger("hwfault").warning("beware")
    logging.getLogger("hwfault.graph").debug("a detail")
    with progress() as begin:
        begin("the work", 1)()
    raise HwfaultError("it failed") from ValueError("the cause")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ([], {"a remark", "beware", "the work"}),
        (["--quiet"], {"beware"}),
        (["-q"], {"beware"}),
        (["--verbose"], {"a remark", "beware", "the work", "a detail", "the cause"}),
        (["-v"], {"a remark", "beware", "the work", "a detail", "the cause"}),
    ],
)
def test_how_much_is_said(monkeypatch, option, said):
    monkeypatch.setattr("hwfault.cli.sites.command", speak)
    before = logging.getLogger("hwfault").level, logging.getLogger("hwfault.remarks").level
    done = hwfault("sites", *option)
    everything = {"a remark", "beware", "the work", "a detail", "the cause"}
    assert {text for text in everything if text in done.stderr} == said
    assert "Error: it failed" in done.stderr
    assert before == (logging.getLogger("hwfault").level, logging.getLogger("hwfault.remarks").level)


def test_quiet_and_verbose_exclude_one_another():
    refused("sites", "digits_cnn", "-q", "-v", words="--quiet and --verbose were both given", code=2)


@pytest.mark.parametrize(("command", "goes_on"), [("sites", ""), ("train", "with --resume goes on from there")])
def test_ctrl_c(monkeypatch, tmp_path, command, goes_on):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hwfault.cli.runs.Trusted.sites", stopped)
    monkeypatch.setattr("hwfault.cli.train._config", stopped)
    words = {"sites": ["sites", "digits_cnn"], "train": ["train", "--out", tmp_path / "run"]}[command]
    done = hwfault(*words)
    assert done.code == 128 + signal.SIGINT == 130
    assert done.stderr.startswith("Error: stopped by SIGINT; what was finished is kept whole")
    assert goes_on in done.stderr
    assert ("--resume" in done.stderr) == bool(goes_on)


@pytest.mark.parametrize(("terminal", "loudness", "told"), [(True, 0, True), (True, -1, False), (False, 0, False)])
def test_the_first_import_of_torch_is_told_on_a_terminal(monkeypatch, capsys, terminal, loudness, told):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(base, "loudness", lambda: loudness)
    before = len(sys.meta_path)
    base.tell_when_torch_starts()
    assert len(sys.meta_path) == before + terminal
    for _ in range(2):
        importlib.util.find_spec("torch")
    assert len(sys.meta_path) == before
    assert (capsys.readouterr().err == "loading PyTorch ...\n") == told
