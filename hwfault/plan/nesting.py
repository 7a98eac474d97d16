"""Whether the faults of plans along a sweep are nested: those of a milder one all among those of a harsher one."""

from collections.abc import Sequence
from itertools import pairwise

from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.nesting import why_not_within
from hwfault.program.processes import AnyProcess, SitePlan
from hwfault.program.striking import changes_with


def why_not_nested(plans: Sequence[FaultPlan]) -> str | None:
    """Why a sweep may take faults away, in one sentence; None where it only ever adds some, under every seed.

    `plans` are those of its points, from mild to harsh. Nested are processes of which one alone strikes a site, whose
    hits do the same whatever other hits there are ("Nesting" in docs/fault-stream.md), and that do not change with the
    batch. Where the codes that are stored decide, no other faults may lie in front.
    """
    for plan in plans:
        for entry in plan.sites:
            why = _why_not_at(plan, entry)
            if why is not None:
                return f"{entry.site.name}: {why}"
    for milder, harsher in pairwise(plans):
        for entry in milder.sites:
            why = _why_not_within(milder, entry, harsher)
            if why is not None:
                return f"{entry.site.name}: {why}"
    return None


def _why_not_at(plan: FaultPlan, entry: SitePlan) -> str | None:
    """Why what strikes a site of one plan cannot be nested, whatever strikes it in others."""
    if entry.array is not None and entry.array.events:
        return "sums that pass through more faulty elements change otherwise"
    striking = _striking(plan, entry)
    if len(striking) > 1:
        return f"{len(striking)} processes strike the same words, and one may undo what another does"
    for process in striking:
        if changes_with(process, entry.site) == "batch":
            return "its faults change with the batch, so that an image alone would meet others"
        if entry.site.batched and process.reads_stored(plan.tables) and _strikes_elsewhere(plan, entry):
            return "the code that is stored decides what a hit does, and faults of other sites may change that code"
    return None


def _striking(plan: FaultPlan, entry: SitePlan) -> list[AnyProcess]:
    """The processes that can ever strike."""
    return [process for process in entry.processes if not process.never(plan.tables)]


def _strikes_elsewhere(plan: FaultPlan, entry: SitePlan) -> bool:
    return any(other is not entry and _striking(plan, other) for other in plan.sites)


def _why_not_within(milder: FaultPlan, entry: SitePlan, harsher: FaultPlan) -> str | None:
    other = next((one for one in harsher.sites if one.site.name == entry.site.name), None)
    if entry.array != (None if other is None else other.array):
        return "its sums are added up in another way at a harsher point"
    theirs = [] if other is None else _striking(harsher, other)
    for process in _striking(milder, entry):
        if not theirs:
            return "nothing strikes it at a harsher point"
        why = why_not_within(process, milder.tables, theirs[0], harsher.tables)
        if why is not None:
            return why
    return None
