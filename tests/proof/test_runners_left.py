"""What a runner leaves: nothing, neither processes nor a pipe in place of an answer."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from hwfault.errors import HwfaultError
from hwfault.proof.runners import by_command

CHILD = """
import os, sys, time
if sys.argv[2] == "session":
    os.setsid()
open(sys.argv[1], "w").close()
time.sleep(60)
"""
RUNNER = """
import os, subprocess, sys, time
child, began, how, ends, _, answer = sys.argv[1:]
subprocess.Popen([sys.executable, child, began, how])
while not os.path.exists(began):
    time.sleep(0.01)
if ends == "answers":
    import numpy
    numpy.savez(answer, output=numpy.zeros((1, 1)))
elif ends == "pipe":
    os.mkfifo(answer)
elif ends == "device":
    os.symlink("/dev/zero", answer)
else:
    sys.exit(3)
"""


def running(words):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if words in line]


@pytest.mark.every(2)
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("how", ["group", "session"])
@pytest.mark.parametrize("ends", ["answers", "pipe", "device", "fails"])
def test_children_end_with_their_runner(tmp_path, how, ends):
    """Also those in a session of their own; and the time-out holds for what is no file."""
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "runner.py").write_text(RUNNER)
    words = [sys.executable, tmp_path / "runner.py", tmp_path / "child.py", tmp_path / "began", how, ends]
    runner = by_command(" ".join(map(str, words)), 60.0)
    batch = {"input": np.zeros((1, 1), np.float32)}
    if ends == "answers":
        assert runner(batch)["output"].shape == (1, 1)
    else:
        with pytest.raises(HwfaultError, match="exit code 3" if ends == "fails" else "wrote no output.npz"):
            runner(batch)
    assert (tmp_path / "began").exists()
    time.sleep(0.05)
    assert running(str(tmp_path / "child.py")) == []
    assert not any(entry.name == "output.npz" for entry in os.scandir(tmp_path))
