"""What commands do without: --help imports nothing heavy, sites that a run keeps take neither torch nor data."""

import shutil
import subprocess
import sys

import click
import pytest

from hwfault.cli import COMMANDS, main

HEAVY = {"torch", "brevitas", "onnx", "onnxruntime", "lightning", "sklearn", "matplotlib"}
NEEDLESS = HEAVY | {"numpy", "pydantic", "pydantic_core", "rich", "yaml", "safetensors"}


def imported_by(*arguments):
    """The packages that a command imports in a process of its own."""
    command = [sys.executable, "-X", "importtime", "-m", "hwfault", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("command", [[], ["run"], ["sites"], ["train"], ["faults"]], ids=" ".join)
def test_help_imports_nothing_heavy(command):
    found = imported_by(*command, "--help")
    assert "click" in found
    assert found.isdisjoint(NEEDLESS)


@pytest.mark.parametrize("words", [[], ["--json"]], ids=" ".join)
@pytest.mark.parametrize("command", [["sites"], ["faults", "--ber", "0.1", "--site", "input.act_quant"]], ids=" ".join)
def test_sites_that_a_run_keeps_take_no_torch(run, command, words):
    assert imported_by(command[0], run, *command[1:], *words).isdisjoint(HEAVY)


@pytest.mark.slow
def test_without_them_torch_would_be_seen(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "sites.json").unlink()
    assert {"torch", "brevitas"} <= imported_by("sites", tmp_path / "run")
    assert imported_by("sites", tmp_path / "run").isdisjoint(HEAVY)  # the first one has kept them


@pytest.mark.parametrize("width", [40, 80, 120, 300])
def test_the_list_of_commands_is_what_click_makes_of_their_own_help(width):
    context = click.Context(main, info_name="hwfault")
    ours, clicks = (click.HelpFormatter(width=width, max_width=width) for _ in range(2))
    main.format_commands(context, ours)
    click.Group.format_commands(main, context, clicks)
    assert ours.getvalue() == clicks.getvalue()
    assert set(COMMANDS) <= set(ours.getvalue().split())
