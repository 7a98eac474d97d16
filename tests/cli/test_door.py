"""What is printed, and how a signal ends a command."""

import io
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from hwfault.cli import common, main
from hwfault.cli.door import EscapedStream, escaped_streams
from hwfault.errors import HwfaultError
from tests.cli.conftest import good, hwfault
from tests.helpers.proof.bundles import written
from tests.slowly import slow

HOSTILE = "\x1b]0;pwned\x07\x1b[2J\u202efoo[bold]"
SHOWN = "\\x1b]0;pwned\\x07\\x1b[2J\\u202efoo[bold]"


@pytest.fixture
def renamed(tmp_path):
    """A graph of somebody's in which everything bears a hostile name."""
    value, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y"))
    numbers = {"scale": 0.5, "zero": 0.0, "bits": 4.0, "w": np.ones((4, 4))}
    tensors = [numpy_helper.from_array(np.float32(number), HOSTILE + name) for name, number in numbers.items()]
    grid = [HOSTILE + name for name in ("scale", "zero", "bits")]
    quant = {"domain": "qonnx.custom_op.general", "signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    nodes = [
        helper.make_node("Quant", [HOSTILE + "w", *grid], [HOSTILE + "wq"], name=HOSTILE + "1", **quant),
        helper.make_node("MatMul", ["x", HOSTILE + "wq"], [HOSTILE + "m"], name=HOSTILE + "2"),
        helper.make_node("Quant", [HOSTILE + "m", *grid], ["y"], name=HOSTILE + "3", **quant),
    ]
    opsets = [helper.make_opsetid(*entry) for entry in (("", 17), ("qonnx.custom_op.general", 1))]
    graph = helper.make_graph(nodes, "g", [value], [out], tensors)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


def test_names_in_graphs(renamed):
    table = good("sites", renamed).stdout
    assert "\x1b" not in table
    assert "\u202e" not in table
    assert "\\x1b]0;pwned\\x07" in table
    names = [site["name"] for site in good("sites", renamed, "--json").json["sites"]]
    assert any("\x1b]0;pwned\x07\x1b[2J\u202efoo" in name for name in names), "JSON is exact"


def test_errors_and_warnings(tmp_path):
    done = hwfault("sites", f"{tmp_path}/\x1b[31mnone.onnx")
    assert done.code == 1
    assert "\\x1b[31mnone.onnx: cannot be read" in done.stderr
    done = hwfault("sites", "\x1b[31m")
    assert "\x1b" not in done.stderr
    assert hwfault(f"\x1b[31m{tmp_path}").code == 2


def test_all_that_goes_through_the_door(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with escaped_streams():
        click.echo(HOSTILE, color=True)
        print(HOSTILE)
        sys.stdout.writelines([HOSTILE, "\n"])
        common.print_table([HOSTILE], [[HOSTILE + "\n"]])
        click.echo(HOSTILE, err=True, color=True)
    lines = out.getvalue().splitlines()
    assert [line.strip() for line in lines] == [SHOWN] * 4 + [SHOWN + "\\n"]
    assert err.getvalue() == SHOWN + "\n"
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert sys.stdout is out


def test_json_is_exact(capsys):
    everything = "".join(map(chr, range(0x300))) + HOSTILE
    with escaped_streams():
        common.print_json({everything: everything})
    text = capsys.readouterr().out
    assert json.loads(text) == {everything: everything}
    assert text.isascii()
    assert "\x7f" not in text


def test_progress_on_a_terminal(monkeypatch):
    """Its own codes go out, others' do not; also what is printed meanwhile, which goes through the display."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    with escaped_streams(), common.progress() as begin:
        advance = begin(HOSTILE, 1)
        print(HOSTILE, file=sys.stderr)
        advance()
    assert "\x1b[" in err.getvalue(), "the display is drawn"
    assert "pwned\x07" not in err.getvalue()
    assert err.getvalue().count("pwned\\x07") >= 2
    assert Console(file=EscapedStream(err)).is_terminal


def test_an_encoding_that_lacks_characters():
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    EscapedStream(below).write("Größe \u8a9e")
    below.flush()
    assert below.buffer.getvalue() == rb"Gr\xf6\xdfe \u8a9e"


def test_errors_of_hwfault_itself(monkeypatch):
    @main.command("hostile")
    def command():
        raise HwfaultError(f"the runner said {HOSTILE}")

    monkeypatch.setattr(type(main), "get_command", lambda *_: command)
    result = CliRunner().invoke(main, ["hostile"])
    assert result.stderr == f"Error: the runner said {SHOWN}\n"
    main.commands.pop("hostile")


WAITS = """
import pathlib, sys, time
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [15, slow(1)])
def test_signals_end_a_command_and_its_runner(tmp_path, number):
    """Nothing is left: no runner, none of its children, no temporary folder."""
    temporary, began = tmp_path / "tmp", tmp_path / "began"
    temporary.mkdir()
    bundle = written(tmp_path / "b")
    (tmp_path / "wait.py").write_text(WAITS)
    own = f"{tmp_path}/wait.py {began}"
    shell = f"sh -c 'setsid {sys.executable} {own} & {sys.executable} {own} & wait' runner"
    # whoever runs the tests may ignore a signal, as nohup does, and so would the command
    words = ["env", "--default-signal", sys.executable, "-m", "hwfault"]
    words += ["replay", str(bundle), "--runner-command", shell]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while not began.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == 128 + number
    assert "Error: stopped by SIG" in said
    assert "Traceback" not in said
    assert list(temporary.iterdir()) == []
    assert running(own) == []


def running(words):
    """The processes whose command line holds these words, but for hwfault's own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if words in line and "-m hwfault" not in line]
