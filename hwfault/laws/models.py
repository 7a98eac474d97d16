"""Fault models: the laws by which bits of a site's words are corrupted, and the selectors that place them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StrictInt, field_validator, model_validator

from hwfault.errors import ModelError
from hwfault.laws.datapath import AccumulatorFormat, BypassedElements, LateBits, StuckElement
from hwfault.profiles.library import is_path, parse_operating_point
from hwfault.profiles.spatial import Spatial
from hwfault.program.selectors import OnSites, Probability, Select
from hwfault.records import Record, read_yaml
from hwfault.stream.mapping import Mapping
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import check_probability, size_table


def per_bit(p: Probability, bit_width: int) -> tuple[float, ...]:
    """One probability for each bit, lowest first; raises ModelError if a list has another length than the word."""
    if not isinstance(p, tuple):
        return (p,) * bit_width
    if len(p) != bit_width:
        raise ModelError(f"{len(p)} probabilities were given for words of {bit_width} bits, expected one for each bit")
    return p


class BitFlips(OnSites):
    """Independent bit errors: `probability` for both directions, or `p01` (0 reads 1) and `p10` (1 reads 0).

    Each is one number for all bits, or a list with one for each bit, lowest first. A direction left out is 0. With
    equal probabilities, or one direction alone, a higher rate only adds faults; with two that differ only hits.
    """

    model: Literal["bit_flips"] = "bit_flips"
    probability: Probability | None = None
    p01: Probability | None = None
    p10: Probability | None = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        directed = self.p01 is not None or self.p10 is not None
        if directed == (self.probability is not None):
            raise ValueError("expected either `probability`, or `p01` and `p10`")
        return self

    def directions(self, bit_width: int) -> list[tuple[float, float]]:
        """(p01, p10) of each bit, lowest first."""
        both = (self.p01, self.p10) if self.probability is None else (self.probability, self.probability)
        p01, p10 = (0.0 if p is None else p for p in both)
        return list(zip(per_bit(p01, bit_width), per_bit(p10, bit_width), strict=True))


class WordFaults(OnSites):
    """Whole words replaced with `probability`: by another code, uniformly ("random"), or XORed with a constant.

    The constant is the lowest bit ("lsb"), the highest ("msb"), all bits ("full"), or an integer mask. A higher rate
    only adds faulty words; under "random" one that was faulty before may hold another code.
    """

    model: Literal["word"] = "word"
    probability: float
    effect: Literal["random", "lsb", "msb", "full"] | StrictInt = "random"

    def mask(self, bit_width: int) -> int | None:
        """The constant for words of `bit_width` bits (None for "random"); raises ModelError if wider than the word."""
        full = (1 << bit_width) - 1
        named = {"random": None, "lsb": 1, "msb": 1 << (bit_width - 1), "full": full}
        if isinstance(self.effect, str):
            return named[self.effect]
        if not 0 < self.effect <= full:
            raise ModelError(
                f"the mask {self.effect:#x} does not fit words of {bit_width} bits, expected 1 to {full:#x}"
            )
        return self.effect


class Clusters(OnSites):
    """Multi-cell upsets: an event with `probability` for each cell flips 1, 2, ... neighbours.

    `sizes` are the probabilities of 1, 2, ... of them. Neighbours lie along the `axis`: "bit" (higher bits of the
    same word) or "word" (the same bit of the next words).
    """

    model: Literal["cluster"] = "cluster"
    probability: Probability
    sizes: tuple[float, ...] = (1.0,)
    axis: Literal["bit", "word"] = "bit"

    @field_validator("sizes")
    @classmethod
    def _sum_to_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        size_table(value)
        return value


class ProfileFaults(OnSites):
    """The faults of a fault profile at an operating point `at` (a value for each axis or free parameter).

    `profile` is the name of one of the library's or a path. `sites` are, unless given, those of the profile's
    component. `mapping`, `spatial` and `protection` take the place of the profile's; `share` (0 to 1) is that of its
    rate. With `strict_sources` what rests on an assumption is refused.
    """

    _chooses_by_itself: ClassVar[bool] = True
    _probabilities: ClassVar[tuple[str, ...]] = ("share",)

    model: Literal["profile"] = "profile"
    profile: str
    at: dict[str, float] = Field(default_factory=dict)
    sites: tuple[Select, ...] = ()
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    spatial: Spatial | None = None
    mapping: Mapping | None = None
    protection: Protection | None = None
    strict_sources: bool = False


class MapFaults(OnSites):
    """The faulty cells of one device, from a fault map's file, laid over the sites (all weights unless given).

    `mapping` says where in the device's memory the words lie (one behind the other in rows as wide as the map's words
    unless given), and `first_row` where the first of them begins. The faults are permanent, or show with probability
    `p_active` in each `refresh` period. A device has its cells: what `scaled` scales is `p_active`.
    """

    _probabilities: ClassVar[tuple[str, ...]] = ("p_active",)

    model: Literal["map"] = "map"
    file: str
    sites: tuple[Select, ...] = (Select(kind="weight"),)
    mapping: Mapping | None = None
    protection: Protection | None = None
    first_row: Annotated[int, Field(ge=0)] = 0
    p_active: float = 1.0
    refresh: Literal["inference", "batch", "epoch", "power_cycle"] = "inference"

    @field_validator("p_active")
    @classmethod
    def _a_probability(cls, value: float) -> float:
        return check_probability(value, "p_active")


FaultModel = Annotated[
    BitFlips
    | WordFaults
    | Clusters
    | ProfileFaults
    | MapFaults
    | AccumulatorFormat
    | StuckElement
    | BypassedElements
    | LateBits,
    Field(discriminator="model"),
]


class FaultList(Record):
    """A YAML file of faults: one key `faults`, a list."""

    faults: tuple[FaultModel, ...]


def load_faults(path: Path | str) -> tuple[FaultModel, ...]:
    """The fault models of a YAML file: its `faults:` list, or the profile that it is.

    Raises FileError or ModelError.
    """
    content = read_yaml(path)
    if isinstance(content, dict) and "schema_version" in content:
        return (ProfileFaults(profile=str(path)),)
    faults = FaultList.parse(content, str(path)).faults
    if not faults:
        raise ModelError(f"{path}: its list of faults is empty, expected at least one fault")
    return faults


def named_faults(text: str) -> tuple[FaultModel, ...]:
    """What `--faults` names: `map:FILE`, a profile (`NAME@axis=value,...`), or a YAML file.

    Raises FileError or ModelError.
    """
    if text.startswith("map:"):
        return (MapFaults(file=text.removeprefix("map:")),)
    name, at = parse_operating_point(text)
    if at or not is_path(name):
        return (ProfileFaults(profile=name, at=at),)
    return load_faults(name)


def bit_errors(rate: float, sites: str | Sequence[Any] = "*") -> tuple[FaultModel, ...]:
    """Symmetric flips at one bit error rate, as a fault list."""
    return (BitFlips(sites=sites, probability=rate),)
