"""Workers: where trials are run, one of them at a time in each; what is handed to them, and what comes back."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from hwfault.campaigns.database import Row
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.outcomes import CriterionError
from hwfault.campaigns.study.records import Study
from hwfault.campaigns.weighing import Weights
from hwfault.errors import HwfaultError

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""The variables by which a process that is started computes with so many threads."""


class Job(NamedTuple):
    """Trials of one task (its place in the study's list) to be run together.

    `tries` workers have died of it before; the engine's batch is to be halved `halvings` times, where no answer depends
    on it.
    """

    task: int
    keys: tuple[int, ...]
    tries: int = 0
    halvings: int = 0


class Done(NamedTuple):
    """What came of a job: its rows, after so many `seconds`; or why it `failed`.

    `died` says that its worker died of it, or had no memory for it; `lost` that it went away with its worker for
    another reason, and is to be handed out again as it was.
    """

    job: Job
    rows: list[Row]
    failed: str | None = None
    died: bool = False
    lost: bool = False
    seconds: float = 0.0


class Workers(Protocol):
    """Where jobs are run: `submit` never waits, `collect` waits for at least one of them."""

    @property
    def count(self) -> int:
        """How many there are just now."""
        ...

    @property
    def free(self) -> int:
        """How many jobs can be taken at once."""
        ...

    def submit(self, job: Job) -> None:
        """Has a job run."""
        ...

    def collect(self, seconds: float | None = None) -> list[Done]:
        """What has been done since; waits for something (also for a worker to be free), so many seconds at the most."""
        ...

    def close(self) -> None:
        """Ends all workers; what they were at is lost."""
        ...


def run_job(measurement: Measurement, job: Job) -> Done:
    """Runs a job; what its trials raise becomes its failure, but for errors of the user's criterion."""
    begin = time.monotonic()
    try:
        rows = list(measurement.run(measurement.tasks[job.task], job.keys, job.halvings))
    except CriterionError:
        raise
    except HwfaultError as error:
        return Done(job, [], str(error))
    except Exception as error:  # of torch, onnxruntime or the user's network: the same on every worker
        return Done(job, [], _told(error), died=_is_memory(error))
    return Done(job, rows, seconds=time.monotonic() - begin)


def _told(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there was no memory for it"
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _is_memory(error: Exception) -> bool:
    """Whether there was no memory, as Python, torch and onnxruntime say it."""
    text = str(error)
    return isinstance(error, MemoryError) or "alloc" in text or "out of memory" in text


class Here:
    """One worker: this very process, with one thread, as all workers have."""

    count = 1

    def __init__(self, measurement: Measurement) -> None:
        self._measurement = measurement
        self._jobs: list[Job] = []

    @property
    def free(self) -> int:
        """One job at a time."""
        return 1 - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Notes a job, which `collect` runs."""
        self._jobs.append(job)

    def collect(self, seconds: float | None = None) -> list[Done]:
        """Runs what was submitted."""
        jobs, self._jobs = self._jobs, []
        with one_thread():
            return [run_job(self._measurement, job) for job in jobs]

    def close(self) -> None:
        """Nothing is to be ended."""


class AsItIs(Here):
    """This very process with all threads that it has; what a trial raises, ends all."""

    def collect(self, seconds: float | None = None) -> list[Done]:
        """Runs what was submitted."""
        jobs, self._jobs = self._jobs, []
        found = []
        for job in jobs:
            begin = time.monotonic()
            rows = list(self._measurement.run(self._measurement.tasks[job.task], job.keys))
            found.append(Done(job, rows, seconds=time.monotonic() - begin))
        return found


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch (if anything has imported it) computes with one thread, as sums of floats depend on how many."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread_for_children() -> Iterator[None]:
    """Inside, processes that are started compute with one thread each."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def load_with_one_thread(study: Study, trust: Trust, weights: Weights) -> Measurement:
    """A study loaded in a process that does nothing else; raises what loading it raises."""
    if study.network is not None:
        import torch

        torch.set_num_threads(1)
    return Measurement(study, trust, weights)
