"""Workers: processes that each have a study loaded, and are handed jobs; one that dies loses its job and no other."""

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

from hwfault.campaigns.database import Row
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.outcomes import CriterionError
from hwfault.campaigns.study.records import Study
from hwfault.errors import HwfaultError
from hwfault.own_code import OwnModules

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Job(NamedTuple):
    """Trials of one task (its place in the study's list) to be run together; `tries` have failed before."""

    task: int
    keys: tuple[int, ...]
    tries: int = 0


class Done(NamedTuple):
    """What came of a job: its rows; or why it `failed`, and whether its worker died of it."""

    job: Job
    rows: list[Row]
    failed: str | None = None
    died: bool = False


class Workers(Protocol):
    """Where jobs are run: `submit` never waits, `collect` waits for at least one of them."""

    @property
    def free(self) -> int:
        """How many jobs can be taken at once."""
        ...

    def submit(self, job: Job) -> None:
        """Has a job run."""
        ...

    def collect(self, seconds: float | None = None) -> list[Done]:
        """What has been done since; waits for something, so many seconds at the most."""
        ...

    def close(self) -> None:
        """Ends all workers; what they were at is lost."""
        ...


def run_job(measurement: Measurement, job: Job) -> Done:
    """Runs a job; errors of the user's criterion and of hwfault become the job's."""
    try:
        return Done(job, list(measurement.run(measurement.tasks[job.task], job.keys)))
    except CriterionError:
        raise
    except HwfaultError as error:
        return Done(job, [], str(error))
    except MemoryError:
        return Done(job, [], "there was no memory for it")


class Here:
    """One worker: this very process."""

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
        return [run_job(self._measurement, job) for job in jobs]

    def close(self) -> None:
        """Nothing is to be ended."""


@dataclass
class _Process:
    """A process and its end of the pipe; `job` is what it is at."""

    process: Any
    pipe: Connection
    ready: bool = False
    job: Job | None = None


@dataclass
class LocalWorkers:
    """Processes on this machine, spawned, one thread each; one that dies is replaced.

    `count` of them. Raises HwfaultError where one dies before it has the study loaded, or cannot load it.
    """

    study: Study
    trust: Trust
    count: int
    _processes: list[_Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        for _ in range(self.count):
            self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        # OwnModules comes first: what is unpickled behind it may be the user's own
        given = (OwnModules(), self.study, self.trust, theirs)
        process = context.Process(target=_serve, args=given, daemon=True)
        with _one_thread():
            process.start()
        theirs.close()
        self._processes.append(_Process(process, ours))

    @property
    def free(self) -> int:
        """How many processes have nothing to do."""
        return sum(one.job is None for one in self._processes)

    def submit(self, job: Job) -> None:
        """Hands a job to a process that has none."""
        one = next(one for one in self._processes if one.job is None)
        one.job = job
        with contextlib.suppress(BrokenPipeError, ConnectionError):  # it died; `collect` sees it
            one.pipe.send(job)

    def collect(self, seconds: float | None = None) -> list[Done]:
        """What processes have sent; the job of one that died has failed."""
        found: list[Done] = []
        ready = set(wait([one.pipe for one in self._processes], seconds))
        for one in [one for one in self._processes if one.pipe in ready]:
            try:
                message = one.pipe.recv()
            except (EOFError, ConnectionError):
                found += self._bury(one)
                continue
            if isinstance(message, HwfaultError):
                raise message
            if isinstance(message, Done):
                one.job = None
                found.append(message)
            else:
                one.ready = True
        return found

    def _bury(self, dead: _Process) -> list[Done]:
        """Replaces a process that died, and says what became of its job."""
        dead.process.join()
        self._processes.remove(dead)
        why = _why_dead(dead.process.exitcode)
        if not dead.ready:
            raise HwfaultError(f"a worker {why} before it had the study loaded; try fewer workers, or --workers 1")
        self._start()
        return [] if dead.job is None else [Done(dead.job, [], f"its worker {why}", died=True)]

    def close(self) -> None:
        """Ends all processes."""
        for one in self._processes:
            one.process.kill()
            one.process.join()
            one.pipe.close()
        self._processes = []


def _why_dead(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (as the system does where memory runs out)" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"ended with exit code {code}"


@contextlib.contextmanager
def _one_thread() -> Any:
    """Inside, processes that are started compute with one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _serve(_modules: OwnModules, study: Study, trust: Trust, pipe: Connection) -> None:
    """What a process does: loads the study, says so, then runs jobs until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, which ends its workers
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionError):
        try:
            measurement = Measurement(study, trust)
            pipe.send("ready")
            while True:
                pipe.send(run_job(measurement, pipe.recv()))
        except HwfaultError as error:
            pipe.send(error)


def make_workers(study: Study, trust: Trust, measurement: Measurement, count: int | str) -> Workers:
    """One worker is this process itself; more are processes of their own; "ray" or "ray://..." those of a cluster."""
    if isinstance(count, str):
        raise HwfaultError(f"workers: {count!r} is a cluster, which is not supported yet; give a number of processes")
    return Here(measurement) if count == 1 else LocalWorkers(study, trust, count)


Progress = Callable[[str, Sequence[int]], object]
