"""Workers on a Ray cluster: actors that load the study once; nodes may go away, and others join, while they work."""

import contextlib
import logging
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.study.records import FaultFile, Study
from hwfault.campaigns.weighing import Weights
from hwfault.campaigns.workers import ONE_THREAD, Done, Job, load_with_one_thread, run_job
from hwfault.errors import HwfaultError
from hwfault.own_code import OwnModules

_LOOK_SECONDS = 5.0
"""After so long it is looked again how many workers the cluster has room for."""
_MOST_STILLBORN = 20


class _Served:
    """What an actor does: it loads the study, says where it is and what it found, then runs one job after the other."""

    def load(self, given: tuple[OwnModules, Study, Trust, Weights]) -> tuple[str, list[str]] | HwfaultError:
        """The actor's node, and under which digest it would keep each task; or why the study cannot be loaded."""
        import ray

        warnings.simplefilter("ignore")
        logging.disable()
        try:
            self._measurement = load_with_one_thread(*given[1:])
            digests = [self._measurement.stored_digest(task) for task in self._measurement.tasks]
        except HwfaultError as error:
            return error
        return ray.get_runtime_context().get_node_id(), digests

    def run(self, job: Job) -> Done | HwfaultError:
        """What came of a job; an error of the user's criterion ends the campaign."""
        try:
            return run_job(self._measurement, job)
        except HwfaultError as error:
            return error


@dataclass
class _Actor:
    """An actor as the driver sees it: `waited_for` is what it is at, on a `node` once it has the study loaded."""

    handle: Any
    waited_for: Any
    node: str | None = None
    job: Job | None = None


