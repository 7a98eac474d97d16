"""Trials in PyTorch: the network itself, with faults injected into what its quantizers return."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwfault.campaigns.engines.engine import Numbers, Outputs, Ran, Trial
from hwfault.campaigns.engines.watching import Batch, Eye, Watched
from hwfault.campaigns.samples import batches
from hwfault.errors import HwfaultError
from hwfault.injection.attach import Injection, inject_at
from hwfault.injection.site_statistics import ProtectionCounts
from hwfault.injection.statistics import Statistics
from hwfault.network.mode import evaluation
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.watching import watch_every
from hwfault.program.processes import SiteList
from hwfault.train.data import Split
from hwfault.train.fusing import fusing_to_measure


class TorchEngine:
    """A network and the samples `order` (k,) of a split, in batches of `batch_size`; any fault model.

    Sample i of the fault stream is the split's i-th, whatever their order. `readers` processes read samples that do not
    lie in memory; with `statistics` a trial tells what its faults did at each site. The network runs in evaluation
    mode, on its own device, and is left as it was.
    """

    name = "torch"

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        order: Tensor,
        batch_size: int,
        *,
        readers: int = 0,
        statistics: bool = False,
    ) -> None:
        self.version = str(torch.__version__)
        self._model = model
        self._split = split
        self._order = order
        self.batch_size = batch_size
        self._readers = readers
        self._statistics = statistics
        self._on = next((p.device for p in model.parameters()), torch.device("cpu"))

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self._order)

    @cached_property
    def sites(self) -> SiteList:
        """The network's sites, with the shapes and accumulators that the first sample shows."""
        with evaluating(self._model):
            return sites(self._model, self._split.inputs(self._order[:1]).to(self._on))

    def check_fits(self, plan: FaultPlan) -> None:
        """Raises PlanError for a plan that does not fit the network, also one that does not take the samples."""
        try:
            known: SiteList | None = self.sites
        except HwfaultError:
            raise
        except Exception:  # whatever a network raises for inputs that it does not take: its golden run will
            known = None
        with evaluating(self._model), inject_at(self._model, plan, known, seed=0):
            pass

    def golden(self) -> Outputs:
        """The outputs (n, ...) of all samples without faults; run once."""
        return self._golden

    @cached_property
    def _golden(self) -> Outputs:
        with evaluating(self._model):
            return self._outputs(self._order, None)

    def with_batch(self, batch_size: int) -> "TorchEngine":
        """The same in batches of another size."""
        how: dict[str, Any] = {"readers": self._readers, "statistics": self._statistics}
        return TorchEngine(self._model, self._split, self._order, batch_size, **how)

    def run(self, trials: Sequence[Trial], images: Numbers | None = None) -> Iterator[Ran]:
        """What each trial came to, in their order, on all samples or on `images` alone, by their places among them.

        Raises PlanError for a plan that does not fit the network.
        """
        yield from self._run(trials, [images] * len(trials))

    def run_each(self, trials: Sequence[Trial], images: Sequence[Numbers]) -> Iterator[Ran]:
        """What each trial came to on images of its own; raises what `run` does."""
        yield from self._run(trials, images)

    def _run(self, trials: Sequence[Trial], images: Sequence[Numbers | None]) -> Iterator[Ran]:
        with ExitStack() as stack:
            injection: Injection | None = None
            statistics: Statistics | None = None
            for trial, numbers in zip(trials, images, strict=True):
                # the network is prepared once for the same sites: from trial to trial only seed and plan change
                if injection is None or not _has_sites_of(injection.plan, trial.plan):
                    stack.close()
                    stack.enter_context(evaluating(self._model))
                    statistics = Statistics(trial.plan) if self._statistics else None
                    attached = inject_at(self._model, trial.plan, self.sites, seed=trial.seed, observe=statistics)
                    injection = stack.enter_context(attached)
                if injection.plan is not trial.plan:
                    injection.plan = trial.plan
                injection.seed = trial.seed
                order = self._order if numbers is None else self._order[torch.from_numpy(numbers)]
                outputs = self._outputs(order, injection)
                detected, seen = _read_protection(injection)
                if statistics is not None:
                    seen["statistics"] = [record.to_data() for record in statistics.read()]
                    statistics.reset()
                yield Ran(outputs, detected, seen or None)

    def watch(self, trial: Trial | None, batch: Batch) -> Watched:
        """What a trial (None: the golden run) does to one sample of a batch, site by site; raises what `run` does."""
        # sums that nothing strikes are no codes that are kept anywhere
        shown = [site for site in self.sites if site.kind != "accumulator"]
        plan = watch_every(None if trial is None else trial.plan, shown)
        seed = 0 if trial is None else trial.seed
        eye = Eye(batch.place, plan)
        with (
            evaluating(self._model),
            inject_at(self._model, plan, self.sites, seed=seed, observe=eye.observe) as injection,
        ):
            outputs = self._outputs(self._order[torch.from_numpy(batch.numbers)], injection)
        return Watched(outputs[batch.place][np.newaxis], eye.seen)

    def _outputs(self, order: Tensor, injection: Injection | None) -> Outputs:
        """The outputs of the samples `order` of the split; read from the device once."""
        found = []
        for index, x, _ in batches(self._split, torch.split(order, self.batch_size), self._on, self._readers):
            if injection is not None:
                _number_samples(injection, index)
            out = self._model(x)
            values = getattr(out, "value", out)  # a QuantTensor's values
            if not isinstance(values, Tensor) or len(values) != len(index):
                raise HwfaultError("the network's output is no tensor with a row for each sample, so it has no answers")
            # NumPy knows no bfloat16, all of whose numbers float32 has
            found.append(values.detach().float() if values.dtype == torch.bfloat16 else values.detach())
        outputs: Outputs = torch.cat(found).cpu().numpy()
        return outputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, a network is measured: evaluation mode, no gradients, quantizers as one operator where possible."""
    with evaluation(model), torch.no_grad(), fusing_to_measure(model):
        yield


def _has_sites_of(one: FaultPlan, other: FaultPlan) -> bool:
    """Whether two plans strike the same sites."""
    return one is other or [entry.site for entry in one.sites] == [entry.site for entry in other.sites]


def _number_samples(injection: Injection, index: Tensor) -> None:
    """Tells the stream which samples the next batch has."""
    first = int(index[0])
    if torch.equal(index, torch.arange(first, first + len(index))):
        # counted on from the first: this works also where layers fold axes into the batch
        injection.samples = None
        injection.first_sample = first
    else:
        injection.samples = index


def _read_protection(injection: Injection) -> tuple[bool, dict[str, Any]]:
    """Whether a protected memory detected what counts as DUE, and what all decoders did; it is forgotten then."""
    found = injection.protection_counts()
    injection.reset_protection_counts()
    if not found:
        return False, {}
    detected = False
    for name, counts in found.items():
        if counts.detected and any(process.counts_as_due for process in injection.plan.at(name).processes):
            detected = True
    totals = ProtectionCounts(*(sum(each) for each in zip(*found.values(), strict=True)))
    return detected, {"protection": totals._asdict()}
