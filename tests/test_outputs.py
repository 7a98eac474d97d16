"""What outputs may replace: regular files, through links; devices and pipes stay what they are."""

import os
import select
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hwfault.errors import FileError
from hwfault.files import check_suffix, leftovers, replace_atomically, write_atomically
from tests.test_files import names


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "target"
    path.write_bytes(b"old")
    return path


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path, target):
    (tmp_path / "below").mkdir()
    first, second = tmp_path / "first", tmp_path / "below" / "second"
    second.symlink_to(os.path.relpath(target, second.parent))
    first.symlink_to(second)
    write_atomically(first, b"new")
    assert first.is_symlink()
    assert second.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["below", "first", "target"]


def test_a_link_to_nothing_yet(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("new")
    write_atomically(link, b"1")
    assert link.is_symlink()
    assert (tmp_path / "new").read_bytes() == b"1"


def test_links_that_lead_round_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileError, match="a: cannot be written"):
        write_atomically(tmp_path / "a", b"1")
    assert (tmp_path / "a").is_symlink()


@pytest.fixture
def null(tmp_path):
    """A device node of our own: if it is replaced, the machine's is still there."""
    path = tmp_path / "null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.stat(os.devnull).st_rdev)
        path.write_bytes(b"")
    except OSError:
        pytest.skip("only root makes device nodes, and not everywhere")
    return path


def test_devices_are_written_into(tmp_path, null):
    (tmp_path / "link").symlink_to(null)
    for path in (null, tmp_path / "link"):
        write_atomically(path, b"1")
        replace_atomically(path, lambda temporary: Path(temporary).write_bytes(b"2"))
    assert stat.S_ISCHR(null.stat().st_mode)
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "null"]


def test_the_null_device_itself():
    write_atomically(os.devnull, b"1")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that takes nothing")
def test_a_device_that_takes_nothing():
    with pytest.raises(FileError, match="No space left on device"):
        write_atomically("/dev/full", b"1")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_pipes_are_written_into(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="pipe: cannot be written"):  # nobody reads: an error, no endless wait
        write_atomically(pipe, b"1")
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    found = []

    def read():
        select.select([handle], [], [])  # before the writer is there, a read would find the end
        with open(handle, "rb") as file:
            found.append(file.read())

    reader = threading.Thread(target=read)
    content = bytes(range(256)) * 4096  # more than a pipe holds
    writer = threading.Thread(target=write_atomically, args=(pipe, content))
    writer.start()
    reader.start()
    writer.join()
    reader.join()
    assert found == [content]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_sockets_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(FileError, match="is a socket, expected a file"):
            write_atomically("socket", b"1")
        assert stat.S_ISSOCK(os.stat("socket").st_mode)


def test_the_pipe_in_which_messages_go_is_refused():
    code = "from hwfault.files import write_atomically\nwrite_atomically('/dev/stdout', b'content')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "/dev/stdout: is where the command's own messages go" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["", ".", "a\0b", "\0"])
def test_names_that_no_file_can_have(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="cannot be the name of a file"):
        write_atomically(name, b"1")
    assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from hwfault.files import replace_atomically
def write(temporary):
    open(temporary, "wb").write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
replace_atomically(sys.argv[1], write)
"""


def test_what_a_killed_process_left_is_taken_away_by_the_next(target):
    subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    assert len(names(target.parent)) == 2
    assert target.read_bytes() == b"old"
    write_atomically(target, b"new")
    assert names(target.parent) == ["target"]


def test_what_another_writes_just_now_stays(target):
    def write(temporary):
        assert list(leftovers(target)) == []
        write_atomically(target, b"other")
        assert os.path.exists(temporary)
        Path(temporary).write_bytes(b"mine")

    replace_atomically(target, write)
    assert target.read_bytes() == b"mine"


def test_hidden_files_of_others_stay(target):
    others = [".target", ".target.swp", ".target.abcdefgh", ".target.hwfault-abc", ".targets.hwfault-abcdefgh"]
    for name in others:
        (target.parent / name).write_bytes(b"mine")
    write_atomically(target, b"new")
    assert names(target.parent) == sorted([*others, "target"])


def test_suffixes_that_say_nothing():
    known = (".png", ".svg", ".pdf")
    check_suffix("a.PNG", known, "the picture")
    with pytest.raises(FileError, match=r"x.txt: the picture cannot be written as .txt, expected .* .svg or .pdf"):
        check_suffix("x.txt", known, "the picture")
    with pytest.raises(FileError, match="noext: the picture cannot be written as a file without a suffix"):
        check_suffix("noext", known, "the picture")
