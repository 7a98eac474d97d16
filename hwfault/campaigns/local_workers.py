"""Workers that are processes on this machine: one that dies loses its job and no other, and is replaced."""

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from hwfault.campaigns.measurement import Trust
from hwfault.campaigns.study.records import Study
from hwfault.campaigns.weighing import Weights
from hwfault.campaigns.workers import Done, Job, load_with_one_thread, one_thread_for_children, run_job
from hwfault.errors import HwfaultError
from hwfault.own_code import OwnModules

_MOST_STILLBORN = 5
"""After so many processes one after the other that died before they had the study loaded, there is no use in more."""


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

    `count` of them. Raises HwfaultError where they cannot load the study, or die of it again and again.
    """

    study: Study
    trust: Trust
    count: int
    weights: Weights = field(default_factory=dict)
    _processes: list[_Process] = field(default_factory=list)
    _stillborn: int = 0

    def __post_init__(self) -> None:
        try:
            for _ in range(self.count):
                self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        # OwnModules comes first: what is unpickled behind it may be the user's own
        given = (OwnModules(), self.study, self.trust, self.weights, theirs)
        process = context.Process(target=_serve, args=given, daemon=True)
        with one_thread_for_children(), _interrupts_blocked():
            process.start()
        theirs.close()
        self._processes.append(_Process(process, ours))

    @property
    def free(self) -> int:
        """How many processes have nothing to do."""
        return sum(one.job is None for one in self._processes)

    def submit(self, job: Job) -> None:
        """Hands a job to a process that has none, if there is one to one that has the study loaded."""
        idle = [one for one in self._processes if one.job is None]
        one = next((one for one in idle if one.ready), idle[0])
        one.job = job
        with contextlib.suppress(OSError):  # it died; `collect` sees it
            one.pipe.send(job)

    def collect(self, seconds: float | None = None) -> list[Done]:
        """What processes have sent; the job of one that died has failed."""
        found: list[Done] = []
        ready = set(wait([one.pipe for one in self._processes], seconds))
        for one in [one for one in self._processes if one.pipe in ready]:
            try:
                message = one.pipe.recv()
            except (EOFError, OSError):  # OSError: in the middle of a message
                found += self._bury(one)
                continue
            if isinstance(message, HwfaultError):
                raise message
            if isinstance(message, Done):
                one.job = None
                found.append(message)
            else:
                one.ready = True
                self._stillborn = 0
        return found

    def _bury(self, dead: _Process) -> list[Done]:
        """Replaces a process that died, and says what became of its job."""
        dead.process.join()
        dead.pipe.close()
        self._processes.remove(dead)
        why = _why_dead(dead.process.exitcode)
        if not dead.ready:
            self._stillborn += 1
            if self._stillborn >= _MOST_STILLBORN:
                raise HwfaultError(f"a worker {why} before it had the study loaded; try fewer workers, or --workers 1")
        self._start()
        if dead.job is None:
            return []
        return [Done(dead.job, [], f"its worker {why}", died=dead.ready, lost=not dead.ready)]

    def close(self) -> None:
        """Ends all processes."""
        for one in self._processes:
            one.process.kill()
        for one in self._processes:
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
def _interrupts_blocked() -> Iterator[None]:
    """Inside, processes that are started never see Ctrl-C, which is the driver's; it ends its workers itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(_modules: OwnModules, study: Study, trust: Trust, weights: Weights, pipe: Connection) -> None:
    """What a process does: loads the study, says so, then runs jobs until nobody is at the other end."""
    # the driver has loaded the same study, and has said what is to be said of it
    warnings.simplefilter("ignore")
    logging.disable()
    with contextlib.suppress(EOFError, OSError):
        try:
            measurement = load_with_one_thread(study, trust, weights)
            pipe.send("ready")
            while True:
                pipe.send(run_job(measurement, pipe.recv()))
        except HwfaultError as error:
            pipe.send(error)
