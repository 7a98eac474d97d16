"""Running a network batch by batch, and noting the codes of its sites: for a bundle, and for a replay in memory."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.graph.export.of_network import Arithmetic
from hwfault.graph.read.grids import IntegerGrid
from hwfault.injection.attach import Injection, inject_at
from hwfault.network.inputs import Example, Inputs
from hwfault.network.mode import evaluation
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.watching import watch_every
from hwfault.program.batch_axes import in_rows
from hwfault.program.processes import Site, SiteList
from hwfault.proof.manifest import RecordedSite, tensor
from hwfault.proof.noted import Noted, narrow


class Recorder:
    """Runs a network on batches of its inputs, and notes what becomes of them at every site.

    The `example` shows the runs of each quantizer, and their batch axes. `sums` are the accumulators that are noted
    where no fault strikes them, too: those of layers that add up integers in the `arithmetic` anyhow.
    """

    def __init__(
        self, model: nn.Module, example: Example, arithmetic: Arithmetic, sums: Collection[str] = frozenset()
    ) -> None:
        self._arithmetic: Callable[[nn.Module], AbstractContextManager[object]] = (
            integer_arithmetic if arithmetic == "integer" else nullcontext
        )
        self._model = model
        found = sites(model, example)
        self._known = SiteList((site for site in found if site.kind != "accumulator"), found.obstacles)
        self.every = {site.name: site for site in found if site.kind != "accumulator" or site.name in sums}
        """The sites that are noted whatever is struck."""
        self._calls: Counter[str] = Counter()
        self._ran: dict[str, Site] = {}
        self._struck: dict[str, Site] = {}
        """Accumulators as a plan has them, which gives them a width of its own."""
        self.needs_stream = False
        """Whether codes were noted that only version 1.1 of the fault stream defines."""

    @property
    def sites(self) -> tuple[RecordedSite, ...]:
        """The sites that ran, in the order in which they did."""
        found = []
        for name, site in self._ran.items():
            struck = self._struck.get(name, site)
            clean = None if struck == site else site
            found.append(RecordedSite(site=struck, calls=self._calls[name], clean=clean))
        return tuple(found)

    @property
    def parameters(self) -> set[str]:
        """The keys of the runs of parameters, which are no samples'."""
        own = [
            (name, call) for name, site in self._ran.items() for call in range(self._calls[name]) if not site.batched
        ]
        return {tensor(name, call, "")[:-1] for name, call in own}

    @contextmanager
    def attached(self, plan: FaultPlan | None) -> Iterator["Recording"]:
        """Inside, batches can be run under the plan (None: clean); the network is left as it was."""
        watching = watch_every(plan, self.every.values())
        notes = _Notes(watching)
        with (
            evaluation(self._model),
            torch.no_grad(),
            self._arithmetic(self._model),
            inject_at(self._model, watching, self._known, seed=0, observe=notes.observe) as injection,
        ):
            yield Recording(self, self._model, injection, notes)

    def add(self, notes: "_Notes") -> None:
        """Notes which sites ran in a batch, in which order and how often."""
        ran = {name: self.every.get(name, site) for name, site in notes.ran.items()}
        # accumulators may run only under faults: what ran then tells where they stand among the others
        self._ran = ran | self._ran if self._ran.keys() <= ran.keys() else self._ran | ran
        self._struck |= {name: site for name, site in notes.ran.items() if site.kind == "accumulator"}
        self._calls |= notes.calls
        self.needs_stream |= notes.needs_stream


class Recording:
    """A network to which a recorder is attached."""

    def __init__(self, recorder: Recorder, model: nn.Module, injection: Injection, notes: "_Notes") -> None:
        self._recorder, self._model, self._injection, self._notes = recorder, model, injection, notes
        self._device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def run(self, inputs: Example, seed: int, first_sample: int, *, again: bool = False) -> Noted:
        """What a batch becomes under a seed, whose samples are numbered from `first_sample`.

        Where it is the same run `again` parameters are left out whose faults do not change from batch to batch.
        """
        self._injection.seed, self._injection.first_sample = seed, first_sample
        self._notes.begin(again)
        result = Inputs.of(inputs).to(self._device).run(self._model)
        self._recorder.add(self._notes)
        noted = self._notes.noted
        noted.output = np.array(getattr(result, "value", result).numpy(force=True))
        return noted


class _Notes:
    """What an injection shows of each site in one forward."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self.begin(False)

    def begin(self, again: bool) -> None:
        """Begins a forward."""
        self._again, self.needs_stream = again, False
        self.calls: Counter[str] = Counter()
        self.ran: dict[str, Site] = {}
        self.noted = Noted()

    def observe(
        self,
        name: str,
        before: Tensor,
        _after: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        codes_before: Tensor,
        codes_after: Tensor,
    ) -> None:
        """Notes one run of a site."""
        entry, key = self._plan.at(name), tensor(name, self.calls[name], "")[:-1]
        site, noted = entry.site, self.noted
        self.calls[name] += 1
        self.ran[name] = site
        if self._again and not entry.changes_with_batches:
            return
        # scale and zero point, and codes in rows
        grid = [np.array(values.numpy(force=True)) for values in (scale, zero_point)]
        noted.grids |= {f"{key}.scale": grid[0], f"{key}.zero_point": grid[1]}
        if site.kind != "accumulator" and IntegerGrid(grid[0], grid[1], site.bit_width, site.signed).needs_stream:
            self.needs_stream = True
        for codes, rows in ((codes_before, noted.before), (codes_after, noted.after)):
            rows[key] = in_rows(codes.numpy(force=True), site.batched, site.batch).astype(narrow(site))
        # what is no number has no code
        values = in_rows(before.numpy(force=True), site.batched, site.batch)
        at = np.flatnonzero(~np.isfinite(values))
        if len(at):
            noted.lost[key] = at, values.ravel()[at]
            self.needs_stream = True
