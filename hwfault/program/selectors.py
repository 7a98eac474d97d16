"""Selectors: which sites a fault model strikes."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal, Protocol, TypeVar

from pydantic import StrictInt, field_validator

from hwfault.errors import ModelError
from hwfault.program.names import first_run, fits
from hwfault.records import Record

SiteKind = Literal["activation", "input", "weight", "bias", "accumulator"]

_KINDS: dict[str, SiteKind] = {
    **{"weight_quant": "weight", "bias_quant": "bias", "input_quant": "input"},
    **{"act_quant": "activation", "output_quant": "activation", "trunc_quant": "activation"},
}
"""What Brevitas' names of quantizers say of their kind."""


class SiteLike(Protocol):
    """What a selector looks at."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> SiteKind: ...
    @property
    def layer(self) -> str: ...


AnySite = TypeVar("AnySite", bound=SiteLike)


def names_of(site: SiteLike) -> tuple[str, ...]:
    """A site's own name, and its aliases: those under which the same memory is read as well."""
    return (site.name, *(getattr(site, "aliases", None) or ()))


def names_accumulators(glob: str) -> bool:
    """Whether a glob on names speaks of accumulators: all runs of one, or a single one."""
    return first_run(glob).rstrip("*").endswith("accumulator")


class Select(Record):
    """Sites whose name matches the glob `name`, of one `kind` and `layer` type (a glob too) where these are given.

    A name without wildcards chooses one run of a quantizer or layer (`q`, or `q#1`), all else chooses every run; the
    aliases of a site are as good as its name. Accumulators are chosen only by their kind, or by a name that ends in
    "accumulator". Of what matches, `index` chooses one or several by their place in the network's order: 0 is the
    first, -1 the last, and the runs of one quantizer or layer have one place together.
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
        # runs are together one, so that an index means the same with an example, which shows them, and without one
        together: dict[str, list[int]] = {}
        for place in found:
            together.setdefault(first_run(sites[place].name), []).append(place)
        groups = list(together.values())
        wanted = self.index if isinstance(self.index, tuple) else (self.index,)
        if beyond := [i for i in wanted if not -len(groups) <= i < len(groups)]:
            raise ModelError(
                f"the selector {str(self)!r} wants number {beyond[0]} of {len(groups)} sites that match, expected an "
                f"index from 0 to {len(groups) - 1}, or from -{len(groups)} to -1 to count from the end"
            )
        return sorted({place for i in wanted for place in groups[i]})

    def matches(self, site: SiteLike) -> bool:
        """Whether name, kind and layer of a site are those selected, whatever the index."""
        return (
            any(fits(self.name, name) for name in names_of(site))
            and (site.kind == self.kind or (self.kind is None and self._fits_any(site)))
            and (self.layer is None or fnmatchcase(site.layer, self.layer))
        )

    def could_mean(self, obstacle: str) -> bool:
        """Whether the selector would choose something that is no site, by the name that it would have.

        Only the name tells what that is. Where it does not say the kind it may be any but an accumulator, and the layer
        may be any, too.
        """
        if not fits(self.name, obstacle):
            return False
        obstacle = first_run(obstacle)
        if obstacle.endswith("accumulator"):
            return self.kind == "accumulator" or (self.kind is None and names_accumulators(self.name))
        kind = _KINDS.get(obstacle.rpartition(".")[2])
        return self.kind in (None, kind) or (kind is None and self.kind != "accumulator")

    def _fits_any(self, site: SiteLike) -> bool:
        return site.kind != "accumulator" or names_accumulators(self.name)

    def __str__(self) -> str:
        given = {"kind": self.kind, "layer": self.layer, "index": self.index}
        return " ".join([self.name, *(f"{key}={value}" for key, value in given.items() if value is not None)])


GivenSites = str | Select | tuple[str | Select, ...]
"""Sites as a file may name them: a glob on names, a selector, or a list of both."""


def chosen(sites: Sequence[AnySite], selectors: Iterable[Select]) -> list[AnySite]:
    """The sites that any of the selectors chooses, in their order; raises ModelError for an index out of range."""
    places = {place for selector in selectors for place in selector.places(sites)}
    return [sites[place] for place in sorted(places)]
