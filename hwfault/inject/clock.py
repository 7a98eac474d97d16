"""Which sample numbers a forward's batch has: counters that live on the device and are never read by the host."""

from typing import Any

import torch
from torch import Tensor, nn

from hwfault.errors import HwfaultError
from hwfault.plan.processes import Refresh


class Clock:
    """Sample numbers of batches, and the number of training steps, one tick a forward of the whole model.

    Every number is a fresh tensor: those that a forward's graph keeps for its backward are never written again.
    """

    def __init__(self, device: torch.device) -> None:
        self.samples: Tensor | None = None
        self._device = device
        self._zero = torch.zeros((), dtype=torch.int64, device=device)
        self._next = {True: self._zero, False: self._zero}
        self._first = self._zero
        self._steps = self._zero
        self._step = self._zero
        self._training = False
        self._epoch = self._zero
        self._numbers: dict[int, Tensor] = {}

    def tick(self, model: nn.Module, args: Any = ()) -> None:
        """Begins a forward: a pre-hook, so that a recomputation in the backward pass sees the same numbers."""
        if _in_backward():  # the whole model is recomputed: the numbers are those of the forward before
            return
        self._training, self._numbers = model.training, {}
        self._first = self._next[self._training]
        self._step = self._zero
        if self._training:
            self._step = self._steps
            self._steps = self._steps + 1
            self._next[False] = self._zero
        if self.samples is None and args and isinstance(args[0], Tensor) and args[0].dim():
            # no site with a batch may be struck, whose first would tell
            self._next[self._training] = self._first + args[0].shape[0]

    def of_batch(self, batch: int) -> Tensor:
        """The sample numbers (batch,) of this forward; raises HwfaultError if `samples` has another length."""
        if self.samples is not None:
            return self._given(self.samples, batch)
        if batch not in self._numbers:
            if not self._numbers:  # the first site's batch is the input's, whatever later layers fold into axis 0
                self._next[self._training] = self._first + batch
            self._numbers[batch] = self._first + torch.arange(batch, device=self._device)
        return self._numbers[batch]

    @staticmethod
    def _given(samples: Tensor, batch: int) -> Tensor:
        if samples.shape != (batch,):
            raise HwfaultError(
                f"`samples` has shape {tuple(samples.shape)} but the batch has {batch} elements, expected one "
                "number for each; set it to None to number them from first_sample"
            )
        return samples

    def of_parameters(self) -> Tensor:
        """The sample number (1,) of parameters: the step in training, 0 in evaluation."""
        return self._step.clone().reshape(1)  # a clone, as one made in inference mode cannot be kept for a backward

    def of_periods(self, batch: int | None, refresh: Refresh) -> Tensor:
        """The refresh period (batch,) of each element of a batch; (1,) for parameters, whose batch is None.

        The period of a batch is the number of its first sample; "inference" means the same to parameters, which all
        of a batch shares.
        """
        if refresh == "inference" and batch is not None:
            return self.of_batch(batch)
        held = {"epoch": self._epoch, "power_cycle": self._zero}
        first = self._first if self.samples is None or len(self.samples) == 0 else self.samples[0]
        return held.get(refresh, first).clone().expand(1 if batch is None else batch)

    @property
    def epoch(self) -> int:
        """The number of the epoch, a refresh period; whoever trains sets it."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch = torch.tensor(number, dtype=torch.int64, device=self._device)

    def next_sample(self, training: bool) -> int:
        return int(self._next[training])

    def set_next_sample(self, number: int) -> None:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 63:
            raise HwfaultError(f"the sample number is {number!r}, expected an integer from 0 to 2^63 - 1")
        start = torch.tensor(number, dtype=torch.int64, device=self._device)
        self._next = {True: start, False: start}

    @property
    def steps(self) -> int:
        """Training forwards so far; set it to resume."""
        return int(self._steps)

    @steps.setter
    def steps(self, number: int) -> None:
        self._steps = torch.tensor(number, dtype=torch.int64, device=self._device)


def _in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread, as it is while a checkpoint is recomputed."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
