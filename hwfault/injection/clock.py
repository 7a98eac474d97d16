"""Which sample numbers a forward's batch has: counters that live on the device and are never read by the host."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from hwfault.errors import HwfaultError, PlanError
from hwfault.injection.owners import refuse_two_forwards
from hwfault.injection.runs import Runs
from hwfault.network.inputs import Axes, samples_in
from hwfault.program.batch_axes import PLAIN, BatchAxis
from hwfault.program.periods import Period, changes_of
from hwfault.stream.check import check_number
from hwfault.torch_ops.counting import advance, count_from
from hwfault.torch_ops.held import TOO_FAR, TOO_LONG, ascending
from hwfault.torch_ops.inside_torch import Moment, in_backward, keep_address


class Clock:
    """Sample numbers of batches, and the number of training steps, one tick a forward of the whole model.

    Counters are written in place, so that a forward captured in a CUDA graph goes on counting when it is replayed. What
    a forward reads of them is a fresh tensor: those that its graph keeps for its backward are never written again.
    Where `world` processes share the samples out in turn, number n of process `rank` is n * world + rank, of samples
    in training and evaluation and of steps. `batch_axis` is that of the inputs. `no_forward(model)` true keeps a call
    of the model from ticking.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise HwfaultError(
                "sample numbers that begin inside a CUDA graph would begin anew at every replay; run one forward "
                "before the capture"
            )
        self.samples: Tensor | None = None
        self.batch_axis: Axes = 0
        self.batch: int | None = None
        """How many samples the inputs of the present forward hold; None outside of one, and where they do not tell."""
        self.runs = Runs()
        self.rank, self.world = 0, 1
        self.no_forward: Callable[[nn.Module], bool] | None = None
        self._paused = False
        self._seen = True
        self._holds = False
        self._device = device
        self._zero = self._first = self._step = _counter(device)
        self._next = {True: _counter(device), False: _counter(device)}
        self._steps, self._epoch, self._held = (_counter(device) for _ in range(3))
        self._training = False
        self.thread: int | None = None
        """The thread of the present forward; None before the first, and in compiled ones."""
        self._counted = 0
        self._numbers: dict[int | None, Tensor] = {}

    def tick(self, model: nn.Module, args: Any = (), kwargs: dict[str, Any] | None = None) -> None:
        """Begins a forward: a pre-hook, so that a recomputation in the backward pass sees the same numbers."""
        self.runs.begin()
        self.batch = None
        if self._paused or in_backward():  # the whole model is recomputed: the numbers are those of the forward before
            return
        if self.no_forward is not None and self.no_forward(model):
            return
        self.runs.count_forward()
        self._training, self._numbers, self._seen, self._counted = model.training, {}, False, 0
        self.thread = None if torch.compiler.is_compiling() else get_ident()
        self.batch = samples_in((args, kwargs or {}), self.batch_axis)
        if self.batch is not None and self.samples is None:
            self._seen, self._counted = True, self.batch
        self._first = advance(self._next[self._training], self._counted)
        self._step = self._zero
        if self._training:
            self._step = self._interleaved(advance(self._steps, 1))
            self._next[False].zero_()

    def ended(self, _model: nn.Module, _args: Any, output: Any) -> None:
        """Ends a forward: a hook. What runs outside of one, as a part of the model on its own, may have any batch."""
        self.batch = None
        self.runs.end(output)

    def check(self, samples: int, shape: tuple[int, ...], batch: BatchAxis | None, name: str) -> None:
        """Raises PlanError unless a site has as many samples as the inputs of this forward."""
        if self.batch is None or samples == self.batch:
            return
        said = batch or PLAIN
        raise PlanError(
            f"the values of {name!r} have the shape {tuple(shape)}, which holds {samples} samples (by its batch axis: "
            f"{said}), but the inputs hold {self.batch}; "
            + (
                "say along which axis these have them if it is not 0, inject(..., batch_axis=...), or resolve the "
                "faults against this network again"
                if batch is not None
                else "give an example of the inputs, inject(..., example=inputs, batch_axis=...), so that the batch "
                "axis of each site is found"
            )
        )

    def check_place(self, site: str, now: Moment) -> None:
        """Raises HwfaultError where a site runs in another thread than the forward that the numbers are those of.

        And PlanError where it is recomputed under other rules than those of its forward.

        Two forwards at once would share one row of numbers. What a backward pass recomputes, in autograd's own
        threads, keeps the numbers of its forward; a compiled forward does not say where it runs.
        """
        self.runs.check_unchanged(site, now)
        self.runs.look_for_segment(now)
        if now.compiling or self.thread in (None, get_ident()) or self._paused or now.recomputing:
            return
        refuse_two_forwards(f"the site {site!r} runs")

    def saw(self, batch: int) -> None:
        """Notes the batch of a site; the first one's is the input's, whatever later layers fold into axis 0."""
        if self._paused or self._seen or self.samples is not None:
            return
        self._seen = True
        self._count(batch)

    def _count(self, batch: int) -> None:
        """The next forward begins so many samples behind this one."""
        if batch != self._counted:
            self._next[self._training].add_(batch - self._counted)
            self._counted = batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Forwards inside do not tick: the numbers afterwards are as if they had not been."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @property
    def is_paused(self) -> bool:
        """Whether forwards do not count now."""
        return self._paused

    @property
    def hold(self) -> int | None:
        """The number that every sample, step and period of inference or batch has; None where they run on."""
        return int(self._held) if self._holds else None

    @hold.setter
    def hold(self, number: int | None) -> None:
        if number is not None:
            self._held.fill_(check_number(number))
        if self._holds or number is not None:
            self.runs.set_anew("`hold`")
        self._holds = number is not None

    def of(self, batch: int | None) -> Tensor:
        """The numbers of this forward's samples: `of_batch`, or `of_parameters` where there is no batch."""
        if not self._holds and self.samples is None and (known := self._numbers.get(batch)) is not None:
            return known
        return self.of_parameters() if batch is None else self.of_batch(batch)

    def of_batch(self, batch: int) -> Tensor:
        """The sample numbers (batch,) of this forward; raises HwfaultError if `samples` has another length."""
        self.saw(batch)
        if self._holds:
            return self._held.clone().expand(batch).contiguous()
        if self.samples is not None:
            return self._given(self.samples, batch)
        if batch not in self._numbers:
            self._numbers[batch] = count_from(self._first, batch, TOO_FAR, world=self.world, rank=self.rank)
        return self._numbers[batch]

    def _interleaved(self, numbers: Tensor) -> Tensor:
        return numbers if self.world == 1 else numbers * self.world + self.rank

    @staticmethod
    def _given(samples: Tensor, batch: int) -> Tensor:
        if samples.shape != (batch,):
            raise HwfaultError(
                f"`samples` has shape {tuple(samples.shape)} but the batch has {batch} elements, expected one "
                "number for each; set it to None to number them from first_sample"
            )
        return samples.contiguous()

    def of_parameters(self) -> Tensor:
        """The sample number (1,) of parameters: the step in training, 0 in evaluation."""
        if self._holds:
            return self._held.clone().reshape(1)
        if None not in self._numbers:
            self._numbers[None] = count_from(self._step, 1, TOO_LONG if self._training else None, kept=True)
        return self._numbers[None]

    def of_periods(self, batch: int | None, refresh: Period) -> Tensor:
        """The refresh period (batch,) of each element of a batch; (1,) for parameters, whose batch is None."""
        changes = changes_of(refresh, batch is not None)
        if changes == "sample":
            assert batch is not None
            return self.of_batch(batch)
        if changes == "step":
            return self.of_parameters()
        held = {"epoch": self._epoch, "never": self._zero}
        number = held[changes] if changes in held else self._first_of_batch()
        return number.clone().expand(1 if batch is None else batch).contiguous()

    def _first_of_batch(self) -> Tensor:
        """The number of the first sample of this forward's batch."""
        if self._holds:
            return self._held
        if self.samples is not None and len(self.samples):
            return self.samples[0]
        return ascending(self._interleaved(self._first).reshape(1), TOO_FAR)[0]

    @property
    def epoch(self) -> int:
        """The number of the epoch, a refresh period; whoever trains sets it."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch.fill_(check_number(number, "epoch"))

    def next_sample(self, training: bool) -> int:
        return int(self._next[training])

    def set_next_sample(self, number: int) -> None:
        for counter in self._next.values():
            counter.fill_(check_number(number))

    def restart_evaluation(self) -> None:
        """The next sample of evaluation is number 0; training runs on."""
        self._next[False].zero_()

    @property
    def steps(self) -> int:
        """Training forwards so far; set it to resume."""
        return int(self._steps)

    @steps.setter
    def steps(self, number: int) -> None:
        self._steps.fill_(check_number(number, "number of steps"))

    def resume(self, steps: int, samples: int) -> None:
        """Training goes on after so many forwards and samples; evaluation starts anew."""
        done, first = check_number(steps, "number of steps"), check_number(samples)
        self._steps.fill_(done)
        self._next[True].fill_(first)
        self._next[False].zero_()


def _counter(device: torch.device) -> Tensor:
    """A zero that stays where it is, to be written in place; a graph may keep it also if made in inference mode."""
    with torch.inference_mode(False):
        counter = torch.zeros((), dtype=torch.int64, device=device)
    keep_address(counter)
    return counter
