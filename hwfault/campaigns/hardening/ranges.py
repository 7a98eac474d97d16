"""Clipped activation ranges: what each activation holds in the golden run, as ranges that faults must not leave."""

from collections.abc import Callable, Sequence
from glob import escape
from typing import NamedTuple

from hwfault.campaigns.engines.watching import Watching, batch_of
from hwfault.campaigns.measurement import Measurement
from hwfault.codes import CodeFormat
from hwfault.errors import HwfaultError
from hwfault.laws.models import ClippedRange
from hwfault.program.processes import Site
from hwfault.program.selectors import Select

_CLIPPED = ("activation", "input")


class GoldenRange(NamedTuple):
    """The least and the largest integer that a site holds in the golden run, over all samples."""

    site: Site
    low: int
    high: int

    @property
    def narrows(self) -> bool:
        """Whether the site's words could hold others."""
        word = CodeFormat(self.site.bit_width, self.site.signed)
        return (self.low, self.high) != (word.low, word.high)

    @property
    def room(self) -> float:
        """The share of the site's words that lie outside of it."""
        return 1 - (self.high - self.low + 1) / (1 << self.site.bit_width)

    @property
    def fault(self) -> ClippedRange:
        """What keeps the site within it."""
        return ClippedRange(sites=(Select(name=escape(self.site.name)),), low=self.low, high=self.high)

    @property
    def extra_bits(self) -> int:
        """The bits of its two ends, which are held once."""
        return 2 * self.site.bit_width


def golden_ranges(measurement: Measurement, progress: Callable[[], object] = lambda: None) -> list[GoldenRange]:
    """The ranges of all activations and inputs, in the order in which they first ran.

    `progress` is called after each sample. Raises HwfaultError for an engine that shows no sites.
    """
    engine = measurement.engine
    if not isinstance(engine, Watching):
        raise HwfaultError(f"the engine {engine.name} shows no sites, of which the ranges of activations are read")
    found: dict[str, GoldenRange] = {}
    for sample in range(engine.samples):
        # in its batch of the golden run, where sums of floats depend on that
        batch = batch_of(sample, engine.samples, measurement.study.batch_size, alone=measurement.subject.exact)
        for seen in engine.watch(None, batch).sites:
            if seen.site.kind not in _CLIPPED or not len(seen.after):
                continue
            low, high = int(seen.after.min()), int(seen.after.max())
            before = found.get(seen.site.name)
            if before is not None:
                low, high = min(low, before.low), max(high, before.high)
            found[seen.site.name] = GoldenRange(seen.site, low, high)
        progress()
    return list(found.values())


def clip_faults(ranges: Sequence[GoldenRange]) -> tuple[ClippedRange, ...]:
    """What keeps activations within their ranges, where these are narrower than their words."""
    return tuple(one.fault for one in ranges if one.narrows)
