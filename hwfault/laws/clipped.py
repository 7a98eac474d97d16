"""The law `clipped`: integers of activations kept within a range."""

from typing import ClassVar, Literal, Self

from pydantic import StrictInt, model_validator

from hwfault.codes import CodeFormat
from hwfault.errors import ModelError
from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.on_sites import OnSites
from hwfault.program.clipped import ClipProcess
from hwfault.program.processes import Site
from hwfault.program.selectors import Select

EXAMPLE = "{model: clipped, low: 0, high: 37, sites: {kind: activation}}"


class ClippedRange(OnSites):
    """Activations kept within a range of integers: what lies beyond is clipped to its end, or becomes 0.

    No fault, but a measure against faults: it acts on what the faults in front of it in the list have made of a site's
    words, also where only the inputs of the layer before were struck. `low` and `high` are integers of the site's
    words; an end left out is that of the words. `beyond` says what integers beyond become: the nearest within the range
    ("clip"), or "zero". (Chen, Li, Pattabiraman, "A Low-cost Fault Corrector for Deep Neural Networks through Range
    Restriction", DSN 2021; Hoang, Hanif, Shafique, "FT-ClipAct", DATE 2020.)
    """

    drawn: ClassVar[bool] = False

    model: Literal["clipped"] = "clipped"
    sites: tuple[Select, ...] = (Select(kind="activation"),)
    low: StrictInt | None = None
    high: StrictInt | None = None
    beyond: Literal["clip", "zero"] = "clip"

    @model_validator(mode="after")
    def _some_range(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("a range without ends keeps every word; expected `low`, `high`, or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}, expected ascending integers")
        return self


def lower(bound: Bound[ClippedRange], target: Target) -> Lowered:
    """A range at each site; raises ModelError for one that its words cannot have, and for parameters and sums."""
    return Lowered([_process(bound.fault, site, target) for site in target.sites])


def _process(fault: ClippedRange, site: Site, target: Target) -> ClipProcess:
    if site.kind not in ("activation", "input"):
        raise ModelError(f"{site.name!r} is a {site.kind}; a range can be had for activations and inputs (select)")
    word = CodeFormat(site.bit_width, site.signed)
    low = word.low if fault.low is None else fault.low
    high = word.high if fault.high is None else fault.high
    if not word.low <= low <= high <= word.high:
        raise ModelError(
            f"{site.name!r} has integers from {word.low} to {word.high}, expected a range within, not {low} to {high}"
        )
    below, above = low, high
    if fault.beyond == "zero":
        if not low <= 0 <= high or word.bipolar:
            raise ModelError(f"{site.name!r}: 0, which others are to become, is not in the range of {low} to {high}")
        below = above = 0
    own = {"low": low, "high": high, "below": below, "above": above}
    return ClipProcess(**target.key(site), **own, bit_width=site.bit_width, signed=site.signed)
