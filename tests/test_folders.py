"""A folder is replaced as a whole: killed at any step, the old one or the new one is in place, or the next puts it."""

import signal
import subprocess
import sys

import pytest

from hwfault import folders
from hwfault.errors import FileError
from hwfault.folders import recover, replace_folder_atomically
from tests.test_files import names

OLD, NEW = {"a": b"old", "below/b": b"old"}, {"a": b"new", "below/b": b"new", "c": b"new"}


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def exchanges(request, monkeypatch):
    """With the kernel's exchange, and as on file systems without it."""
    if not request.param:
        monkeypatch.setattr(folders, "exchange", lambda *_: False)
    return request.param


def test_folders_are_made_and_replaced(tmp_path, exchanges):
    for files in (OLD, NEW, OLD):
        replace_folder_atomically(tmp_path / "f", files)
        assert content(tmp_path / "f") == files
        assert names(tmp_path) == ["f"]


def test_permissions_stay(tmp_path, exchanges):
    replace_folder_atomically(tmp_path / "f", OLD)
    (tmp_path / "f").chmod(0o751)
    replace_folder_atomically(tmp_path / "f", NEW)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o751


def test_links_to_folders_stay(tmp_path, exchanges):
    replace_folder_atomically(tmp_path / "f", OLD)
    (tmp_path / "link").symlink_to("f")
    replace_folder_atomically(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "f") == NEW


def test_a_file_is_not_replaced_by_a_folder(tmp_path, exchanges):
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(FileError, match="Not a directory"):
        replace_folder_atomically(tmp_path / "f", NEW)
    assert (tmp_path / "f").read_bytes() == b"mine"


KILLED = """
import os, pathlib, signal, sys
from hwfault import folders
place, exchanges = pathlib.Path(sys.argv[1]), sys.argv[2] == "True"
number, raises = int(sys.argv[3]), sys.argv[4] == "True"
if not exchanges:
    folders.exchange = lambda *_: False

def stop(*_):
    raise KeyboardInterrupt

def child(folder, step):
    steps = 0
    def hook(event, arguments):
        nonlocal steps
        if event.split(".")[0] in ("os", "shutil", "open", "tempfile", "ctypes") and event != "os.kill":
            steps += 1
            if steps == step:
                os.kill(os.getpid(), number)
    if raises:
        signal.signal(number, stop)
    sys.addaudithook(hook)
    folders.replace_folder_atomically(folder, NEW)

for step in range(1, 100):
    folder = place / str(step) / "f"
    folder.parent.mkdir()
    folders.replace_folder_atomically(folder, OLD)
    if not (process := os.fork()):
        try:
            child(folder, step)
        except KeyboardInterrupt:
            os._exit(7)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(code, flush=True)
    if code == 0:
        break
    assert code == (7 if raises else -number), code
"""


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("number", "raises"),
    [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
)
def test_killed_at_every_step(tmp_path, exchanges, number, raises):
    """Before each of its calls of the system, until it gets through: a reader finds one of the two at once, or after
    `recover` at the latest, which the next write and the next opening begin with."""
    script = f"OLD, NEW = {OLD}, {NEW}\n" + KILLED
    words = [sys.executable, "-c", script, tmp_path, exchanges, number.value, raises]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *killed, last = done.stdout.split()
    assert last == "0"
    assert len(killed) > 10
    for step in range(1, len(killed) + 1):
        folder = tmp_path / str(step) / "f"
        if exchanges or number != signal.SIGKILL:
            assert content(folder) in (OLD, NEW), step
        recover(folder)
        assert content(folder) in (OLD, NEW), step
        assert names(folder.parent) == ["f"], step
    assert content(tmp_path / str(len(killed) + 1) / "f") == NEW


def test_folders_left_by_older_versions_are_put_back(tmp_path):
    left = tmp_path / ".f.ab_12cde"
    left.mkdir()
    replace_folder_atomically(left / "old", OLD)
    replace_folder_atomically(left / "new", {"a": b"half"})
    recover(tmp_path / "f")
    assert content(tmp_path / "f") == OLD
    assert names(tmp_path) == ["f"]


def test_hidden_folders_of_others_stay(tmp_path):
    for name in (".f.ab_12cde", ".f.hwfault-ab_12cde"):
        replace_folder_atomically(tmp_path / name, {"mine": b"1"})
    replace_folder_atomically(tmp_path / "f", NEW)
    assert names(tmp_path) == [".f.ab_12cde", ".f.hwfault-ab_12cde", "f"]
