"""Measures whose gain was measured in trials, as a plan may take them."""

from typing import NamedTuple

from hwfault.campaigns.hardening.measures import Measure
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.laws.models import FaultModel

CLIPPED = "clipped activation ranges"
ONE_CLIPPED = "clipped activation range of"
"""What candidates of all activations are called, and those of one, whose name follows."""


class Measured(NamedTuple):
    """Measures whose gain was measured in so many paired `trials`, together: what they cost and what harm they leave.

    They take all of their sites, those of `measures` (one each, "none" where memory is left as it is), because what
    they remove there is the harm that a measure of such a site removes, too. `wrong`, `due` and `lost` are at the end
    of the intervals that speaks against them, in the counts of the harm; `left` is the interval of `wrong`. `laws` act
    beside the measures.
    """

    name: str
    trials: int
    measures: tuple[Measure, ...]
    laws: tuple[FaultModel, ...]
    extra_bits: float
    extra_energy: float
    wrong: float
    due: float
    lost: float | None
    left: Estimate
    spoiled: None = None
    """Told of drawn flips alone, whose gains are not measured."""

    @property
    def clips(self) -> str:
        """What is clipped, in words: one activation by its name, several by their number."""
        return self.name if self.name.startswith(ONE_CLIPPED) else f"{CLIPPED} ({len(self.laws)})"


class Considered(NamedTuple):
    """What was tried of measures that single flips do not show: as a candidate, or `why` it is none ("": it is one)."""

    told: str
    question: str
    trials: int
    removed: Estimate
    candidate: Measured | None
    why: str

    def to_data(self) -> dict[str, object]:
        """As JSON tells it."""
        data: dict[str, object] = {"measure": self.told, "question": self.question, "trials": self.trials}
        return data | {"removed": self.removed._asdict(), "considered": self.candidate is not None, "why": self.why}
