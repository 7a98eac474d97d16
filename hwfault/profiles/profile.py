"""Fault profiles: how one piece of hardware corrupts stored bits, with the source of every number."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from hwfault.errors import ModelError, expect_kind, nearest
from hwfault.profiles.curve import check_names, look_up
from hwfault.profiles.library import profile_path
from hwfault.profiles.numbers import Number
from hwfault.profiles.parts import STATUSES, Component, Effect, Persistence, Source, Status, Technology
from hwfault.profiles.rates import RateCurve
from hwfault.profiles.spatial import BlockColumn, Clusters, Independent, Pattern, ProcessingElements, Spatial
from hwfault.records import Record, read_yaml
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import check_probability

_PARTS = ("effect", "spatial", "persistence", "mapping", "rate")


@dataclass(frozen=True)
class Rate:
    """The rate of a profile at an operating point, in its own quantity, and what it rests on.

    `cells` is the probability that a cell is faulty (an element, for faulty_elements), `flip`, `stuck_at_0` and
    `stuck_at_1` those that it is faulty in this way; `effect` has their shares, in numbers.
    `region` says how it was found: measured, interpolated, clamped, fail-free or free. `upper_bound`: nothing failed at
    a point among the `sources`, which is drawn at 3/N. `status` is the worst of the sources'.
    """

    value: float
    cells: float
    flip: float
    stuck_at_0: float
    stuck_at_1: float
    effect: Effect
    upper_bound: bool
    status: Status
    sources: tuple[str, ...]
    region: str

    @property
    def p01(self) -> float:
        """The probability that a stored 0 reads 1."""
        return self.flip + self.stuck_at_1

    @property
    def p10(self) -> float:
        """The probability that a stored 1 reads 0."""
        return self.flip + self.stuck_at_0


class Profile(Record):
    """One piece of hardware: how often faults occur at which operating point, what they do, where and for how long.

    `fault_models/SCHEMA.md` documents every key. Construction raises ModelError where a rule is broken.
    """

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    technology: Technology = Technology()
    component: Component
    sources: tuple[Source, ...] = ()
    rate: RateCurve
    effect: Effect
    bit_weights: tuple[Number, ...] | None = None
    spatial: Spatial
    persistence: Persistence
    mapping: AddressMapping | None = None
    protection: Protection | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        _check_sources(self)
        _check_parameters(self)
        _check_quantity(self)
        _check_place(self)
        check_pattern(self, self.spatial)
        if self.bit_weights is not None and (min(self.bit_weights, default=-1) < 0 or not any(self.bit_weights)):
            raise ValueError("bit_weights: expected numbers from 0, at least one of them above it")
        return self

    @classmethod
    def load(cls, name: Path | str) -> Self:
        """The library's profile of this name, or that of a YAML file anywhere; raises FileError or ModelError."""
        expect_kind(name, (str, Path), "a profile", "the name of one in the library, or the path of a YAML file")
        path = profile_path(name)
        return cls.parse(read_yaml(path), str(path))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the profile as canonical JSON: every key, sorted, no spaces, numbers as their shortest text."""
        data = self.model_dump(mode="json")
        for key in _NOT_SAID:  # keys that came later leave the digests of profiles without them alone
            if data["spatial"].get(key, key) is None:
                del data["spatial"][key]
        content = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def status(self) -> Status:
        """The worst status of all that the profile names a source for; `assumed` where the user sets the rate."""
        keys: list[str | None] = [point.source for point in self.rate.points]
        keys += [axis.source for axis in self.rate.axes]
        keys += [source for _, source in self._parts()]
        return self._worst(keys, free=bool(self.rate.free))

    @property
    def measured(self) -> bool:
        """Whether every source of the rate's points was measured on real hardware; False for a free rate."""
        if not self.rate.points:
            return False
        measured = {source.key for source in self.sources if source.measured}
        return all(point.source in measured for point in self.rate.points)

    def resolve_rate(self, operating_point: Mapping[str, float], *, strict_sources: bool = False) -> Rate:
        """The rate at an operating point, a value for each axis or free parameter.

        An axis with one measured value may be left out. Raises ModelError for a missing or unknown axis, beyond the
        measured range (with the range), and with `strict_sources` where something used rests on an assumption.
        """
        rate = self._free(operating_point) if self.rate.free else self._measured(operating_point)
        reasons = self.assumptions(rate) if strict_sources else []
        if reasons:
            raise ModelError(
                f"{self.name}: strict sources were asked for, but {'; '.join(reasons)}"
                "\nchoose another profile or operating point, or accept assumptions"
            )
        return rate

    def assumptions(self, rate: Rate) -> list[str]:
        """What the profile assumes, at this rate, in words: nothing where every source used was read or derived."""
        if self.rate.free:
            return [f"the rate is a free parameter ({', '.join(self.rate.free)}) that no source backs"]
        used = [("rate", key) for key in rate.sources] + list(self._parts())
        found = []
        for source in self.sources:
            if source.status != "assumed":
                continue
            parts = list(dict.fromkeys(part for part, key in used if key == source.key))
            if parts:
                found.append(f"{' and '.join(parts)} rest on an assumption ({source.key}: {source.citation})")
        return found

    def _measured(self, at: Mapping[str, float]) -> Rate:
        found = look_up(self.rate, at, self.name)
        cells = self._cells(found.value)
        flip, stuck_at_0, stuck_at_1 = (cells * float(share) for share in self.effect.shares)
        return Rate(
            found.value,
            cells,
            flip,
            stuck_at_0,
            stuck_at_1,
            self.effect,
            upper_bound=found.upper_bound,
            status=self._worst(found.sources),
            sources=found.sources,
            region=found.region,
        )

    def _free(self, at: Mapping[str, float]) -> Rate:
        given = self._parameters(at)
        value = math.fsum(given.values())
        effect = self.effect
        if effect.parameters:
            # each parameter is the probability of one effect, and all together that of a faulty cell
            cells = value
            by_effect = [given[share] if isinstance(share, str) else cells * share for share in effect.shares]
            shares = dict(zip(_EFFECTS, _normalise(by_effect), strict=True))
            effect = effect.model_copy(update=shares)
        else:
            cells = self._cells(value)
            by_effect = [cells * float(share) for share in effect.shares]
        flip, stuck_at_0, stuck_at_1 = by_effect
        return Rate(
            value,
            cells,
            flip,
            stuck_at_0,
            stuck_at_1,
            effect,
            upper_bound=False,
            status="assumed",
            sources=(),
            region="free",
        )

    def _parameters(self, at: Mapping[str, float]) -> dict[str, float]:
        """The free parameters, each in [0, 1] and together too."""
        check_names(at, self.rate, self.name)
        missing = [name for name in self.rate.free if name not in at]
        if missing:
            wanted = ",".join(f"{name}=0.001" for name in self.rate.free)
            raise ModelError(
                f"{self.name}: the free parameter {missing[0]} is not given; write for example {self.name}@{wanted}"
            )
        given = {name: check_probability(float(at[name]), f"{self.name}: {name}") for name in self.rate.free}
        total = math.fsum(given.values())
        if total > 1.0:
            raise ModelError(f"{self.name}: {' + '.join(given)} is {total:g}, expected at most 1 together")
        return given

    def _cells(self, rate: float) -> float:
        """The probability that a cell is faulty: flips count a stuck cell half, an event covers several cells.

        A cell is spared if no event reaches it: (1 - rate)^m for events of m cells in the mean.
        """
        if self.rate.quantity == "events" and isinstance(self.spatial, Clusters):
            if rate == 1.0:
                return 1.0  # whose log1p below there is not
            cells = math.fsum(size * p for size, p in enumerate(self.spatial.sizes, 1))
            return -math.expm1(cells * math.log1p(-rate))
        if self.rate.quantity != "flips":
            return rate
        flip, stuck_at_0, stuck_at_1 = (float(share) for share in self.effect.shares)
        cells = rate / (flip + (stuck_at_0 + stuck_at_1) / 2)
        if cells > 1.0:
            raise ModelError(
                f"{self.name}: for {rate:g} of the bits to read wrong {cells:g} of the cells would have to be faulty, "
                "expected at most 1; stuck cells show half the time"
            )
        return cells

    def _parts(self) -> Iterator[tuple[str, str]]:
        """(part, source) of the parts that name their source."""
        for part in _PARTS:
            key = getattr(getattr(self, part), "source", None)
            if key is not None:
                yield part, key

    def _worst(self, keys: Sequence[str | None], *, free: bool = False) -> Status:
        status = {source.key: source.status for source in self.sources}
        used = [status[key] for key in keys if key is not None]
        if free:
            used.append("assumed")
        return max(used, key=STATUSES.index, default="read")


