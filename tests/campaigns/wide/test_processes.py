"""Campaigns as processes: drivers and workers are killed at random moments, Ctrl-C, two drivers, a full disk."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.driver import Driver
from hwfault.campaigns.local_workers import LocalWorkers
from hwfault.campaigns.measurement import Trust
from hwfault.campaigns.workers import Here
from hwfault.errors import HwfaultError
from tests.campaigns.wide.small import children, gone_within, kill, measured, rows_in, start, workers_of, write_study
from tests.slowly import slow

STUDY = {
    "samples": 600,
    "questions": {"curve": {"sweep": {"ber": [0.02, 0.05, 0.08]}}},
    "stop": {"max_trials": 120, "relative": 0.001},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The path of a study of about two seconds of work."""
    return write_study(tmp_path_factory.mktemp("study"), **STUDY)


@pytest.fixture(scope="module")
def expected(study, tmp_path_factory):
    """The rows of an undisturbed run on one worker."""
    folder = tmp_path_factory.mktemp("expected")
    measurement = measured(study)[1]
    with Database(folder / FILE) as database:
        Driver(measurement, database, Here(measurement)).run()
    return rows_in(folder)


@pytest.mark.slow  # in one process: tests/campaigns/wide/test_driver.py
@pytest.mark.parametrize("seed", range(10))
def test_workers_killed_at_random_change_nothing(study, expected, tmp_path, seed):
    given, measurement = measured(study)
    draw = random.Random(seed)
    workers = LocalWorkers(given, Trust(), 2)
    left = 1 if seed == 0 else 4
    killed = 0

    def watch(_present):
        nonlocal killed
        if killed < left and draw.random() < 0.3:
            killed += 1
            kill(draw.choice(workers._processes).process.pid)

    try:
        with Database(tmp_path / FILE) as database:
            Driver(measurement, database, workers, watch).run()
    finally:
        workers.close()
    assert killed
    assert rows_in(tmp_path) == expected
    assert workers_of(os.getpid()) == []


@pytest.mark.parametrize("seed", [slow(seed) for seed in range(20)])
def test_drivers_killed_at_random_go_on(study, expected, tmp_path, seed):
    draw = random.Random(100 + seed)
    if seed == 0:
        driver = start("run", study, "--out", tmp_path, "--workers", 2)
        wait_for_trials(tmp_path, 1, driver)
        workers = workers_of(driver.pid)
    else:
        driver = start("run", study, "--out", tmp_path, "--workers", draw.choice([1, 2, 3]))
        time.sleep(draw.uniform(0.5, 8.0))
        workers = workers_of(driver.pid)
    kill(driver.pid)
    driver.communicate()
    assert gone_within(workers, 60) == []
    if not (tmp_path / FILE).exists():  # it had not come so far
        return
    measurement = measured(study)[1]
    with Database(tmp_path / FILE) as database:
        Driver(measurement, database, Here(measurement)).run()
    assert rows_in(tmp_path) == expected


def wait_for_trials(folder, count, process):
    """Waits until a store has so many trials."""
    while process.poll() is None:
        if (folder / FILE).exists():
            try:
                if sum(len(rows) for rows in rows_in(folder).values()) >= count:
                    return
            except HwfaultError:  # it is just being made
                pass
        time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_ctrl_c_ends_all_and_says_how_to_go_on_and_a_second_driver_is_refused(tmp_path):
    long = {**STUDY, "stop": {"max_trials": 100_000, "relative": 0.0001}}
    study = write_study(tmp_path, **long)
    out = tmp_path / "out"
    driver = start("run", study, "--out", out, "--workers", 2)
    wait_for_trials(out, 1, driver)
    second = start("run", study, "--out", out)
    told = second.communicate()
    assert second.returncode == 1
    assert told[0] == ""
    assert "another process writes in this folder; wait for it to end" in " ".join(told[1].split())
    assert told[1].count("Error") == 1
    every = [driver.pid, *children(driver.pid)]
    # as a terminal does: to the whole group
    os.killpg(driver.pid, signal.SIGINT)
    told = driver.communicate(timeout=60)
    assert driver.returncode == 128 + signal.SIGINT
    assert f"`hwfault campaign resume {out}` goes on" in " ".join(told[1].split())
    assert "Traceback" not in told[1]
    assert gone_within(every, 10) == []


@pytest.mark.parametrize("ways", [slow((2, 3)), slow((3, 1))])
def test_workers_of_any_number_give_the_same(study, expected, tmp_path, ways):
    for place, count in enumerate(ways):
        done = start("run", study, "--out", tmp_path / str(place), "--workers", count)
        told = done.communicate()
        assert done.returncode == 0, told
        assert rows_in(tmp_path / str(place)) == expected


def test_workers_that_cannot_load_the_study_say_why(study, tmp_path):
    given = measured(study)[0].model_copy(update={"graph": str(tmp_path / "none.onnx")})
    workers = LocalWorkers(given, Trust(), 1)
    try:
        with pytest.raises(HwfaultError, match=r"none.onnx"):
            workers.collect()
    finally:
        workers.close()


def test_workers_that_die_before_they_are_ready_are_replaced_a_few_times(study):
    workers = LocalWorkers(measured(study)[0], Trust(), 1)
    try:
        for _ in range(4):
            kill(workers._processes[0].process.pid)
            assert workers.collect() == []
        kill(workers._processes[0].process.pid)
        with pytest.raises(HwfaultError, match=r"ended by SIGKILL.*before it had the study loaded; try fewer workers"):
            workers.collect()
    finally:
        workers.close()


@pytest.mark.slow
def test_a_full_disk_is_said_in_a_sentence_and_resumed_elsewhere(study, expected, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80k", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = start("run", study, "--out", small)
        told = done.communicate()
        assert done.returncode == 1
        assert "Traceback" not in told[1]
        assert "cannot be written" in " ".join(told[1].split())
        shutil.copytree(small, tmp_path / "more")
    finally:
        subprocess.run(["umount", small], check=True)
    done = start("run", study, "--out", tmp_path / "more")
    told = done.communicate()
    assert done.returncode == 0, told
    assert rows_in(tmp_path / "more") == expected
