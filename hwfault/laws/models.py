"""The fault models: one union of their records, and one table of what stands behind each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from hwfault.errors import ModelError
from hwfault.laws import (
    accumulator,
    bit_flips,
    bypassed,
    cells,
    clipped,
    cluster,
    late,
    profile,
    stuck_element,
    word,
)
from hwfault.laws import map as map_
from hwfault.laws.accumulator import AccumulatorFormat
from hwfault.laws.bit_flips import BitFlips
from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.bypassed import BypassedElements
from hwfault.laws.cells import CellFaults
from hwfault.laws.clipped import ClippedRange
from hwfault.laws.cluster import Clusters
from hwfault.laws.files import Files, changed_sentence
from hwfault.laws.late import LateBits
from hwfault.laws.map import MapFaults
from hwfault.laws.on_sites import OnSites
from hwfault.laws.profile import ProfileFaults
from hwfault.laws.stuck_element import StuckElement
from hwfault.laws.word import WordFaults
from hwfault.notices import tell_once
from hwfault.profiles.library import is_path, parse_operating_point
from hwfault.records import Record

__all__ = [
    "LAWS",
    "AccumulatorFormat",
    "BitFlips",
    "BypassedElements",
    "CellFaults",
    "ClippedRange",
    "Clusters",
    "FaultList",
    "FaultModel",
    "LateBits",
    "Law",
    "MapFaults",
    "ProfileFaults",
    "StuckElement",
    "WordFaults",
    "bind",
    "bit_errors",
    "is_fault",
    "load_faults",
    "lower",
    "named_faults",
]

FaultModel = Annotated[
    BitFlips
    | WordFaults
    | Clusters
    | ProfileFaults
    | MapFaults
    | CellFaults
    | AccumulatorFormat
    | StuckElement
    | BypassedElements
    | LateBits
    | ClippedRange,
    Field(discriminator="model"),
]


def _bind_alone(fault: Any, files: Files) -> Bound[Any]:
    """A fault that names no file."""
    return Bound(fault, fault.sites, by_specimen=fault.by_specimen)


class Law(NamedTuple):
    """What stands behind one fault model.

    `lower` makes processes of it, `bind` reads what it names, `example` is how it is written in a file of faults.
    """

    record: type[OnSites]
    lower: Callable[[Bound[Any], Target], Lowered]
    example: str
    bind: Callable[[Any, Files], Bound[Any]] = _bind_alone

    @property
    def help(self) -> str:
        """What the faults are, in one sentence."""
        return " ".join((self.record.__doc__ or "").partition("\n\n")[0].split())


LAWS: Mapping[str, Law] = {
    "bit_flips": Law(BitFlips, bit_flips.lower, bit_flips.EXAMPLE),
    "word": Law(WordFaults, word.lower, word.EXAMPLE),
    "cluster": Law(Clusters, cluster.lower, cluster.EXAMPLE),
    "profile": Law(ProfileFaults, profile.lower, profile.EXAMPLE, profile.bind),
    "map": Law(MapFaults, map_.lower, map_.EXAMPLE, map_.bind),
    "cells": Law(CellFaults, cells.lower, cells.EXAMPLE, cells.bind),
    "accumulator": Law(AccumulatorFormat, accumulator.lower, accumulator.EXAMPLE, accumulator.bind),
    "stuck_element": Law(StuckElement, stuck_element.lower, stuck_element.EXAMPLE),
    "bypassed": Law(BypassedElements, bypassed.lower, bypassed.EXAMPLE),
    "late_bits": Law(LateBits, late.lower, late.EXAMPLE),
    "clipped": Law(ClippedRange, clipped.lower, clipped.EXAMPLE),
}
"""Every law by the name of its fault model."""


def bind(faults: Iterable[FaultModel], files: Files | None = None) -> tuple[Bound[Any], ...]:
    """The faults with the contents of the files that they name, each of which is read once.

    A fault that says of which content a plan was made of it, where the file has another by now, is told in the log.
    Raises FileError or ModelError for a file that is none of what was expected.
    """
    files = Files() if files is None else files
    bound = tuple(LAWS[fault.model].bind(fault, files) for fault in faults)
    for one in bound:
        named = one.fault.named_file()
        if named is not None and named.digest not in (None, one.digest):
            tell_once([changed_sentence(named, one.digest) + "; its faults are those of the file as it is"])
    return bound


def lower(bound: Bound[Any], target: Target) -> Lowered:
    """What a fault becomes at its sites; raises ModelError or PlanError where it cannot be had there."""
    return LAWS[bound.fault.model].lower(bound, target)


def is_fault(value: object) -> bool:
    """Whether something is the record of a fault model."""
    return isinstance(value, OnSites)


class FaultList(Record):
    """A YAML file of faults: one key `faults`, a list."""

    faults: tuple[FaultModel, ...]


def load_faults(path: Path | str, files: Files | None = None) -> tuple[FaultModel, ...]:
    """The fault models of a YAML file: its `faults:` list, or the profile that it is.

    Raises FileError or ModelError.
    """
    content, _ = (Files() if files is None else files).yaml(path)
    if isinstance(content, dict) and "schema_version" in content:
        return (ProfileFaults(profile=str(path)),)
    faults = FaultList.parse(content, str(path)).faults
    if not faults:
        raise ModelError(f"{path}: its list of faults is empty, expected at least one fault")
    return faults


def named_faults(text: str, files: Files | None = None) -> tuple[FaultModel, ...]:
    """What `--faults` names: `map:FILE`, `cells:FILE`, a profile (`NAME@axis=value,...`), or a YAML file.

    Raises FileError or ModelError.
    """
    if text.startswith("map:"):
        return (MapFaults(file=text.removeprefix("map:")),)
    if text.startswith("cells:"):
        return (CellFaults(file=text.removeprefix("cells:")),)
    name, at = parse_operating_point(text)
    if at or not is_path(name):
        return (ProfileFaults(profile=name, at=at),)
    return load_faults(name, files)


def bit_errors(rate: float, sites: str | Sequence[Any] = "*") -> tuple[FaultModel, ...]:
    """Symmetric flips at one bit error rate, as a fault list."""
    return (BitFlips(sites=sites, probability=rate),)
