"""Whether a process is nested: what it strikes at a milder point it strikes at a harsher one, too, and in the same way.

See "Nesting" in docs/fault-stream.md. What is not known to be nested is not.
"""

from itertools import zip_longest

import numpy as np

from hwfault.program.mapped import MapProcess
from hwfault.program.processes import AnyProcess
from hwfault.program.streamed import Process
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.tables import ACCEPT_ALL, Table

_NEVER, _EVERY = (0,), (-1,)
_OF_A_HIT = ("axis", "sizes", "mask", "code", "elements")
"""What a hit does; the same at all points."""

Tables = tuple[Table, ...]


def why_not_within(milder: AnyProcess, tables: Tables, harsher: AnyProcess, harsher_tables: Tables) -> str | None:
    """Why some faults of a process are none of the harsher one's under the same seed; None where they all are.

    Both are drawn with the tables of their plans. Where the codes that are stored decide, it holds for equal ones.
    """
    if milder.mechanism == "protected" or harsher.mechanism == "protected":
        return "the decoder of a protected memory may take three errors for one and correct it"
    if _draw_of(milder) != _draw_of(harsher):
        return "another process strikes there at a harsher point"
    if isinstance(milder, Process) and isinstance(harsher, Process):
        return _why_not_drawn(milder, tables, harsher, harsher_tables)
    if milder == harsher:
        return None
    if isinstance(milder, MapProcess) and isinstance(harsher, MapProcess):
        return _why_not_cells(milder, harsher)
    return "cells of single samples change along the sweep"


def _draw_of(process: AnyProcess) -> tuple[str, int, str]:
    """By what two processes draw the same numbers and read the same bits."""
    return process.kind, process.site_number, process.stored_as


def _why_not_drawn(milder: Process, tables: Tables, harsher: Process, harsher_tables: Tables) -> str | None:
    if milder.row.leads_back:
        return "of several hits on a word the last one stands, and makes another code of it"
    if any(getattr(milder, name) != getattr(harsher, name) for name in _OF_A_HIT):
        return "a hit does something else at a harsher point"
    few = [tables[i] for i in milder.tables]
    many = [harsher_tables[i] for i in harsher.tables]
    if not all(map(_are_hits_within, few, many)):
        return "its rate falls along the sweep"
    accepts = zip(milder.accept01, milder.accept10, harsher.accept01, harsher.accept10, strict=True)
    for some, all_of_them, (zeros, ones, more_zeros, more_ones) in zip(few, many, accepts, strict=False):
        renumbered = all_of_them == _EVERY
        taken = _is_taken(zeros, more_zeros, renumbered) and _is_taken(ones, more_ones, renumbered)
        if some != _NEVER and not taken:
            return "p01 and p10 differ and are both above 0, so that which hits are taken changes with the rate"
    return None


def _are_hits_within(few: Table, many: Table) -> bool:
    """Whether whatever the count word, the hits by one count table are a prefix of those by another."""
    if few == _NEVER or many == _EVERY:
        return True
    if many == _NEVER or few == _EVERY:
        return False
    # as many hits as thresholds that the count word has reached: a threshold that is lower, or one more, is a hit more
    beyond = 1 << 32
    return all(more <= less for less, more in zip_longest(few[1:], many[1:], fillvalue=beyond))


def _is_taken(accept: int, harsher: int, renumbered: bool) -> bool:
    """Whether a hit that is taken in one direction is taken at a harsher point, too.

    Where every cell is hit the hits have other numbers, so that all of them must be taken.
    """
    if renumbered and accept > 0:
        return harsher == ACCEPT_ALL
    return accept <= harsher


def _why_not_cells(milder: MapProcess, harsher: MapProcess) -> str | None:
    if not (milder.permanent and harsher.permanent):
        return "its faulty cells come and go"
    if not np.isin(_cells(milder.map), _cells(harsher.map)).all():
        return "some of its faulty cells are not faulty, or do something else, at a harsher point"
    return None


def _cells(rows: FaultMap) -> np.ndarray:
    """A number for each faulty cell and what it does."""
    word, bit, kind = rows.cells()
    numbers: np.ndarray = (word.astype(np.int64) * 32 + bit) * 4 + kind
    return numbers