_NOT_SAID = ("holds_at", "elsewhere")
_EFFECTS = ("flip", "stuck_at_0", "stuck_at_1")


def _normalise(probabilities: Sequence[float]) -> Sequence[float]:
    """The shares of the effects' probabilities; all flip where there are none, as shares must sum to 1."""
    total = math.fsum(probabilities)
    if not total:
        return [1.0, 0.0, 0.0]
    return [p / total for p in probabilities]


def _check_sources(profile: Profile) -> None:
    keys = [source.key for source in profile.sources]
    if profile.rate.points and not keys:
        raise ValueError("sources: none is given, expected the source of the measured points")
    for i, key in enumerate(keys):
        if key in keys[:i]:
            raise ValueError(f"sources: the key {key!r} is given twice")
    named = [(f"rate.points.{i}", point.source) for i, point in enumerate(profile.rate.points)]
    for i, axis in enumerate(profile.rate.axes):
        if axis.source is not None:
            named.append((f"rate.axes.{i}", axis.source))
    named.extend(profile._parts())
    for place, key in named:
        if key not in keys:
            raise ValueError(f"{place}: {key!r} is not among the sources: {nearest(key, keys)}")


def _check_parameters(profile: Profile) -> None:
    free = profile.rate.free
    named = profile.effect.parameters
    for name in named:
        if name not in free:
            raise ValueError(f"effect: {name!r} is not a free parameter of the rate: {nearest(name, free)}")
    if named and (sorted(named) != sorted(free) or profile.rate.quantity != "faulty_cells"):
        raise ValueError(
            "effect: where free parameters stand for the shares, each of them stands once, and the rate's quantity is "
            "faulty_cells"
        )
    if len(free) > 1 and not named:
        raise ValueError(f"rate.free: {len(free)} parameters, expected one, or names of them as shares of the effect")


