"""A small study of a graph, whose workers start fast as they need no torch, and what a store holds in the end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import yaml

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.study.records import read_study
from tests.helpers.graph.networks import batch
from tests.helpers.graph.running import clean

QUESTIONS = {
    "curve": {"sweep": {"ber": [0.001, 0.02]}},
    "exact": {"flips": 3},
    "critical": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never"},
}


def write_study(folder, *, samples=12, questions=QUESTIONS, **given):
    """The path of a study whose graph and data lie beside it; `given` takes the place of its keys."""
    onnx.save(clean("biased"), folder / "graph.onnx")
    rng = np.random.default_rng(1)
    x = batch("biased", 8).numpy()[rng.integers(0, 8, samples)]
    np.savez(folder / "data.npz", x=x, y=rng.integers(0, 5, samples))
    content = {
        "graph": str(folder / "graph.onnx"),
        "data": str(folder / "data.npz"),
        "questions": questions,
        "stop": {"max_trials": 100, "relative": 0.2},
    } | given
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def measured(path):
    """A study's record, and it loaded."""
    study = read_study(path)
    return study, Measurement(study, Trust())


def rows_in(folder, *, counted_only=False):
    """Every trial of a store by task: (key, answers, faults, failed); with `counted_only` those that a look counted."""
    found = {}
    with Database(Path(folder) / FILE, readonly=True) as database:
        for task in database.tasks():
            rows = [(row.key, _bytes(row.answers), row.faults, row.failed) for row in database.rows(task)]
            assert len({key for key, *_ in rows}) == len(rows)
            if counted_only:
                until = database.looks(task)[-1][0]
                rows = rows[:until]
            found[task.digest] = rows
    return found


def _bytes(answers):
    return None if answers is None else answers.tobytes()


def start(*arguments):
    """`hwfault campaign ARGUMENTS` as a process of its own, in a group of its own."""
    # whoever runs the tests may ignore Ctrl-C, as a shell's background does, and so would the command
    command = ["env", "--default-signal=INT", sys.executable, "-m", "hwfault", "campaign", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes)


def children(pid):
    """The numbers of the processes that a process has started and that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def workers_of(pid):
    """Its children but for multiprocessing's own that watches over shared memory."""
    found = []
    for child in children(pid):
        try:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
        except OSError:
            continue
    return found


def kill(pid):
    """kill -9, of a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def gone_within(pids, seconds):
    """Those that still live after so long; they end as soon as they see that nobody is at the other end."""
    end = time.monotonic() + seconds
    living = list(pids)
    while living and time.monotonic() < end:
        living = [pid for pid in living if _lives(pid)]
        time.sleep(0.05)
    return living


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
