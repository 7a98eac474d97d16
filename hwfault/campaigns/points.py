"""The points of a campaign: under which faults trials are run, and the parts of a plan that strike alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from hwfault.campaigns.labels import Label
from hwfault.errors import HwfaultError, ModelError, PlanError, nearest
from hwfault.laws.bound import Bound
from hwfault.laws.files import Files
from hwfault.laws.models import FaultModel, bind, bit_errors
from hwfault.plan.fault_plan import FaultPlan, needs_stream
from hwfault.program.names import fits
from hwfault.program.processes import AnyProcess, SitePlan
from hwfault.program.selectors import names_of
from hwfault.records import Record

Faults = FaultPlan | Sequence[FaultModel]


class Point(Record):
    """The faults of some trials: fault models, or a plan; of these only what strikes one `site`, one `bit`, or both.

    `labels` tell the point from the others of its campaign.
    """

    labels: dict[str, Label] = Field(default_factory=dict)
    ber: float | None = None
    faults: tuple[FaultModel, ...] = ()
    plan: FaultPlan | None = None
    site: str | None = None
    bit: int | None = None

    @classmethod
    def of(cls, faults: Faults, **rest: Any) -> "Point":
        """A point under a plan or fault models."""
        if isinstance(faults, FaultPlan):
            return cls(plan=faults, **rest)
        return cls(faults=tuple(faults), **rest)

    @property
    def told(self) -> dict[str, Label]:
        """What tells the point from the others: its labels, its rate among them."""
        return dict(self.labels) if self.ber is None else {"ber": self.ber, **self.labels}

    @property
    def key(self) -> str:
        """What tells the point from the others, as text."""
        return json.dumps(self.told, sort_keys=True)

    def to_data(self) -> dict[str, Any]:
        """The point as JSON tells it; `parse` reads it back."""
        data = self.model_dump(mode="json", exclude_defaults=True, exclude={"faults", "plan"})
        if self.faults:
            data["faults"] = [fault.to_data() for fault in self.faults]
        if self.plan is not None:
            data["plan"] = json.loads(self.plan.to_json())
        return data

    @property
    def models(self) -> tuple[FaultModel, ...]:
        """The fault models, of a plan those that it was made from."""
        return self.faults if self.plan is None else self.plan.faults

    @property
    def silent(self) -> bool:
        """Whether there are no faults at all."""
        return self.plan is None and not self.faults

    def part(self, plan: FaultPlan) -> FaultPlan:
        """What of a plan the point wants."""
        if self.site is not None:
            plan = only_site(plan, self.site)
        if self.bit is not None:
            plan = only_bit(plan, self.bit)
        return plan


def at_rates(rates: Iterable[float], sites: Any = "*") -> list[Point]:
    """Symmetric bit errors at each rate."""
    return [Point(ber=rate, faults=bit_errors(rate, sites)) for rate in rates]


def at_operating_points(
    lists: Mapping[str, Faults], axis: str, values: Sequence[float], files: Files | None = None
) -> list[Point]:
    """Each list of faults with the axis of its profiles at each of the values, which take the place of one given.

    The profiles are taken as `files` has read them. Raises HwfaultError where no profile of a list has such an axis,
    ModelError for a value outside its range.
    """
    files = files or Files()
    points = []
    for name, faults in lists.items():
        # what a plan was resolved from may be gone: it has no operating point to move
        bound = () if isinstance(faults, FaultPlan) else bind(faults, files)
        _check_axis(name, bound, axis)
        for value in values:
            labels: dict[str, Label] = {"faults": name} if len(lists) > 1 else {}
            labels[axis] = value
            moved = tuple(_move(one, axis, value) for one in bound)
            points.append(Point(labels=labels, faults=moved))
    return points


def _check_axis(name: str, faults: Sequence[Bound[Any]], axis: str) -> None:
    profiles = [one.profile for one in faults if one.profile is not None]
    if not profiles:
        raise HwfaultError(
            f"{name}: has no operating point to sweep; expected the faults of a profile (hwfault profiles list)"
        )
    known: dict[str, None] = {}
    for profile in profiles:
        known.update(dict.fromkeys(profile.rate.names))
    if axis not in known:
        raise HwfaultError(f"{name}: no profile has the axis {axis!r}: {nearest(axis, known)}")


def _move(bound: Bound[Any], axis: str, value: float) -> FaultModel:
    """The fault with its operating point moved along the axis; checked, so that a sweep does not stop half way."""
    fault: FaultModel = bound.fault
    if bound.profile is None or axis not in bound.profile.rate.names:
        return fault
    at = bound.fault.at | {axis: value}
    bound.profile.resolve_rate(at, strict_sources=bound.fault.strict_sources)
    return fault.model_copy(update={"at": at})


def each_site(faults: Faults, plan: FaultPlan, name: str = "*") -> list[Point]:
    """Each site of the faults' plan alone whose name matches a glob; raises ModelError where none does."""
    points = []
    for entry in plan.sites:
        if any(fits(name, known) for known in names_of(entry.site)):
            site = entry.site.name
            points.append(Point.of(faults, labels={"site": site}, site=site))
    if not points:
        raise ModelError(f"the faults strike no site that matches {name!r}: {nearest(name, plan.names)}")
    return points


