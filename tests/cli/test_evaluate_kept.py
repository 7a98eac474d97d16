"""`hwfault evaluate --out`: trials that are kept, asked for again, and gone on with after a stop or on a full disk."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.errors import FileError
from tests.cli.conftest import files, good, hwfault, refused

SEEDS = ["--seeds", "0-2"]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_question_again_runs_nothing_and_more_seeds_add_trials(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = good("evaluate", run, "--rates", "0.01,0.05", *SEEDS, "--out", out)
    before = files(out)
    ran, plain = [], TorchEngine._outputs

    def outputs(self, order, injection):
        if injection is not None:  # the golden run
            ran.append(injection)
        return plain(self, order, injection)

    monkeypatch.setattr(TorchEngine, "_outputs", outputs)
    again = good("evaluate", run, "--rates", "0.01,0.05", *SEEDS, "--out", out, "--batch-size", 100)
    assert (again.stdout, ran) == (first.stdout, [])
    # the store has noted that it was asked again
    assert {name: content for name, content in files(out).items() if name.suffix in (".csv", ".json")} == {
        name: content for name, content in before.items() if name.suffix in (".csv", ".json")
    }
    more = good("evaluate", run, "--rates", "0.01,0.05", "--seeds", "0-3", "--out", out, "--json").json
    assert len(ran) == 2
    assert more == good("evaluate", run, "--rates", "0.01,0.05", "--seeds", "0-3", "--json").json


def test_another_question_in_the_same_folder(run, tmp_path):
    out = tmp_path / "out"
    good("evaluate", run, "--ber", 0.01, "--seeds", 0, "--out", out)
    before = files(out)
    words = ["holds the trials of another question", "probability: 0.01 there, 0.02 now", "choose another folder"]
    refused("evaluate", run, "--ber", 0.02, "--seeds", 0, "--out", out, words=words)
    refused(
        "evaluate", run, "--ber", 0.01, "--samples", 7, "--seeds", 0, "--out", out, words="samples: 360 there, 7 now"
    )
    refused("evaluate", run, "--ber", 0.01, "--statistics", "--seeds", 0, "--out", out, words="statistics: false there")
    assert files(out) == before


HEARS_SIGINT = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs tests in the background may ignore it
runpy.run_module("hwfault", run_name="__main__", alter_sys=True)
"""


def started(*arguments):
    command = [sys.executable, "-c", HEARS_SIGINT, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def kept_in(folder):
    """How many trials are in the store of a folder, also while another process writes there."""
    if not (folder / FILE).exists():
        return 0
    try:
        with Database(folder / FILE, readonly=True) as database:
            return sum(len(database.keys(task)) for task in database.tasks())
    except FileError:  # it is being made just now
        return 0


def test_ctrl_c_tells_what_is_kept_and_the_same_command_goes_on(run, tmp_path, monkeypatch):
    out, plain, ran = tmp_path / "out", TorchEngine._outputs, []
    arguments = ["evaluate", run, "--ber", 0.03, "--seeds", "0-5", "--samples", 40]

    def interrupted(self, order, injection):
        ran.append(injection)
        if len(ran) == 5:
            raise KeyboardInterrupt
        return plain(self, order, injection)

    with monkeypatch.context() as patched:
        patched.setattr(TorchEngine, "_outputs", interrupted)
        done = hwfault(*arguments, "--out", out)
    assert done.code != 0
    kept = kept_in(out)
    assert 0 < kept < 6
    assert f"stopped: {kept} trials are in {out / FILE}, and the same command goes on there" in done.stderr
    assert all(name.startswith(FILE) for name in listing(out))
    assert good(*arguments, "--out", out, "--json").json == good(*arguments, "--json").json


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_to_the_same_results(run, tmp_path, how):
    out = tmp_path / "out"
    arguments = ["evaluate", run, "--ber", 0.03, "--seeds", "0-3999", "--batch-size", 90, "--out", out]
    process = started(*arguments)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if kept_in(out) > 4:
            break
        time.sleep(0.01)
    process.send_signal(how)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0, "it was not done yet"
    assert {name for name in listing(out) if not name.startswith(FILE)} == set()
    done = kept_in(out)
    assert 4 < done < 4000
    if how is signal.SIGINT:
        assert "Traceback" not in said
        assert f"stopped: {done} trials are in {out / FILE}, and the same command goes on there" in " ".join(
            said.split()
        )
    few = [*arguments[:5], f"0-{done - 1}", *arguments[6:]]
    kept = good(*few, "--json").json
    assert kept == good("evaluate", run, "--ber", 0.03, "--seeds", f"0-{done - 1}", "--json").json


def test_a_file_of_trials_that_is_none(run, tmp_path):
    (tmp_path / "trials.jsonl").write_text("mine\n")
    refused("evaluate", run, "--ber", 0.1, "--seeds", 0, "--out", tmp_path, words="trials.jsonl: line 1 is no trial")
    assert listing(tmp_path) == ["trials.jsonl"]
    assert hwfault("evaluate", run, "--ber", 0.1, "--seeds", 0).code == 0


def test_a_disk_that_is_full_while_trials_are_written(run, tmp_path, monkeypatch):
    first = good("evaluate", run, "--ber", 0.1, "--seeds", 0, "--out", tmp_path, "--json").json
    results = (tmp_path / "results.json").read_bytes()
    prepare = Database._prepare

    def full(self, readonly):
        prepare(self, readonly)
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        self._connection.execute(f"PRAGMA max_page_count = {pages}")

    many = ["evaluate", run, "--ber", 0.1, "--seeds", "0-99", "--samples", 360, "--out", tmp_path]
    with monkeypatch.context() as on_a_full_disk:
        on_a_full_disk.setattr(Database, "_prepare", full)
        refused(*many, words=["database or disk is full", "the same command goes on"])
    assert (tmp_path / "results.json").read_bytes() == results
    assert good("evaluate", run, "--ber", 0.1, "--seeds", 0, "--out", tmp_path, "--json").json == first
