"""What faults select and is no site: it stays without faults, and that is told."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwfault.laws.bound import Bound
from hwfault.notices import tell_once
from hwfault.program.names import first_run
from hwfault.program.processes import Site

_TOLD, _LONGEST = 3, 2000


def selected_obstacles(sites: Sequence[Site], faults: Iterable[Bound[Any]]) -> dict[str, str]:
    """Why some of what the faults select are no sites, by the names that they would have; {} for a plain list.

    Accumulators are among them only where they were asked for.
    """
    obstacles: Mapping[str, str] = getattr(sites, "obstacles", {})
    wanted = [selector for fault in faults for selector in fault.selectors]
    return {name: why for name, why in obstacles.items() if any(s.could_mean(name) for s in wanted)}


def describe_obstacles(obstacles: Mapping[str, str]) -> str:
    """The first of some obstacles with their reasons, and how many more there are."""
    first = [f"{name!r} ({why})" for name, why in list(obstacles.items())[:_TOLD]]
    more = len(obstacles) - len(first)
    return "; ".join(first) + (f"; and {more} more, which `hwfault sites` lists" if more else "")


def tell_obstacles(obstacles: Mapping[str, str]) -> tuple[str, ...]:
    """The notes of a plan whose faults select what is no site; the log "hwfault" says once what they leave out.

    Accumulators that were asked for are told in the log alone: an example may show fewer or more of them.
    """
    if obstacles:
        tell_once([_note(obstacles)])
    quantizers = {name: why for name, why in obstacles.items() if not first_run(name).endswith("accumulator")}
    return (_note(quantizers),) if quantizers else ()


def _note(obstacles: Mapping[str, str]) -> str:
    named = describe_obstacles(obstacles)
    text = f"{len(obstacles)} of what the faults select are no sites and stay without faults: {named}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
