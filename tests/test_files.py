"""Files are written whole or not at all, and a place that cannot be written says so."""

import os
import stat
from pathlib import Path

import pytest

from hwfault.errors import FileError
from hwfault.files import output_folder, replace_atomically, write_atomically


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "out.json"
    path.write_bytes(b"old")
    return path


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_new_files(tmp_path):
    write_atomically(tmp_path / "new", b"\x00bytes")
    assert (tmp_path / "new").read_bytes() == b"\x00bytes"
    assert names(tmp_path) == ["new"]


def test_paths_may_be_text(tmp_path):
    write_atomically(str(tmp_path / "new"), b"1")
    assert (tmp_path / "new").read_bytes() == b"1"


def test_plain_names_are_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_atomically("new", b"1")
    assert names(tmp_path) == ["new"]


def test_old_content_is_replaced(target):
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["out.json"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"1")
        assert os.umask(0o027) == 0o027, "the umask was changed"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_the_writer_gets_a_path_with_the_same_suffix_in_the_same_folder(target):
    seen = []

    def write(path):
        seen.append(Path(path))
        Path(path).write_bytes(b"new")
        assert target.read_bytes() == b"old", "the target changed before the file was complete"

    replace_atomically(target, write)
    assert target.read_bytes() == b"new"
    assert (seen[0].suffix, seen[0].parent) == (".json", target.parent)


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_writer_that_breaks_off_leaves_the_old_file_alone(target, error):
    def write(path):
        Path(path).write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        replace_atomically(target, write)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["out.json"]


def test_a_disk_that_is_full(target):
    def write(path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        FileError, match=r"out.json: cannot be written \(No space left on device\); choose another place"
    ):
        replace_atomically(target, write)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["out.json"]


def test_a_folder_that_is_missing(tmp_path):
    path = tmp_path / "no" / "out"
    with pytest.raises(FileError, match=r"no/out: cannot be written \(No such file or directory\)"):
        write_atomically(path, b"")


def test_a_folder_in_the_files_place(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileError, match=r"out: cannot be written \(Is a directory\)"):
        write_atomically(tmp_path / "out", b"")
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_folders_place(target):
    with pytest.raises(FileError, match=r"cannot be written \(Not a directory\)"):
        write_atomically(target / "out", b"")


def test_output_folders_are_made_and_left_empty(tmp_path):
    folder = output_folder(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    assert names(folder) == []
    assert output_folder(str(folder)) == folder


@pytest.mark.parametrize("below", ["", "deeper"])
def test_output_folders_that_are_files(target, below):
    with pytest.raises(FileError, match=r"not a folder to write in \(.*\); choose another with --out"):
        output_folder(target / below)
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can write")
def test_output_folders_in_which_nobody_can_write():
    with pytest.raises(FileError, match="/proc/self: not a folder to write in"):
        output_folder("/proc/self")
