"""What a fault model is once it was read, and what it becomes: the hands through which every law goes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from hwfault.errors import ModelError
from hwfault.laws.on_sites import OnSites
from hwfault.profiles.profile import Profile
from hwfault.program.processes import AnyProcess, Site
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.tables import Table, encode_table, site_number

Fault = TypeVar("Fault", bound=OnSites)


@dataclass(frozen=True)
class Bound(Generic[Fault]):
    """A fault model with the content of the file that it names: after this nothing is read.

    `selectors` choose its sites: its own, or those of the profile's component. `profile`, `cells` and `digest` (of the
    file) are what was read, `mapping` says how words lie in the memory that is struck. `by_specimen` says whether a
    specimen of hardware is drawn for the fault, so that another one's number gives another plan. Of accumulators
    `declares` says whether it is their format, which a site has once, `width` the bits of that, and `one_register`
    whether all that it strikes are added up in registers of one width.
    """

    fault: Fault
    selectors: tuple[Select, ...]
    profile: Profile | None = None
    cells: FaultMap | None = None
    mapping: AddressMapping | None = None
    digest: str | None = None
    by_specimen: bool = False
    declares: bool = False
    width: int | None = None
    one_register: bool = False

    @property
    def named(self) -> Fault:
        """The fault model as a plan keeps it: with the digest of its file."""
        if self.digest is None:
            return self.fault
        return self.fault.model_copy(update={"digest": self.digest})

    def scaled(self, factor: float) -> Self:
        """The same at `factor` (0 to 1) times its probability."""
        return replace(self, fault=self.fault.scaled(factor))


class CountTables:
    """The count tables of a plan, each of them once; processes name them by their numbers."""

    def __init__(self) -> None:
        self._numbers: dict[Table, int] = {}

    def number(self, probability: float) -> int:
        """The number of a hit probability's table, which is added if it is new; raises ModelError for none."""
        return self._numbers.setdefault(encode_table(probability), len(self._numbers))

    def numbers(self, probabilities: Sequence[float]) -> tuple[int, ...]:
        """The numbers of several."""
        return tuple(self.number(p) for p in probabilities)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of them, by number."""
        return tuple(self._numbers)


class Target(NamedTuple):
    """Where a fault strikes: its `number` in the list of faults, its sites in the network's order, and the `specimen`
    of hardware that it is drawn for, if it is; its count tables go to those of the plan."""

    number: int
    sites: Sequence[Site]
    specimen: int
    tables: CountTables

    def key(self, site: Site) -> dict[str, Any]:
        """By what the draws of a process at a site are its own."""
        return {"fault": self.number, "site_number": site_number(site.name, self.number)}

    @contextmanager
    def errors_at(self, site: Site) -> Iterator[None]:
        """Inside, a ModelError says at which fault and site it came."""
        try:
            yield
        except ModelError as error:
            raise ModelError(f"fault {self.number} at site {site.name!r}: {error}") from None


Event = tuple[int, int, int, int, int, int, int, int]
"""What a faulty element strikes: see "Adding up on an array" of the specification."""


class AccumulationPart(NamedTuple):
    """What one fault says of how a layer is added up; None where it says nothing.

    `mapping` is the array of processing elements, `events` what its faulty ones strike. With `adds_up` false the layer
    need not be added up there: the fault strikes what comes out of it.
    """

    mapping: Any = None
    events: tuple[Event, ...] = ()
    overflow: Literal["wrap", "saturate"] | None = None
    arithmetic: Literal["float32", "float64"] | None = None
    adds_up: bool = True


class Lowered(NamedTuple):
    """What a fault becomes: a process and a part of how a layer is added up, one for each of its sites or none at all.

    `besides` are further processes, several or none for each site, which strike behind the first; the stream draws none
    of them. `notes` are what must be said wherever the plan is used.
    """

    processes: Sequence[AnyProcess] = ()
    besides: Sequence[Sequence[AnyProcess]] = ()
    parts: Sequence[AccumulationPart] = ()
    notes: Sequence[str] = ()

    def processes_at(self, i: int) -> list[AnyProcess]:
        """All processes at site `i` of the target."""
        at = list(self.processes[i : i + 1])
        if self.besides:
            at.extend(self.besides[i])
        return at
