"""What faults select and is no site: it stays without faults, and that is told."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from hwfault.laws.bound import Bound
from hwfault.notices import tell_once
from hwfault.program.names import first_run
from hwfault.program.processes import Site
from hwfault.program.selectors import Select

_TOLD, _LONGEST = 3, 2000


def selected_obstacles(sites: Sequence[Site], faults: Iterable[Bound[Any]]) -> dict[str, str]:
    """Why some of what the faults select are no sites, by the names that they would have; {} for a plain list.

    Accumulators are among them only where they were asked for.
    """
    obstacles: Mapping[str, str] = getattr(sites, "obstacles", {})
    wanted: list[Select] = []
    for fault in faults:
        wanted.extend(fault.selectors)
    return {name: why for name, why in obstacles.items() if any(selector.could_mean(name) for selector in wanted)}


def describe_obstacles(obstacles: Mapping[str, str]) -> str:
    """The first of some obstacles with their reasons, and how many more there are."""
    told = [f"{name!r} ({why})" for name, why in islice(obstacles.items(), _TOLD)]
    more = len(obstacles) - len(told)
    if more:
        told.append(f"and {more} more, which `hwfault sites` lists")
    return "; ".join(told)


def tell_obstacles(obstacles: Mapping[str, str]) -> tuple[str, ...]:
    """The notes of a plan whose faults select what is no site; the log "hwfault" says once what they leave out.

    Accumulators that were asked for are told in the log alone: an example may show fewer or more of them.
    """
    if obstacles:
        tell_once([_note(obstacles)])
    quantizers = {name: why for name, why in obstacles.items() if not first_run(name).endswith("accumulator")}
    if not quantizers:
        return ()
    return (_note(quantizers),)


def _note(obstacles: Mapping[str, str]) -> str:
    named = describe_obstacles(obstacles)
    text = f"{len(obstacles)} of what the faults select are no sites and stay without faults: {named}"
    if len(text) > _LONGEST:
        return f"{text[: _LONGEST - 4]} ..."  # names of sites may be as long as people like
    return text
