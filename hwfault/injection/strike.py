"""The faults of one site of a network, ready to be applied at each forward."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hwfault.codes import REPRESENTATIONS, CodeFormat
from hwfault.errors import PlanError
from hwfault.injection.clipped import ClipStrike
from hwfault.injection.clock import Clock
from hwfault.injection.forward import Forward, ScaleAndZero
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.batch_axes import PLAIN, BatchAxis
from hwfault.program.processes import MapStep, ProtectedStep, Site, SitePlan, StreamStep
from hwfault.stream.mechanism import CLIP, MAP, PROTECTED, STREAM, MapOperands, ProtectedOperands, StreamOperands
from hwfault.stream.native import ParsedSite
from hwfault.stream.protection import KINDS as PROTECTIONS
from hwfault.stream.protection import MapRows
from hwfault.torch_ops.arranged import arrange_on_grid, has_names, named_as, restore, samples_of, unnamed
from hwfault.torch_ops.codec import (
    check_codes_known,
    code_words,
    comes_back,
    integers,
    known_bits,
    may_be_unknown,
    replaced,
    sure_bits,
    values,
)
from hwfault.torch_ops.eager import Faults, strike_eagerly
from hwfault.torch_ops.extension import extension
from hwfault.torch_ops.inside import Inside
from hwfault.torch_ops.inside_torch import is_plain, traced
from hwfault.torch_ops.lying import as_lying
from hwfault.torch_ops.on_site import StreamSite


class Observed(NamedTuple):
    """What one strike did: the values after, and the code words (int64, two's complement) before and after."""

    values: Tensor
    before: Tensor
    after: Tensor


class Strike:
    """The faults of one site: its steps, one after the other.

    Where every code comes back from its value, and where there is but one step, the steps strike values, which touches
    only the words that are hit. Otherwise the words are read as integers once, all steps strike these, and what they
    changed becomes values once.
    """

    def __init__(self, plan: FaultPlan, entry: SitePlan, device: torch.device) -> None:
        site = entry.site
        self._name = site.name
        self._batched = site.batched
        self._batch = site.batch
        self._format = CodeFormat(site.bit_width, site.signed)
        self._exact = site.kind == "accumulator"  # whole numbers, which a plan keeps within what the type holds
        self._steps = [_STEPS[step.mechanism](site, step, device) for step in plan.steps(site.name)]
        self._only = self._steps[0] if len(self._steps) == 1 else None
        self._may_be_unknown = bool(self._steps) and not self._exact and may_be_unknown(self._format.bit_width)

    @property
    def counts(self) -> list[Tensor]:
        """(corrected, detected, miscorrected) memory words so far, (3,) for each protected memory of the site."""
        return [step.counts for step in self._steps if isinstance(step, _Protected)]

    @property
    def fast(self) -> "FastStrike | None":
        """What strikes the values where nothing but these decides; None where only this object knows how."""
        if not isinstance(self._only, _Stream) or not self._only.is_fast:
            return None
        return FastStrike(self._only, self._batched, self._batch or PLAIN)

    def __call__(
        self,
        value: Tensor,
        clock: Clock,
        seed: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        straight_through: bool,
        unheld: bool = False,
    ) -> Tensor:
        """The value with faults; the value itself, overwritten, only if it is `unheld` by anyone but the caller.

        The gradient is zero at words whose code is another after all steps, unless `straight_through`. Raises PlanError
        for values that do not tell their codes.
        """
        batch = self._samples_of(value, clock)
        if self._may_be_unknown:
            check_codes_known(self._name, value, scale, zero_point, self._format)
        forward = Forward(clock, seed, batch, straight_through)
        if self._batch is not None and self._takes(value, (scale, zero_point)):
            forward.arranged = False
        elif self._batch is not None:
            arranged = arrange_on_grid(value, scale, zero_point, self._batch, self._name)
            faulty = self._struck(arranged.values, forward, (arranged.scale, arranged.zero_point), False)
            return value if faulty is arranged.values else as_lying(restore(faulty, value, self._batch), value)
        if self._only is not None:  # the common case, which is to cost nothing beside its one step
            return self._only(value, forward, (scale, zero_point), unheld)
        return self._struck(value, forward, (scale, zero_point), unheld)

    def observed(
        self, value: Tensor, clock: Clock, seed: Tensor, scale: Tensor, zero_point: Tensor, straight_through: bool
    ) -> Observed:
        """The same, with the codes before and after."""
        if self._comes_back(value):
            faulty = self(value, clock, seed, scale, zero_point, straight_through)
            return Observed(faulty, *(self.codes(t, scale, zero_point) for t in (value, faulty)))
        if self._may_be_unknown:
            check_codes_known(self._name, value, scale, zero_point, self._format)
        forward = Forward(clock, seed, self._samples_of(value, clock), straight_through)
        if self._batch is None:
            return self._by_integers(value, forward, (scale, zero_point))
        arranged = arrange_on_grid(value, scale, zero_point, self._batch, self._name)
        seen = self._by_integers(arranged.values, forward, (arranged.scale, arranged.zero_point))
        return Observed(*(restore(t, value, self._batch) for t in seen))

    def codes(self, value: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """The code words (int64, two's complement) of values that no fault struck, or that tell their codes."""
        return code_words(integers(unnamed(value), scale, zero_point, self._format), self._format)

    def _takes(self, value: Tensor, grid: ScaleAndZero) -> bool:
        """Whether values need not be arranged, samples in front, to be struck."""
        return isinstance(self._only, _Stream) and self._only.takes(value, grid)

    def _samples_of(self, value: Tensor, clock: Clock) -> int | None:
        """How many samples the values hold, None for a parameter; raises PlanError unless that is the forward's."""
        if not self._batched:
            return None
        samples = value.shape[0] if self._batch is None else samples_of(value, self._batch, self._name)
        if samples != clock.batch:
            clock.check(samples, value.shape, self._batch, self._name)
        return samples

    def _comes_back(self, value: Tensor) -> bool:
        """Whether every code of the site comes back from its value."""
        exact = self._exact and value.dtype in (torch.float32, torch.float64)
        return exact or comes_back(value.dtype, self._format.bit_width)

    def _struck(self, value: Tensor, forward: Forward, grid: ScaleAndZero, unheld: bool) -> Tensor:
        """The value, samples in front, after all steps."""
        if self._only is not None:
            return self._only(value, forward, grid, unheld)
        if not self._comes_back(value) and self._steps:
            return self._by_integers(value, forward, grid).values
        if forward.straight_through or not _differentiable(value):
            return self._one_by_one(value, forward, grid, unheld)
        with torch.no_grad():
            faulty = self._one_by_one(value.detach(), forward, grid, False)
        return replaced(value, faulty, self.codes(value, *grid) != self.codes(faulty, *grid), False)

    def _one_by_one(self, value: Tensor, forward: Forward, grid: ScaleAndZero, unheld: bool) -> Tensor:
        """Each step on the values that the one before left."""
        own = unheld or not (traced() or not is_plain(value))
        for step in self._steps:
            before, value = value, step(value, forward, grid, unheld)
            unheld = unheld or (own and value is not before)  # nobody has seen what a step returned
        return value

    def _by_integers(self, value: Tensor, forward: Forward, grid: ScaleAndZero) -> Observed:
        """All steps on the integers; a word that some step changed has the value of its last integer."""
        plain = unnamed(value)
        with torch.no_grad():
            before = now = integers(plain, *grid, self._format)
            one = torch.ones((), dtype=now.dtype, device=now.device)
            whole = (one, torch.zeros_like(one))
            touched = torch.zeros_like(now, dtype=torch.bool)
            for step in self._steps:
                left, now = now, step(now, forward, whole, False)
                touched |= now != left
            touched &= plain.isfinite()
            faulty = torch.where(touched, values(now, *grid, plain.dtype), plain.detach())
            codes = [code_words(q, self._format) for q in (before, now)]
        out = replaced(plain, faulty, touched & (codes[0] != codes[1]), forward.straight_through)
        named: Any = value
        return Observed(named_as(out, named.names) if has_names(value) else out, *codes)


def _differentiable(value: Tensor) -> bool:
    return traced() or (value.requires_grad and torch.is_grad_enabled())


class _Stream:
    """Processes that the stream draws."""

    def __init__(self, site: Site, step: StreamStep, device: torch.device) -> None:
        self._bit_width, self._signed = site.bit_width, int(site.signed)
        self._representation = REPRESENTATIONS.index(step.representation)
        # parsed here, once: kernels on a device cannot refuse
        parsed = ParsedSite(step.program, site.bit_width, site.signed, self._representation)
        self._faults = Faults(STREAM, step.reads_stored, step.reads_others, site=StreamSite(parsed))
        self._along = self._faults._replace(site=StreamSite(parsed, site.batch))
        self._name = site.name
        self._layers = step.layers
        self._program = kept(step.program, device)
        self._numbers = step.program

    @property
    def is_fast(self) -> bool:
        """Whether words are struck on their own."""
        return not (self._layers or self._faults.reads_others)

    def extended(self, batched: bool, axis: BatchAxis) -> Any:
        """What the C++ extension strikes the site with; None without one."""
        module = extension()
        if module is None:
            return None
        word = (list(self._numbers), self._bit_width, bool(self._signed), self._representation)
        where = (batched, (axis.axis, axis.inner, axis.rows))
        return module.StreamSite(*word, *where, self._faults.reads_stored, known_bits(), sure_bits())

    def may_strike_inside(self, keeps_gradient: bool) -> bool:
        """Whether values may be struck in the pass that makes them, which keeps none of those that were quantized."""
        return self._bit_width <= known_bits()[0] and not (self._faults.reads_stored and keeps_gradient)

    def inside(self, samples: Tensor, seed: Tensor, straight_through: bool) -> Inside:
        """What strikes them there."""
        word = self._bit_width, self._signed, self._representation
        return Inside(self._faults, samples, seed, self._program, word, straight_through)

    def takes(self, value: Tensor, grid: ScaleAndZero) -> bool:
        """Whether values are struck where they lie, whichever axis is that of their samples."""
        alone = not self._faults.reads_stored and all(t.numel() == 1 and t.dim() <= value.dim() for t in grid)
        return alone and is_plain(value) and not traced()

    def __call__(self, value: Tensor, forward: Forward, grid: ScaleAndZero, unheld: bool) -> Tensor:
        for layer in self._layers:
            _check_layer(value, forward.batch, self._name, *layer)
        scale, zero_point = grid
        operands = StreamOperands(
            samples=forward.clock.of(forward.batch),
            seed=forward.seed,
            program=self._program,
            scale=scale,
            zero_point=zero_point,
            bit_width=self._bit_width,
            signed=self._signed,
            representation=self._representation,
        )
        faults = self._faults if forward.arranged else self._along
        return strike_eagerly(value, faults, operands, forward.straight_through, unheld)


def _check_layer(value: Tensor, batch: int | None, name: str, channels: int, inner: int) -> None:
    """Raises PlanError unless the values are whole samples of a layer with late bits."""
    words = value.numel() if batch is None else value.shape[1:].numel()
    if words % (channels * inner):
        raise PlanError(
            f"the late bits of {name!r} are those of {channels} channels of {inner} words, but the values have the "
            f"shape {tuple(value.shape)}; resolve the faults against this network"
        )


class _Map:
    """A fault map, or one of single samples."""

    def __init__(self, site: Site, step: MapStep, device: torch.device) -> None:
        process = step.process
        self._name, self._words, self._refresh = site.name, process.map.words, process.refresh
        self._bit_width, self._signed = site.bit_width, int(site.signed)
        self._representation = REPRESENTATIONS.index(step.representation)
        self._threshold, self._site = process.rows.threshold, process.rows.site
        self._faults = Faults(MAP, process.reads_stored())
        self._rows = _rows(process.rows, device)

    def __call__(self, value: Tensor, forward: Forward, grid: ScaleAndZero, unheld: bool) -> Tensor:
        self._check(value, 1 if forward.batch is None else max(forward.batch, 1))
        word, and_mask, xor_mask = self._rows
        scale, zero_point = grid
        operands = MapOperands(
            period=forward.clock.of_periods(forward.batch, self._refresh),
            seed=forward.seed,
            word=word,
            and_mask=and_mask,
            xor_mask=xor_mask,
            scale=scale,
            zero_point=zero_point,
            bit_width=self._bit_width,
            signed=self._signed,
            representation=self._representation,
            threshold=self._threshold,
            site=self._site,
        )
        return strike_eagerly(value, self._faults, operands, forward.straight_through, unheld)

    def _check(self, value: Tensor, batch: int) -> None:
        if value.numel() not in (0, self._words * batch):
            raise PlanError(
                f"the fault map of {self._name!r} has {self._words} words, but the values have the shape "
                f"{tuple(value.shape)}; expected a map of the same tensor: resolve the faults against this network"
            )


class _Protected:
    """A protected memory; `counts` are (corrected, detected, miscorrected) memory words so far."""

    def __init__(self, site: Site, step: ProtectedStep, device: torch.device) -> None:
        process, memory = step.process, step.process.memory
        self._refresh, self._program = process.refresh, kept(step.program, device)
        self._bit_width, self._signed = site.bit_width, int(site.signed)
        self._representation = REPRESENTATIONS.index(step.representation)
        self._threshold, self._site = process.threshold, process.site_number
        self._memory = memory
        self._rows = _rows(process.rows, device)
        cells = process.cells if process.number else torch.zeros(0, memory.data_bits)
        self._table = kept(process.number, device), torch.as_tensor(cells, dtype=torch.int64, device=device)
        with torch.inference_mode(False):
            self.counts = torch.zeros(PROTECTED.counts, dtype=torch.int64, device=device)
        self._faults = Faults(PROTECTED, True, counts=self.counts)

    def __call__(self, value: Tensor, forward: Forward, grid: ScaleAndZero, unheld: bool) -> Tensor:
        word, and_mask, xor_mask = self._rows
        number, cells = self._table
        scale, zero_point = grid
        operands = ProtectedOperands(
            samples=forward.clock.of(forward.batch),
            period=forward.clock.of_periods(forward.batch, self._refresh),
            seed=forward.seed,
            program=self._program,
            word=word,
            and_mask=and_mask,
            xor_mask=xor_mask,
            number=number,
            cells=cells,
            scale=scale,
            zero_point=zero_point,
            bit_width=self._bit_width,
            signed=self._signed,
            representation=self._representation,
            protection=PROTECTIONS.index(self._memory.kind) + 1,
            data_bits=self._memory.data_bits,
            slot=self._memory.slot,
            on_detected=int(self._memory.due),
            threshold=self._threshold,
            site=self._site,
        )
        return strike_eagerly(value, self._faults, operands, forward.straight_through, unheld)


class FastStrike(NamedTuple):
    """The one step of a site of which nothing but the values decides, None where these pass, and where samples lie."""

    step: _Stream | None
    batched: bool = False
    axis: BatchAxis = PLAIN

    @property
    def in_extension(self) -> Any:
        """What the C++ extension strikes the site with; None where values pass."""
        return None if self.step is None else self.step.extended(self.batched, self.axis)


def _rows(rows: MapRows, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The words and both masks of a map's rows, as tensors that autograd may keep."""
    columns = (rows.word, rows.and_mask.view(np.int32), rows.xor_mask.view(np.int32))
    with torch.inference_mode(False):
        word, and_mask, xor_mask = (torch.from_numpy(column.copy()).to(device) for column in columns)
    return word, and_mask, xor_mask


_STEPS: dict[str, Callable[..., Callable[[Tensor, Forward, ScaleAndZero, bool], Tensor]]] = {
    STREAM.name: _Stream,
    MAP.name: _Map,
    PROTECTED.name: _Protected,
    CLIP.name: ClipStrike,
}


def kept(numbers: int | Sequence[int], device: torch.device) -> Tensor:
    """Numbers as a tensor that autograd may keep, also if it is made in inference mode."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=torch.int64, device=device)
