"""What is read are regular files: pipes, devices and sockets are refused wherever a path is read, and nothing waits."""

import os
import socket
from pathlib import Path

import pytest

from hwfault.campaigns.lines import read_lines
from hwfault.devices.dumps import load_dump
from hwfault.errors import FileError, HwfaultError
from hwfault.graph.run.session import load_model, session
from hwfault.image_files import decode
from hwfault.injection.site_statistics import load as load_statistics
from hwfault.inputs import check_regular, open_regular, read_regular
from hwfault.npz import read_arrays
from hwfault.plan.fault_plan import FaultPlan
from hwfault.profiles.profile import Profile
from hwfault.proof.storage import Bundle
from hwfault.records import read_yaml
from hwfault.stream.fault_map import FaultMap
from hwfault.train import TrainConfig, build, checkpoint, ckpt
from hwfault.train.data.idx import read_idx
from hwfault.train.environment import _starts
from hwfault.train.run import begin_with

READERS = {
    "arrays": read_arrays,
    "bundle": Bundle.open,
    "checkpoint": checkpoint.load,
    "configuration": TrainConfig.load,
    "dump": load_dump,
    "dumps": lambda path: load_dump(f"{path}:{path}"),
    "graph": load_model,
    "idx": lambda path: read_idx(path, 3),
    "image": decode,
    "initial": lambda path: begin_with(build("tiny_cnn"), str(path)),
    "map": FaultMap.load,
    "lines": read_lines,
    "plan": FaultPlan.load,
    "profile": Profile.load,
    "session": session,
    "state": ckpt.read,
    "statistics": load_statistics,
    "yaml": read_yaml,
}


@pytest.fixture(params=["pipe", "device", "socket", "link"])
def strange(request, tmp_path, monkeypatch):
    """A path at which no regular file lies."""
    path = tmp_path / "x"
    if request.param == "socket":
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x")
            yield path
        return
    if request.param == "device":
        path = Path("/dev/zero")
    elif request.param == "link":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    yield path


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses(strange, reader):
    with pytest.raises(HwfaultError, match=r"is (a|no) (pipe|device|socket)"):
        READERS[reader](strange)


def test_a_pipe_in_a_runs_folder_is_no_list_of_starts(tmp_path):
    os.mkfifo(tmp_path / "environment.json")
    assert _starts(tmp_path / "environment.json") == []


def test_regular_files_and_links_to_them(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"12345"
    assert check_regular(str(tmp_path / "file")) == 5
    assert read_regular(tmp_path / "file", 5, "five bytes") == b"12345"
    with pytest.raises(FileError, match="5 bytes, expected four bytes of at most 4"):
        read_regular(tmp_path / "file", 4, "four bytes")


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        check_regular(tmp_path)
    with pytest.raises(FileError, match="cannot be the name of a file"):
        check_regular("a\0b")
    with pytest.raises(FileError, match=r"none: cannot be read \(No such file or directory\); expected a plan"):
        read_regular(tmp_path / "none", 1, "a plan")
