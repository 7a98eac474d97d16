"""Selectors: which sites a fault model strikes."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

from pydantic import StrictInt, field_validator

from hwfault.errors import ModelError
from hwfault.profiles.records import Record
from hwfault.stream.tables import check_probability

SiteKind = Literal["activation", "input", "weight", "bias", "accumulator"]
Probability = float | tuple[float, ...]


class SiteLike(Protocol):
    """What a selector looks at."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> SiteKind: ...
    @property
    def layer(self) -> str: ...


AnySite = TypeVar("AnySite", bound=SiteLike)


class Select(Record):
    """Sites whose name matches the glob `name`, of one `kind` and `layer` type (a glob too) where these are given.

    Accumulators are chosen only by their kind, or by a name that ends in "accumulator". Of the sites that match,
    `index` chooses one or several by their place in the network's order: 0 is the first, -1 the last.
    """

    name: str = "*"
    kind: SiteKind | None = None
    layer: str | None = None
    index: StrictInt | tuple[StrictInt, ...] | None = None

    @field_validator("index")
    @classmethod
    def _at_least_one(cls, value: int | tuple[int, ...] | None) -> int | tuple[int, ...] | None:
        if value == ():
            raise ValueError("an empty list selects no site; leave `index` out to select all that match")
        return value

    def places(self, sites: Sequence[SiteLike]) -> list[int]:
        """Where in `sites` those lie that the selector chooses; none where nothing matches.

        Raises ModelError for an index beyond the sites that match.
        """
        found = [place for place, site in enumerate(sites) if self.matches(site)]
        if self.index is None or not found:
            return found
        wanted = self.index if isinstance(self.index, tuple) else (self.index,)
        if beyond := [i for i in wanted if not -len(found) <= i < len(found)]:
            raise ModelError(
                f"the selector {str(self)!r} wants number {beyond[0]} of {len(found)} sites that match, expected an "
                f"index from 0 to {len(found) - 1}, or from -{len(found)} to -1 to count from the end"
            )
        return sorted({found[i] for i in wanted})

    def matches(self, site: SiteLike) -> bool:
        """Whether name, kind and layer of a site are those selected, whatever the index."""
        return (
            fnmatchcase(site.name, self.name)
            and (site.kind == self.kind or (self.kind is None and self._fits_any(site)))
            and (self.layer is None or fnmatchcase(site.layer, self.layer))
        )

    def _fits_any(self, site: SiteLike) -> bool:
        return site.kind != "accumulator" or self.name.endswith("accumulator")

    def __str__(self) -> str:
        given = {"kind": self.kind, "layer": self.layer, "index": self.index}
        return " ".join([self.name, *(f"{key}={value}" for key, value in given.items() if value is not None)])


def chosen(sites: Sequence[AnySite], selectors: Iterable[Select]) -> list[AnySite]:
    """The sites that any of the selectors chooses, in their order; raises ModelError for an index out of range."""
    places = {place for selector in selectors for place in selector.places(sites)}
    return [sites[place] for place in sorted(places)]


class OnSites(Record):
    """A fault model with sites that it strikes; probabilities among its fields are checked."""

    _chooses_by_itself: ClassVar[bool] = False
    """Whether no selector at all has a meaning."""
    _probabilities: ClassVar[tuple[str, ...]] = ("probability", "p01", "p10")
    """The fields that `scaled` scales."""

    sites: tuple[Select, ...] = (Select(),)
    """Where the faults strike: a glob on names, a mapping (name, kind, layer, index), or a list (any may match)."""

    @field_validator("sites", mode="before")
    @classmethod
    def _as_selectors(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        if not items and not cls._chooses_by_itself:
            raise ValueError("an empty list selects no site; leave `sites` out to select all")
        return tuple({"name": item} if isinstance(item, str) else item for item in items)

    @field_validator("probability", "p01", "p10", mode="before", check_fields=False)
    @classmethod
    def _no_yes_or_no(cls, value: Any) -> Any:
        given = list(value) if isinstance(value, list | tuple) else [value]
        if not given or any(isinstance(p, bool) for p in given):
            raise ValueError(f"{value!r} is not a probability, expected a number in [0, 1]")
        return value

    @field_validator("probability", "p01", "p10", check_fields=False)
    @classmethod
    def _in_range(cls, value: Probability | None) -> Probability | None:
        for p in value if isinstance(value, tuple) else () if value is None else (value,):
            check_probability(p)
        return value

    @property
    def scalable(self) -> bool:
        """Whether there is a probability to scale; without one the faults are on or off."""
        return bool(self._rates())

    def scaled(self, factor: float) -> Self:
        """The same faults at `factor` (0 to 1) times their probability; unchanged where they have none."""
        check_probability(factor, "the factor")
        return self.model_copy(update={key: _times(getattr(self, key), factor) for key in self._rates()})

    def _rates(self) -> list[str]:
        """The names of the fields that hold a probability."""
        return [key for key in self._probabilities if getattr(self, key, None) is not None]


def _times(p: Probability, factor: float) -> Probability:
    return tuple(x * factor for x in p) if isinstance(p, tuple) else p * factor