def _check_quantity(profile: Profile) -> None:
    quantity = profile.rate.quantity
    spatial = profile.spatial
    if (quantity == "faulty_elements") != isinstance(spatial, ProcessingElements):
        raise ValueError(
            f"rate.quantity {quantity} with spatial {spatial.kind}: faulty_elements and processing_elements go together"
        )
    if quantity == "events" and not isinstance(spatial, Clusters):
        raise ValueError(f"rate.quantity events goes with spatial clusters, not with {spatial.kind}")


def _check_place(profile: Profile) -> None:
    spatial = profile.spatial
    mapping = profile.mapping
    if not isinstance(spatial, Independent | Clusters) and mapping is None:
        raise ValueError(f"mapping: missing; a spatial pattern of {spatial.kind} lies in a memory or array")
    if isinstance(spatial, ProcessingElements) and mapping is not None:
        found = mapping.elements
        if found != (spatial.rows, spatial.columns):
            size = "a plain memory" if found is None else f"{found[0]} x {found[1]}"
            raise ValueError(
                f"mapping: {mapping.kind} has {size}, spatial has {spatial.rows} x {spatial.columns} processing "
                "elements; expected an array of the same size"
            )


def check_pattern(profile: Profile, spatial: Spatial) -> None:
    """Raises ModelError (a ValueError) where a pattern names an operating point that the profile does not have."""
    if not isinstance(spatial, Pattern) or not isinstance(spatial.holds_at, dict):
        return
    places = [("holds_at", spatial.holds_at)]
    if isinstance(spatial, BlockColumn):
        places += [(f"elsewhere.{i}.at", one.at) for i, one in enumerate(spatial.elsewhere or ())]
    names = profile.rate.names
    for key, at in places:
        for name in at:
            if name not in names:
                raise ModelError(f"spatial.{key}: unknown axis {name!r}: {nearest(name, names)}")
        if profile.rate.free:
            continue
        if key == "holds_at":
            # other axes may be left out, as a pattern need not depend on each of them
            at = dict(profile.rate.points[0].at) | at
        elif at == spatial.holds_at:
            raise ModelError(f"spatial.{key}: the pattern holds there (holds_at), expected another operating point")
        try:
            look_up(profile.rate, at, profile.name)
        except ModelError as error:
            raise ModelError(f"spatial.{key}: {error}") from None