class RayWorkers:
    """Actors of a Ray cluster, as many as it has room for; `ray: {cpus: 1, gpus: 0.25}` of the study says for what.

    `address` is "ray", the cluster that runs on this machine (or that RAY_ADDRESS names), one of this machine's cores
    where there is none; or "ray://HOST:PORT". Each node needs hwfault, of the versions that are here, and the study's
    files under the same paths: a worker whose tasks are not those of `measurement` is refused. Jobs of a node that goes
    away are handed out again, and nodes that join are used. Raises HwfaultError without Ray or a cluster, and for a
    study that cannot be loaded there.
    """

    def __init__(self, study: Study, trust: Trust, address: str, measurement: Measurement) -> None:
        self._ray = _connect(address)
        self._digests = [measurement.stored_digest(task) for task in measurement.tasks]
        self._given = self._ray.put((OwnModules(), _with_whole_paths(study), trust, measurement.weighing.weights))
        self._cpus, self._gpus = study.ray.cpus, study.ray.gpus
        self._actors: list[_Actor] = []
        self._looked = 0.0
        self._stillborn = 0
        try:
            self._grow()
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        """How many actors there are, those that still load the study among them."""
        return len(self._actors)

    @property
    def free(self) -> int:
        """How many actors have the study loaded and nothing to do."""
        return sum(one.waited_for is None for one in self._actors)

    def submit(self, job: Job) -> None:
        """Hands a job to an actor that has none."""
        one = next(one for one in self._actors if one.waited_for is None)
        one.job = job
        one.waited_for = one.handle.run.remote(job)

    def collect(self, seconds: float | None = None) -> list[Done]:
        """What actors have done; jobs whose node went away are lost, those of other actors that died have failed."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            self._grow()
            left = _LOOK_SECONDS if end is None else max(0.0, min(_LOOK_SECONDS, end - time.monotonic()))
            waited_for = {one.waited_for: one for one in self._actors if one.waited_for is not None}
            ready, _ = self._ray.wait(list(waited_for), num_returns=1, timeout=left) if waited_for else ([], [])
            if ready:
                # all that are ready by now
                ready, _ = self._ray.wait(list(waited_for), num_returns=len(waited_for), timeout=0)
                return [done for reference in ready for done in self._take(waited_for[reference])]
            if not waited_for:
                time.sleep(left)
            if end is not None and time.monotonic() >= end:
                return []

    def _take(self, one: _Actor) -> list[Done]:
        """What an actor has answered; raises what it says that ends the campaign."""
        reference, one.waited_for = one.waited_for, None
        job, one.job = one.job, None
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._bury(one, job, error)
        if isinstance(answer, HwfaultError):
            raise answer
        if isinstance(answer, Done):
            return [answer]
        one.node, digests = answer
        self._stillborn = 0
        if digests != self._digests:
            raise HwfaultError(
                f"the node {one.node[:12]} of the cluster would run other trials than this machine; expected the same "
                "versions of hwfault, torch and onnxruntime there, and the same files"
            )
        return []

    def _bury(self, dead: _Actor, job: Job | None, error: Exception) -> list[Done]:
        """Leaves an actor that died; what became of its job."""
        self._actors.remove(dead)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(dead.handle)
        self._looked = 0.0  # another takes its place
        told = (str(error).splitlines() or [""])[0][:300]
        if dead.node is None:
            self._stillborn += 1
            if self._stillborn >= _MOST_STILLBORN:
                raise HwfaultError(f"workers of the cluster end before they have the study loaded: {told}")
        if job is None:
            return []
        lost = dead.node not in self._living_nodes()
        return [Done(job, [], f"its worker ended: {told}", died=not lost, lost=lost)]

    def _living_nodes(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _grow(self) -> None:
        """Starts as many actors as the cluster has room for by now; looks only now and then."""
        if time.monotonic() - self._looked < _LOOK_SECONDS and self._actors:
            return
        self._looked = time.monotonic()
        for _ in range(self._room()):
            # one at a time on one CPU; what it loads is not to be started again by Ray, but here, elsewhere
            kind = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0)(_Served)
            handle = kind.options(runtime_env={"env_vars": dict.fromkeys(ONE_THREAD, "1")}).remote()
            self._actors.append(_Actor(handle, handle.load.remote(self._given)))

    def _room(self) -> int:
        """How many actors more fit into the nodes there are, whoever else uses them."""
        fit = 0
        for node in self._ray.nodes():
            resources = node["Resources"] if node["Alive"] else {}
            by_cpu = resources.get("CPU", 0.0) / self._cpus
            by_gpu = resources.get("GPU", 0.0) / self._gpus if self._gpus else by_cpu
            fit += int(min(by_cpu, by_gpu) + 1e-9)
        if not fit and not self._actors:
            raise HwfaultError(
                f"the cluster has no room for a worker of {self._cpus:g} CPUs and {self._gpus:g} GPUs; start more "
                "nodes, or ask for less (ray: {cpus: ..., gpus: ...} in the study)"
            )
        return max(0, fit - len(self._actors))

    def close(self) -> None:
        """Ends all actors, and leaves the cluster."""
        for one in self._actors:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(one.handle)
        self._actors = []
        self._ray.shutdown()


def _connect(address: str) -> Any:
    """The module ray, connected; raises HwfaultError where it is not installed, and where nothing answers."""
    try:
        import ray
    except ImportError:
        raise HwfaultError(
            f"workers: {address!r} needs Ray, which is not installed here; run `pip install 'hwfault[ray]'`"
        ) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody of it
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != "ray":
        given["address"] = address
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not ray.is_initialized():
                ray.init(**given)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        told = (str(error).splitlines() or [""])[0][:300]
        raise HwfaultError(f"workers: no Ray cluster answers at {address!r} ({told}); is it running there?") from None
    return ray


def _with_whole_paths(study: Study) -> Study:
    """The study with paths that hold whatever folder a worker runs in."""
    whole = {}
    for key in ("network", "graph", "data"):
        value = getattr(study, key)
        if value is not None:
            whole[key] = str(Path(value).absolute())
    questions = {}
    for name, question in study.questions.items():
        if isinstance(question.flips, FaultFile):
            given = FaultFile(file=str(Path(question.flips.file).absolute()))
            question = question.model_copy(update={"flips": given})
        questions[name] = question
    return study.model_copy(update={**whole, "questions": questions})
