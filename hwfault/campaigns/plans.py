"""The plans of a campaign's points: resolved once, and anew for each seed where it has a specimen of its own."""

from collections.abc import Callable, Sequence

from hwfault.campaigns.points import Point
from hwfault.campaigns.same import varies
from hwfault.laws.files import Files
from hwfault.laws.models import bind
from hwfault.laws.profile import differs_by_specimen
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site

_KEPT_PLANS = 32


class Plans:
    """Resolves points against sites; faults that belong to a device are those of `device`, or None: the seed's number.

    The profiles and maps that faults name are read once, or taken as `files` has read them.
    """

    def __init__(
        self, sites: Callable[[], Sequence[Site]], device: int | None = None, files: Files | None = None
    ) -> None:
        self._sites = sites  # asked for only where a point has no plan of its own
        self.device = device
        self.files = Files() if files is None else files
        self._plans: dict[tuple[str, int], FaultPlan] = {}
        self._part: tuple[tuple[str, str | None, int | None], FaultPlan] | None = None

    def of(self, point: Point, seed: int = 0) -> FaultPlan:
        """The plan of a point under a seed; raises what resolving its faults raises."""
        whole = self.whole(point, seed)
        if point.site is None and point.bit is None:
            return whole
        # a part is taken once for all seeds that have the same plan, of which the last is kept
        key = whole.digest, point.site, point.bit
        if self._part is None or self._part[0] != key:
            self._part = key, point.part(whole)
        return self._part[1]

    def whole(self, point: Point, seed: int = 0) -> FaultPlan:
        """The plan of all faults of a point, also where it wants a part of them."""
        if point.plan is not None:
            return point.plan
        if point.silent:
            return resolve((), ())
        number = seed if self.by_seed(point) else self.device or 0
        # points of one campaign may be parts of the same faults: their plan is resolved once
        key = "".join(fault.model_dump_json() for fault in point.faults), number
        if key not in self._plans:
            if len(self._plans) >= _KEPT_PLANS:
                oldest = next(iter(self._plans))
                del self._plans[oldest]
            self._plans[key] = resolve(self._sites(), point.faults, device=number, files=self.files)
        return self._plans[key]

    def by_seed(self, point: Point) -> bool:
        """Whether each seed has a specimen of its own, and so another plan."""
        return self.device is None and any(one.by_specimen for one in bind(point.faults, self.files))

    def same(self, point: Point, seed: int) -> bool:
        """Whether every seed has the same faults under a point."""
        if point.silent:
            return True
        if self.device is None and any(map(differs_by_specimen, bind(point.faults, self.files))):
            return False
        return not varies(self.of(point, seed))
