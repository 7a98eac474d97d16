"""Which sites a fault strikes, and what is to be said where it selects none."""

from collections.abc import Sequence
from typing import Any

from hwfault.errors import ModelError, nearest
from hwfault.laws.bound import Bound
from hwfault.program.names import fits
from hwfault.program.processes import Site
from hwfault.program.selectors import Select, names_accumulators


def places_of(bound: Bound[Any], sites: Sequence[Site]) -> list[int]:
    """Where in the list the sites lie that a fault strikes, ascending.

    Raises ModelError where none does, for each selector that the fault itself has, and for an index out of range.
    """
    found: set[int] = set()
    for selector in bound.selectors:
        places = selector.places(sites)
        # a profile's component may have several kinds of sites, of which a network need not have each
        if not places and (bound.fault.sites or bound.profile is None):
            raise ModelError(f"no site matches the selector {str(selector)!r}: {_why_none(sites, selector)}")
        found.update(places)
    if not found:
        wanted = ", ".join(repr(str(selector)) for selector in bound.selectors)
        raise ModelError(f"no site matches any of {wanted}, which the profile strikes")
    return sorted(found)


def _why_none(sites: Sequence[Site], selector: Select) -> str:
    """What a selector that matches nothing may have meant."""
    obstacles = getattr(sites, "obstacles", {})
    if none := [f"{name}: {text}" for name, text in obstacles.items() if selector.could_mean(name)]:
        return "; ".join(none)
    accumulators = [site.name for site in sites if site.kind == "accumulator"]
    meant = selector.kind == "accumulator" or names_accumulators(selector.name)
    if not meant or any(fits(selector.name, name) for name in accumulators):
        return nearest(selector.name, [site.name for site in sites])
    if accumulators:
        return nearest(selector.name, accumulators)
    return (
        "accumulators are known once an example batch has run; list the sites with one, "
        "as resolve(sites(model, example), faults) does"
    )
