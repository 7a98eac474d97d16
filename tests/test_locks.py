"""One process writes in a folder; its lock ends with it, whatever ends it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from hwfault.errors import FileError
from hwfault.locks import locked_file, locked_folder

HOLDS = """
import os, sys, time
from hwfault.locks import locked_folder
with locked_folder(sys.argv[1]):
    alone = len(sys.argv) == 2
    if alone or not os.fork():  # a worker, which outlives its parent, says that both are up: it has let go by then
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def holder(folder, *more):
    """The process that holds the folder, and the number of the last one that it started, or its own."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, folder, *more], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_the_second_is_refused_until_the_first_ends(tmp_path):
    with locked_folder(tmp_path):
        said = "another process writes in this folder; wait for it to end"
        with pytest.raises(FileError, match=said), locked_folder(tmp_path):
            raise AssertionError
        with locked_folder(tmp_path.parent):
            pass
    with locked_folder(tmp_path):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [(), ("worker",)])
def test_a_killed_process_holds_nothing(tmp_path, more):
    process, last = holder(tmp_path, *more)
    try:
        with pytest.raises(FileError, match="another process"), locked_folder(tmp_path):
            raise AssertionError
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    try:
        with locked_folder(tmp_path):
            pass
    finally:
        if more:
            os.kill(last, signal.SIGKILL)  # it lived until here: else there is no such process


def test_where_folders_cannot_be_locked_a_file_is(tmp_path, monkeypatch, caplog):
    honest = fcntl.flock

    def files_only(handle, how):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EBADF, "Bad file descriptor")
        honest(handle, how)

    monkeypatch.setattr(fcntl, "flock", files_only)
    with locked_folder(tmp_path), pytest.raises(FileError, match="another process"), locked_folder(tmp_path):
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == [".hwfault.lock"]
    assert caplog.text == ""


def test_where_nothing_can_be_locked_the_log_says_so(tmp_path, monkeypatch, caplog):
    def never(_handle, _how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", never)
    with locked_folder(tmp_path):
        assert "lies on a file system without locks" in caplog.text


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(FileError, match="cannot be locked"), locked_folder(tmp_path / "none"):
        raise AssertionError


def test_a_file_has_one_writer(tmp_path):
    path = tmp_path / "store.sqlite"
    with locked_file(path), pytest.raises(FileError, match="another process writes there"), locked_file(path):
        pass
    with locked_file(path):
        assert path.read_bytes() == b""
    with pytest.raises(FileError, match="cannot be written"), locked_file(tmp_path / "none" / "store.sqlite"):
        pass
