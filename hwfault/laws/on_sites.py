"""What every fault model has: sites that it strikes, probabilities that can be scaled, words for people."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator

from hwfault.errors import ModelError
from hwfault.laws.files import Files, NamedFile
from hwfault.program.selectors import GivenSites, Select
from hwfault.records import Record
from hwfault.stream.mapping import Mapping as AddressMapping
from hwfault.stream.tables import check_probability

Probability = float | tuple[float, ...]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""The SHA-256 of a file's content, in hexadecimal."""


class OnSites(Record):
    """A fault model with sites that it strikes; probabilities among its fields are checked."""

    _chooses_by_itself: ClassVar[bool] = False
    """Whether no selector at all has a meaning."""
    _probabilities: ClassVar[tuple[str, ...]] = ("probability", "p01", "p10")
    """The fields that `scaled` scales."""
    _unsaid: ClassVar[frozenset[str]] = frozenset({"sites", "model", "digest"})
    """The fields that `describe` does not list with the others."""
    drawn: ClassVar[bool] = True
    """Whether chance has a part in the faults, so that they can be drawn anew."""
    named_on_command_line: ClassVar[bool] = False
    """Whether a command can name it without a file of YAML, and so chooses its sites, too."""

    sites: tuple[Select, ...] = (Select(),)
    """Where the faults strike: a glob on names, a mapping (name, kind, layer, index), or a list (any may match)."""

    @field_validator("sites", mode="before", json_schema_input_type=GivenSites)
    @classmethod
    def _as_selectors(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        if not items and not cls._chooses_by_itself:
            raise ValueError("an empty list selects no site; leave `sites` out to select all")
        selectors = []
        for item in items:
            if isinstance(item, str):
                item = {"name": item}
            selectors.append(item)
        return tuple(selectors)

    @field_validator("probability", "p01", "p10", mode="before", check_fields=False)
    @classmethod
    def _no_yes_or_no(cls, value: Any) -> Any:
        # before the conversion to float, which would take True for 1
        given = list(value) if isinstance(value, list | tuple) else [value]
        if not given or any(isinstance(p, bool) for p in given):
            raise ValueError(f"{value!r} is not a probability, expected a number in [0, 1]")
        return value

    @field_validator("probability", "p01", "p10", check_fields=False)
    @classmethod
    def _in_range(cls, value: Probability | None) -> Probability | None:
        for p in value if isinstance(value, tuple) else (value,):
            if p is not None:
                check_probability(p)
        return value

    @property
    def scalable(self) -> bool:
        """Whether there is a probability to scale; without one the faults are on or off."""
        return bool(self._rates())

    def scaled(self, factor: float) -> Self:
        """The same faults at `factor` (0 to 1) times their probability; unchanged where they have none."""
        check_probability(factor, "the factor")
        less = {}
        for key in self._rates():
            less[key] = _times(getattr(self, key), factor)
        return self.model_copy(update=less)

    @property
    def by_specimen(self) -> bool:
        """Whether the faults are drawn once for a specimen of hardware, as far as the record alone can tell."""
        return False

    @property
    def profile_name(self) -> str | None:
        """The profile that the fault is one of, its name or path; None where it is one of none."""
        return None

    def describe(self) -> str:
        """The fault in one line for people: its model, what was given, and where it strikes."""
        given = self.model_dump(exclude=set(self._unsaid), exclude_none=True)
        told = " ".join(_told(key, value) for key, value in given.items())
        where = ", ".join(map(str, self.sites)) or "the sites of its component"
        return f"{type(self).model_fields['model'].default} {told} on {where}"

    def to_data(self) -> dict[str, Any]:
        """The fault as it stands in YAML: its model, and what is not as it would be anyhow."""
        model = type(self).model_fields["model"].default
        data = self.model_dump(mode="json", exclude_defaults=True)
        for key in data:
            # of several records that may stand there the kind says which it is, though it is that one's default
            kind = getattr(getattr(self, key), "kind", None)
            if isinstance(data[key], dict) and kind is not None:
                data[key] = {"kind": kind, **data[key]}
        return {"model": model, **data}

    def taken_out(self) -> "OnSites | None":
        """The fault with the faulty hardware taken out of use; None where it has no such part."""
        return None

    def named_file(self) -> NamedFile | None:
        """The file that the fault's cells or numbers come from; None where it has them all itself."""
        return None

    def address_mapping(self, files: Files) -> AddressMapping | None:
        """How words lie in the memory that it strikes; None where no memory is meant.

        Reads a file only where the fault itself does not say it; raises FileError or ModelError as that does.
        """
        return None

    def address_note(self) -> str:
        """What is to be said behind each address of its memory."""
        return ""

    def _rates(self) -> list[str]:
        """The names of the fields that hold a probability."""
        return [key for key in self._probabilities if getattr(self, key, None) is not None]


def _times(p: Probability, factor: float) -> Probability:
    if isinstance(p, tuple):
        return tuple(x * factor for x in p)
    return p * factor


def per_bit(p: Probability, bit_width: int) -> tuple[float, ...]:
    """One probability for each bit, lowest first; raises ModelError if a list has another length than the word."""
    if not isinstance(p, tuple):
        return (p,) * bit_width
    if len(p) != bit_width:
        raise ModelError(f"{len(p)} probabilities were given for words of {bit_width} bits, expected one for each bit")
    return p


def _told(key: str, value: Any) -> str:
    """A field in words; of one that holds several, such as an operating point, each by its own name."""
    if not isinstance(value, Mapping):
        return f"{key}={value}"
    inner = ", ".join(f"{name} {one}" for name, one in value.items())
    return inner if key == "at" else f"{key}=({inner})"
