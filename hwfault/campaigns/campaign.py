"""A campaign of one question about a network that is there already."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.campaigns.one_question import Kept as Kept
from hwfault.campaigns.one_question import OneQuestion
from hwfault.campaigns.samples import order_of
from hwfault.campaigns.subject import Subject, subject_of
from hwfault.errors import HwfaultError
from hwfault.laws.files import Files
from hwfault.plan.fault_plan import FaultPlan
from hwfault.train.data import Split


class Campaign(OneQuestion):
    """A network and the samples that it classifies in every trial: those of a data set's split.

    Sample i of the fault stream is the split's i-th, whatever the batch size, and also where `indices` name some of
    them, in any order. Faults that belong to a device are those of `device`, or with None of another one for each seed:
    its number. The profiles and maps that faults name are read once, or taken as `files` has read them. `workers` read
    samples that do not lie in memory. With `statistics` it is kept what the faults do at each site. `said` is what the
    campaign's study says of the network beside, by its keys. The network runs in evaluation mode, on its own device,
    and is left as it was. Raises HwfaultError where there is no sample.
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
        said: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self._said = {} if said is None else said
        self._split = split
        self._order = order_of(split, indices)
        count = len(self._order)
        if not count or batch_size < 1:
            raise HwfaultError(f"given {count} samples, batches of {batch_size}; expected at least one of each")
        self._torch = TorchEngine(model, split, self._order, batch_size, readers=workers, statistics=statistics)
        super().__init__(self._torch, device=device, files=files, statistics=statistics)

    @cached_property
    def subject(self) -> Subject:
        """The network and its samples, as a study has them."""
        return subject_of(self.model, self._split, self._order, self._torch, statistics=self.statistics)

    @property
    def said(self) -> Mapping[str, Any]:
        """The network's class, or what is said in its place, and PyTorch."""
        return {"network": type(self.model).__qualname__, **self._said, "engine": "torch"}

    def check_fits(self, plan: FaultPlan) -> None:
        """Raises PlanError for a plan that does not fit the network, also one that does not take the samples."""
        self._torch.check_fits(plan)
