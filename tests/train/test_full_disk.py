"""A disk that is full when a checkpoint is to be written: one clear error, and what was there before stays whole."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest
import yaml

from hwfault import files
from hwfault.errors import FileError
from tests.slowly import slow
from tests.train.test_resume import CONFIG, KilledError, equal, kept, resumed, run, whole

__all__ = ["whole"]  # the fixture


OTHERS = ("checkpoint.safetensors", "best.safetensors", "history.csv")


@pytest.mark.parametrize("name", ["last.ckpt", *map(slow, OTHERS)])
def test_no_space_for_one_of_the_files(tmp_path, whole, monkeypatch, name):
    with pytest.raises(KilledError):
        run(tmp_path, 24)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    synchronise = os.fsync

    def full(descriptor):
        if os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).startswith(f".{name}."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synchronise(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(FileError) as error:
            resumed(tmp_path)
    assert "\n" not in str(error.value)
    assert f"{name}: cannot be written (No space left on device)" in str(error.value)
    assert (tmp_path / name).read_bytes() == before[name]
    assert [left for left in os.listdir(tmp_path) if left.startswith(".")] == []
    resumed(tmp_path)
    assert equal(kept(tmp_path), whole)


def limited(size):
    """Runs before a command: files that it writes end at so many bytes, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_disk_that_takes_no_more(tmp_path, whole, devices):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CONFIG | {"devices": devices, "accelerator": "cpu"}))
    command = [sys.executable, "-m", "hwfault", "train", "--config", tmp_path / "run.yaml", "--out", tmp_path / "run"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    options = {"capture_output": True, "text": True, "env": environment, "timeout": 300}
    done = subprocess.run(command, preexec_fn=limited(20_000), check=False, **options)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1, done.stderr
    message = " ".join(done.stderr.split("Error: ")[1].split())
    assert "last.ckpt: cannot be written (File too large)" in message
    assert "go on from it with --resume" in message
    assert "Traceback" not in done.stderr
    if devices == 1:
        config = yaml.safe_load((tmp_path / "run" / "config.json").read_text())
        (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"devices": None, "accelerator": "auto"}))
        resumed(tmp_path / "run")
        assert equal(kept(tmp_path / "run"), whole)
