"""A campaign: one network, one set of samples, many trials under faults."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hwfault.campaigns.plans import Plans
from hwfault.campaigns.points import Point
from hwfault.campaigns.samples import batches, digest, order_of
from hwfault.campaigns.trials import Trial, Trials
from hwfault.errors import HwfaultError
from hwfault.injection.attach import Injection, inject_at
from hwfault.injection.ready import ProtectionCounts
from hwfault.injection.statistics import Statistics
from hwfault.laws.files import Files
from hwfault.network.mode import evaluation
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import SiteList
from hwfault.stream.check import check_seed
from hwfault.train.data import Split
from hwfault.train.fusing import fusing_to_measure


class Keeper(Protocol):
    """Where finished trials are kept, so that they are not run again."""

    def get(self, point: Point, seed: int) -> Trial | None: ...
    def put(self, point: Point, trial: Trial) -> None: ...


class Campaign:
    """A network and the samples that it classifies in every trial: those of a data set's split.

    Sample i of the fault stream is the split's i-th, whatever the batch size, and also where `indices` name some of
    them, in any order. Faults that belong to a device are those of `device`, or with None of another one for each seed:
    its number. The profiles and maps that faults name are read once, or taken as `files` has read them. `workers` read
    samples that do not lie in memory. With `statistics` it is kept what the faults do at each site. The network runs in
    evaluation mode, on its own device, and is left as it was. Raises HwfaultError where there is no sample.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        *,
        indices: Sequence[int] | Tensor | None = None,
        device: int | None = None,
        batch_size: int = 512,
        workers: int = 0,
        statistics: bool = False,
        files: Files | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.statistics = statistics
        self._split = split
        self._workers = workers
        self._files = Files() if files is None else files
        self._on = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._order = order_of(split, indices)
        if not self.samples or batch_size < 1:
            raise HwfaultError(f"given {self.samples} samples, batches of {batch_size}; expected at least one of each")

    @property
    def samples(self) -> int:
        """How many samples each trial classifies."""
        return len(self._order)

    @cached_property
    def samples_digest(self) -> str:
        """SHA-256 of which samples there are, in their order."""
        return digest(self._split, self._order)

    @cached_property
    def sites(self) -> SiteList:
        """The network's sites, with the shapes and accumulators that the first sample shows."""
        with _evaluating(self.model):
            return sites(self.model, self._split.inputs(self._order[:1]).to(self._on))

    def _known_sites(self) -> SiteList | None:
        """The sites; None where the network does not run on the samples, so that another error comes."""
        try:
            return self.sites
        except HwfaultError:
            raise
        except Exception:  # whatever a network raises for inputs that it does not take
            return None

    @cached_property
    def golden(self) -> int:
        """How many samples the network classifies correctly without faults; run once."""
        with _evaluating(self.model):
            return self._correct(None)

    @cached_property
    def plans(self) -> Plans:
        """What makes plans of points, for this network's sites."""
        return Plans(lambda: self.sites, self.device, self._files)

    def plan(self, point: Point, seed: int = 0) -> FaultPlan:
        """The plan of a point under a seed; raises what resolving its faults raises."""
        return point.part(self.whole_plan(point, seed))

    def whole_plan(self, point: Point, seed: int = 0) -> FaultPlan:
        """The plan of all faults of a point, also where it wants a part of them."""
        return self.plans.whole(point, seed)

    def run(
        self,
        point: Point,
        seeds: Sequence[int],
        *,
        keeper: Keeper | None = None,
        progress: Callable[[], object] = lambda: None,
    ) -> Trials:
        """One trial for each seed under a point's faults; those that the keeper has are not run again.

        `progress` is called after each trial. Raises HwfaultError without a seed, PlanError for a plan that does not
        fit the network.
        """
        if not seeds:
            raise HwfaultError("given no seeds, expected at least one of them: a trial each")
        once = list(dict.fromkeys(seeds))
        found: dict[int, Trial] = {}
        if keeper is not None:
            for seed in once:
                trial = keeper.get(point, seed)
                if trial is not None:
                    found[seed] = trial

        def done(trial: Trial) -> None:
            found[trial.seed] = trial
            if keeper is not None:
                keeper.put(point, trial)
            progress()

        for _ in found:
            progress()
        self._run(point, [seed for seed in once if seed not in found], done)
        notes: Sequence[str] = ()
        if not point.silent:
            notes = self.plan(point, seeds[0]).notes or ()
        return Trials.of(
            [found[seed] for seed in seeds],
            samples=self.samples,
            golden=self.golden,
            ber=point.ber,
            labels=point.labels,
            notes=notes,
            same_faults=self.plans.same(point, seeds[0]),
        )

    def _run(self, point: Point, seeds: Sequence[int], done: Callable[[Trial], None]) -> None:
        if point.silent:
            for seed in seeds:
                done(Trial(seed=check_seed(seed), correct=self.golden))
            return
        if not seeds:
            return
        plan = self.plan(point, seeds[0])
        by_seed = self.plans.by_seed(point)
        statistics = Statistics(plan) if self.statistics else None
        # the network is prepared once: from trial to trial only the seed changes, and for specimens the plan
        with (
            _evaluating(self.model),
            inject_at(self.model, plan, self._known_sites(), seed=seeds[0], observe=statistics) as injection,
        ):
            for seed in seeds:
                if by_seed and seed != seeds[0]:
                    injection.plan = self.plan(point, seed)
                injection.seed = seed
                done(self._trial(injection, statistics))

    def _trial(self, injection: Injection, statistics: Statistics | None) -> Trial:
        correct = self._correct(injection)
        seen = _read_protection(injection)
        if statistics is not None:
            seen["statistics"] = statistics.read()
            statistics.reset()
        return Trial(seed=injection.seed, correct=correct, **seen)

    def _correct(self, injection: Injection | None) -> int:
        """How many samples the network classifies correctly; read from the device once."""
        correct = torch.zeros((), dtype=torch.int64, device=self._on)
        for index, x, y in batches(self._split, torch.split(self._order, self.batch_size), self._on, self._workers):
            if injection is not None:
                _number(injection, index)
            out = self.model(x)
            logits = getattr(out, "value", out)  # a QuantTensor's values
            correct += (logits.argmax(1) == y).sum()
        return int(correct)


def _number(injection: Injection, index: Tensor) -> None:
    """Tells the stream which samples the next batch has."""
    first = int(index[0])
    if torch.equal(index, torch.arange(first, first + len(index))):
        # counted on from the first: this works also where layers fold axes into the batch
        injection.samples = None
        injection.first_sample = first
    else:
        injection.samples = index


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    with evaluation(model), torch.no_grad(), fusing_to_measure(model):
        yield


def _read_protection(injection: Injection) -> dict[str, Any]:
    """What protected memories did in a trial, and whether it counts as DUE; nothing where nothing is protected."""
    found = injection.protection_counts()
    injection.reset_protection_counts()
    if not found:
        return {}
    totals = [sum(each) for each in zip(*found.values(), strict=True)]
    due = False
    for name, counts in found.items():
        processes = injection.plan.at(name).processes
        if counts.detected and any(process.counts_as_due for process in processes):
            due = True
    return {"protection": ProtectionCounts(*totals), "due": due}
