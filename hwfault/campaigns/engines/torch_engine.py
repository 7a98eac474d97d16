"""Trials in PyTorch: the network itself, with faults injected into what its quantizers return."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from hwfault.campaigns.engines.engine import Numbers, Outputs, Ran, Trial
from hwfault.campaigns.engines.watching import Batch, Eye, Watched
from hwfault.campaigns.samples import batches
from hwfault.errors import HwfaultError
from hwfault.injection.attach import Injection, inject_at
from hwfault.network.mode import evaluation
from hwfault.network.sites import sites
from hwfault.plan.watching import watch_every
from hwfault.program.processes import SiteList
from hwfault.train.data import Split
from hwfault.train.fusing import fusing_to_measure


class TorchEngine:
    """A network and the samples `order` (k,) of a split, in batches of `batch_size`; any fault model.

    The network runs in evaluation mode, on its own device, and is left as it was.
    """

    name = "torch"

    def __init__(self, model: nn.Module, split: Split, order: Tensor, batch_size: int) -> None:
        self.version = str(torch.__version__)
        self._model = model
        self._split = split
        self._order = order
        self.batch_size = batch_size
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

    def golden(self) -> Outputs:
        """The outputs (n, ...) of all samples without faults."""
        with evaluating(self._model):
            return self._outputs(self._order, None)

    def with_batch(self, batch_size: int) -> "TorchEngine":
        """The same in batches of another size."""
        return TorchEngine(self._model, self._split, self._order, batch_size)

    def run(self, trials: Sequence[Trial], images: Numbers | None = None) -> Iterator[Ran]:
        """What each trial came to, in their order, on all samples or on `images` alone.

        Raises PlanError for a plan that does not fit the network.
        """
        yield from self._run(trials, [images] * len(trials))

    def run_each(self, trials: Sequence[Trial], images: Sequence[Numbers]) -> Iterator[Ran]:
        """What each trial came to on images of its own; raises what `run` does."""
        yield from self._run(trials, images)

    def _run(self, trials: Sequence[Trial], images: Sequence[Numbers | None]) -> Iterator[Ran]:
        with ExitStack() as stack:
            injection: Injection | None = None
            for trial, numbers in zip(trials, images, strict=True):
                # the network is prepared once for a plan: from trial to trial only the seed changes
                if injection is None or injection.plan is not trial.plan:
                    stack.close()
                    stack.enter_context(evaluating(self._model))
                    attached = inject_at(self._model, trial.plan, self.sites, seed=trial.seed)
                    injection = stack.enter_context(attached)
                injection.seed = trial.seed
                order = self._order if numbers is None else self._order[torch.from_numpy(numbers)]
                outputs = self._outputs(order, injection, numbers)
                yield Ran(outputs, _has_detected(injection))

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
            order = self._order[torch.from_numpy(batch.numbers)]
            numbers = None if batch.in_order else batch.numbers
            outputs = self._outputs(order, injection, numbers, batch.first)
        return Watched(outputs[batch.place][np.newaxis], eye.seen)

    def _outputs(
        self, order: Tensor, injection: Injection | None, numbers: Numbers | None = None, first: int = 0
    ) -> Outputs:
        """The outputs of the samples `order` of the split, numbered `first`, `first` + 1, ... or as `numbers` say."""
        found = []
        begin = 0
        for index, x, _ in batches(self._split, torch.split(order, self.batch_size), self._on, 0):
            if injection is not None:
                injection.samples = None
                injection.first_sample = first + begin
                if numbers is not None:
                    injection.samples = torch.from_numpy(numbers[begin : begin + len(index)])
            begin += len(index)
            out = self._model(x)
            values = getattr(out, "value", out)  # a QuantTensor's values
            if not isinstance(values, Tensor) or len(values) != len(index):
                raise HwfaultError("the network's output is no tensor with a row for each sample, so it has no answers")
            found.append(values.detach().cpu().numpy())
        return np.concatenate(found)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, a network is measured: evaluation mode, no gradients, quantizers as one operator where possible."""
    with evaluation(model), torch.no_grad(), fusing_to_measure(model):
        yield


def _has_detected(injection: Injection) -> bool:
    """Whether a protected memory detected what counts as DUE; what was counted is forgotten."""
    found = injection.protection_counts()
    injection.reset_protection_counts()
    for name, counts in found.items():
        if counts.detected and any(process.counts_as_due for process in injection.plan.at(name).processes):
            return True
    return False
