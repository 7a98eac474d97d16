"""Hardware in the loop: a real process and a real server in onnxruntime's place."""

import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hwfault.errors import HwfaultError
from hwfault.proof import runners
from hwfault.proof.check import check
from tests.helpers.proof import engines
from tests.helpers.proof.bundles import opened


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """A server on this machine is asked without any proxy that the environment names."""
    monkeypatch.setenv("no_proxy", "*")


def command(mode, folder):
    return f"{sys.executable} {Path(engines.__file__)} {mode} '{folder}'"


def test_a_command(whole):
    report = check(opened(whole), runner=runners.by_command(command("right", whole), 120))
    assert report.verdict == "pass"


COMMANDS = {
    "fails": "ended with exit code 1; it said: no board is connected",
    "silent": r"wrote no output\.npz, its last argument",
    "garbage": r"answered 14 bytes that are no \.npz file",
    "pickle": "answered with a file: output is object, expected numbers",
}


@pytest.mark.parametrize("mode", COMMANDS)
def test_commands_that_answer_wrongly(whole, mode):
    with pytest.raises(HwfaultError, match=COMMANDS[mode]):
        check(opened(whole), which="clean", runner=runners.by_command(command(mode, whole), 120))


def test_a_command_that_hangs_is_ended_with_its_children(whole, tmp_path):
    """The shell's child, which is the one that sleeps, holds a file open until it is gone."""
    pid = tmp_path / "pid"
    script = tmp_path / "hangs.sh"
    script.write_text(f"#!/bin/sh\necho waiting for the board\nsleep 60 &\necho $! > {pid}\nwait\n")
    script.chmod(0o755)
    with pytest.raises(HwfaultError, match=r"did not answer within 2 s.*it said: waiting for the board"):
        check(opened(whole), runner=runners.by_command(str(script), 2))
    child = Path(f"/proc/{pid.read_text().strip()}/stat")
    for _ in range(100):  # a process that was killed is gone when its parent has seen it
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives on")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ("a 'b", "cannot be read"), ("/no/such/program x", "cannot be run")],
    ids=["empty", "quote", "absent"],
)
def test_commands_that_are_none(whole, text, words):
    with pytest.raises(HwfaultError, match=words):
        check(opened(whole), runner=runners.by_command(text, 5))


class Board(BaseHTTPRequestHandler):
    """A server in front of an accelerator; `mode` and `folder` are set on a class of its own."""

    mode, folder = "right", None

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        getattr(self, self.mode)(body)

    def answer(self, content, code=200, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def right(self, body):
        with np.load(io.BytesIO(body)) as arrays:
            output = engines.emulated({name: arrays[name] for name in arrays.files}, self.folder)
        packed = io.BytesIO()
        np.savez(packed, output=output)
        self.answer(packed.getvalue())

    def error(self, body):
        self.answer(b"no board is connected", 503)

    def garbage(self, body):
        self.answer(b"<html>hello</html>")

    def redirect(self, body):
        self.answer(b"", 302, Location="/elsewhere")

    def hangs(self, body):
        self.server.waiting.wait(30)

    def drips(self, body):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.waiting.wait(0.05):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def short(self, body):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"PK")

    def bomb(self, body):
        """A small archive with an array of more than the limit by its header."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("output.npy", "w") as stream:
            head = {"descr": "<f4", "fortran_order": False, "shape": (runners.LARGEST_ANSWER,)}
            np.lib.format.write_array_header_1_0(stream, head)
            for _ in range(2):
                stream.write(bytes(1 << 20))
        self.answer(packed.getvalue())

    def log_message(self, *_):
        pass


@pytest.fixture
def board(whole):
    """Starts a server that behaves in a mode: its URL."""
    servers = []

    def start(mode):
        handler = type("Handler", (Board,), {"mode": mode, "folder": whole})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.waiting = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/run"

    yield start
    for server in servers:
        server.waiting.set()
        server.shutdown()
        server.server_close()


def test_an_endpoint(whole, board):
    assert check(opened(whole), runner=runners.by_url(board("right"), 60)).verdict == "pass"


ANSWERS = {
    "error": "answered 503 Service Unavailable: no board is connected",
    "garbage": r"answered 18 bytes that are no \.npz file",
    "redirect": "answered 302 Found",
    "hangs": "did not answer within 0.5 s",
    "drips": "did not answer within 0.5 s",
    "short": r"answered 2 bytes that are no \.npz file",
    "bomb": r"by its header, but 2097152 bytes of content",
}


@pytest.mark.parametrize("mode", ANSWERS)
def test_endpoints_that_answer_wrongly(whole, board, mode):
    timeout = 0.5 if mode in ("hangs", "drips") else 60
    with pytest.raises(HwfaultError, match=ANSWERS[mode]):
        check(opened(whole), which="clean", runner=runners.by_url(board(mode), timeout))


def test_an_answer_that_unpacks_to_too_much(whole, board, monkeypatch):
    monkeypatch.setattr(runners, "LARGEST_ANSWER", 1000)
    with pytest.raises(HwfaultError, match=r"answered [0-9]+ bytes, expected at most 1000"):
        check(opened(whole), which="clean", runner=runners.by_url(board("bomb"), 60))


def test_endpoints_that_are_none(whole):
    for url in ("file:///etc/passwd", "ftp://host/x", "board:80", ""):
        with pytest.raises(HwfaultError, match="expected http"):
            runners.by_url(url, 1)
    for url in ("http://127.0.0.1:1/run", "http://", "http://[::1", "http://a b/"):
        with pytest.raises(HwfaultError, match="cannot be asked"):
            check(opened(whole), which="clean", runner=runners.by_url(url, 5))


def test_a_process_that_replays_a_bundle_imports_no_pytorch(whole):
    """In a fresh process, through the command line, with onnxruntime and with a runner."""
    code = f"""
import sys
from hwfault.cli import main
for rest in ([], ["--runner", "tests.helpers.proof.engines:wrong_shape"]):
    try:
        main(["replay", {str(whole)!r}, *rest])
    except SystemExit as end:
        print("code", end.code)
print("heavy", sorted({{"torch", "brevitas", "lightning", "qonnx"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in [os.getcwd(), *sys.path] if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith(("code", "heavy"))] == [
        "code 0",
        "code 1",
        "heavy []",
    ]