def each_bit(faults: Faults, plan: FaultPlan) -> list[Point]:
    """Each bit plane of the faults' plan alone, the highest first; raises PlanError if they are not split by bits."""
    planes = range(max((entry.site.bit_width for entry in plan.sites), default=0))
    for bit in planes:
        only_bit(plan, bit)  # which raises now, and not after the trials of some planes
    return [Point.of(faults, labels={"bit": bit}, bit=bit) for bit in reversed(planes)]


def each_bit_of_each_site(faults: Faults, plan: FaultPlan, name: str = "*") -> list[Point]:
    """Each bit plane of each site alone whose name matches a glob; raises what `each_site` and `each_bit` raise."""
    points = []
    for there in each_site(faults, plan, name):
        for plane in each_bit(faults, there.part(plan)):
            labels = there.labels | plane.labels
            points.append(Point.of(faults, labels=labels, site=there.site, bit=plane.bit))
    return points


def only_site(plan: FaultPlan, name: str) -> FaultPlan:
    """The plan at one of its sites, where the faults are the very same; raises PlanError if it has no such site."""
    return _with_sites(plan, (plan.at(name),), plan.tables)


def only_bit(plan: FaultPlan, bit: int) -> FaultPlan:
    """The plan in one bit plane (counted from the lowest, 0), where the faults are the very same.

    Every site stays in it, also those whose words have no such bit. Raises PlanError for faults of which one bit alone
    cannot be told.
    """
    # the other planes keep their place in a process, with a table that draws nothing
    tables = plan.tables
    if (0,) not in tables:
        tables = (*tables, (0,))
    sites = []
    for entry in plan.sites:
        parts = [_only_bit(entry, process, bit, tables) for process in entry.processes]
        left = tuple(part for part in parts if part is not None)
        sites.append(SitePlan(site=entry.site, processes=left))
    return _with_sites(plan, tuple(sites), tables)


def _with_sites(plan: FaultPlan, sites: tuple[SitePlan, ...], tables: tuple[Any, ...]) -> FaultPlan:
    """The plan with some of its sites, or parts of them, in place of all."""
    return FaultPlan(
        faults=plan.faults,
        sites=sites,
        tables=tables,
        device=plan.device,
        factors=plan.factors,
        notes=plan.notes,
        stream=needs_stream(entry.site for entry in sites),
    )


def _only_bit(entry: SitePlan, process: AnyProcess, bit: int, tables: Sequence[Any]) -> AnyProcess | None:
    """The process in one plane; None where nothing of it is left."""
    try:
        if entry.array is not None:
            raise PlanError("elements add up whole words")
        return process.in_plane(bit, tables.index((0,)))
    except PlanError:
        raise PlanError(
            f"fault {process.fault} at {entry.site.name!r} strikes several bits at once, so that one bit plane alone "
            "has no meaning; expected bit errors, words XORed with a mask, clusters along words, or cells of memories"
        ) from None
