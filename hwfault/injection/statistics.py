"""What faults did at each site, counted while a network runs."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from hwfault.codes import CodeFormat, Representation
from hwfault.errors import PlanError, nearest
from hwfault.injection.site_statistics import SiteStatistics
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.names import first_run
from hwfault.program.processes import Site
from hwfault.torch_ops.codec import code_words, integers


class Statistics:
    """An observer for `inject(..., observe=Statistics(sites(model)))`: what the faults do at each of the sites.

    A FaultPlan in place of the sites tells also the representation in which codes are stored; without one it is two's
    complement. Sums are kept where the values are, and nothing waits for the device before `read`. Weights and biases
    are seen once in each forward. At an accumulator the faults of processing elements are already in what is seen
    before. Faults are told from integers, so that the step from 0 to the minus zero of sign and magnitude is none.
    """

    def __init__(self, sites: FaultPlan | Iterable[Site]) -> None:
        planned = [entry.site for entry in sites.sites] if isinstance(sites, FaultPlan) else list(sites)
        plan = sites if isinstance(sites, FaultPlan) else None
        self._formats = {s.name: CodeFormat(s.bit_width, s.signed, _representation(plan, s.name)) for s in planned}
        self._sums: dict[str, _Sums] = {}

    def __call__(
        self,
        name: str,
        before: Tensor,
        after: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        codes_before: Tensor | None = None,
        codes_after: Tensor | None = None,
    ) -> None:
        """Adds one run of a site; raises PlanError for a site that was not named.

        Without codes they are read off the values, which does not do for those of wide words after a fault. A further
        run of a quantizer, which only a forward shows where the sites were listed without an example, is a site of its
        own from then on.
        """
        if name not in self._formats:
            if first_run(name) not in self._formats:
                raise PlanError(f"statistics of the site {name!r} were not asked for: {nearest(name, self._formats)}")
            self._formats[name] = self._formats[first_run(name)]
        with torch.inference_mode(False), torch.no_grad():  # sums made in inference mode could not be added to later
            if name not in self._sums:
                self._sums[name] = _Sums(self._formats[name], before.device)
            fmt = self._formats[name]
            given = ((codes_before, before), (codes_after, after))
            old, new = (code_words(integers(t, scale, zero_point, fmt), fmt) if c is None else c for c, t in given)
            self._sums[name].add(old, new, (~before.isfinite()).sum())

    def read(self) -> tuple[SiteStatistics, ...]:
        """The statistics of each site so far, in the order of the sites; waits for the device, once."""
        seen = self._sums.values()
        counts, totals = (iter(_read(t)) for t in ([s.counts for s in seen], [s.totals for s in seen]))
        found = {name: _record(name, sums.fmt.bit_width, counts, totals) for name, sums in self._sums.items()}
        return tuple(found.get(n) or _record(n, f.bit_width, repeat(0), repeat(0.0)) for n, f in self._formats.items())

    def reset(self) -> None:
        """Counts from zero again."""
        self._sums.clear()

    def reduce(self, device: torch.device | str = "cpu") -> None:
        """Adds up the sums of all ranks of torch.distributed, each of which then reads the same.

        Every rank must call it, with statistics of the same sites; sites that a rank has not seen are sent from
        `device`, which must be one that the process group can send from. Without a process group nothing happens.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for name, fmt in self._formats.items():
            sums = self._sums.setdefault(name, _Sums(fmt, torch.device(device)))
            torch.distributed.all_reduce(sums.counts)
            torch.distributed.all_reduce(sums.totals)


class _Sums:
    """The sums of one site, on the device.

    `counts` are words, faulty ones, those without a number, then flips to 1 and to 0 of each plane.
    """

    def __init__(self, fmt: CodeFormat, device: torch.device) -> None:
        self.fmt = fmt
        self.counts = torch.zeros(3 + 2 * fmt.bit_width, dtype=torch.int64, device=device)
        self.totals = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, before: Tensor, after: Tensor, no_numbers: Tensor) -> None:
        """Adds a run, of two's complement code words."""
        old, new = (represented(codes, self.fmt).flatten() for codes in (before, after))
        a, b = (whole_numbers(codes, self.fmt).flatten().double() for codes in (before, after))
        self.totals += torch.stack([((b - a) ** 2).sum(), a.dot(a), b.dot(b), a.dot(b)])
        self.counts[0] += old.numel()
        self.counts[1] += (old != new).sum()
        self.counts[2] += no_numbers
        if old.device.type == "cpu":  # where looking for them does not make the host wait
            old, new = (x[old != new] for x in (old, new))
        for first, flipped in ((3, ~old & new), (3 + self.fmt.bit_width, old & ~new)):
            for plane in range(self.fmt.bit_width):
                self.counts[first + plane] += (flipped >> plane & 1).sum()


def _read(tensors: Sequence[Tensor]) -> list[Any]:
    """The numbers in tensors, fetched from the device in one go."""
    return torch.cat(list(tensors)).tolist() if tensors else []


def _record(name: str, bits: int, counts: Iterator[int], totals: Iterator[float]) -> SiteStatistics:
    """The record of the next counts and totals."""
    words, faulty, no_numbers = (next(counts) for _ in range(3))
    ones, zeros = (tuple(next(counts) for _ in range(bits)) for _ in range(2))
    change, before, after, products = (next(totals) for _ in range(4))
    return SiteStatistics(
        site=name,
        words=words,
        faulty=faulty,
        no_numbers=no_numbers,
        ones=ones,
        zeros=zeros,
        squared_change=change,
        squares_before=before,
        squares_after=after,
        products=products,
    )


def represented(codes: Tensor, fmt: CodeFormat) -> Tensor:
    """The codes of the format's representation for two's complement ones (see hwfault.codes.represent)."""
    if fmt.representation == "offset_binary":
        return codes ^ fmt.top
    if fmt.representation == "twos_complement":
        return codes
    magnitude = torch.where(codes == fmt.top, fmt.mask, -codes & fmt.mask)
    return torch.where(codes & fmt.top != 0, magnitude | fmt.top, codes)


def whole_numbers(codes: Tensor, fmt: CodeFormat) -> Tensor:
    """The integers that two's complement code words stand for."""
    return 2 * codes - 1 if fmt.bipolar else codes - ((codes & fmt.top) << 1)


def _representation(plan: FaultPlan | None, name: str) -> Representation:
    """The one representation in which faults strike a site; two's complement where there are several."""
    found = set() if plan is None else {step.representation for step in plan.steps(name)}
    return found.pop() if len(found) == 1 else "twos_complement"
