"""The options that name faults, the same on every command."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from hwfault.laws.models import FaultModel, MapFaults, ProfileFaults, bit_errors, named_faults
from hwfault.program.selectors import Select


@dataclass(frozen=True)
class Given:
    """What --faults, --ber, --select, --device and --strict-sources say."""

    named: Mapping[str, str]
    """What --faults names, each by a name of its own."""
    ber: float | None
    select: str | None
    device: int | None
    strict_sources: bool

    @property
    def anything(self) -> bool:
        """Whether any faults were named."""
        return bool(self.named) or self.ber is not None

    @property
    def faults(self) -> tuple[FaultModel, ...]:
        """The faults that the options name; empty if none does."""
        return next(iter(self.lists.values()), ())

    @property
    def lists(self) -> dict[str, tuple[FaultModel, ...]]:
        """Each list of faults that the options name, by a name of its own; none if no option does."""
        if self.named and self.ber is not None:
            raise click.UsageError("--faults and --ber were both given, expected one of them")
        self.check_strict()
        if self.named:
            return {name: tuple(map(self._completed, named_faults(spec))) for name, spec in self.named.items()}
        if self.ber is None and self.select is not None:
            raise click.UsageError("--select goes with --ber, or with a profile or map in --faults")
        return {} if self.ber is None else {f"BER {self.ber:g}": bit_errors(self.ber, self.selected)}

    @property
    def selected(self) -> str:
        """The glob of --select; all sites without it."""
        return "*" if self.select is None else self.select

    def check_strict(self) -> None:
        """Raises UsageError where --strict-sources would say nothing."""
        if self.strict_sources and not self.named:
            raise click.UsageError("--strict-sources goes with the profiles of --faults")

    def _completed(self, fault: FaultModel) -> FaultModel:
        listed = "; in a YAML file each fault has its `sites:`"
        if self.select is not None and not isinstance(fault, ProfileFaults | MapFaults):
            raise click.UsageError(f"--select goes with --ber, or with a profile or map in --faults{listed}")
        chosen = {} if self.select is None else {"sites": (Select(name=self.select),)}
        strict = {"strict_sources": True} if self.strict_sources and isinstance(fault, ProfileFaults) else {}
        return fault.model_copy(update=chosen | strict)


_NAMED = re.compile(r"([^=@:/\\]+)=(.+)")


def by_name(given: Sequence[str], option: str) -> dict[str, str]:
    """What `NAME=SPEC` names, by name, a SPEC without one by itself; raises UsageError for a name given twice."""
    found: dict[str, str] = {}
    for text in given:
        named = _NAMED.fullmatch(text)
        name, spec = (named[1], named[2]) if named else (text, text)
        if name in found:
            raise click.UsageError(f"{option}: {name!r} is given twice, expected a name of its own for each: NAME=...")
        found[name] = spec
    return found


_FAULTS = "A profile at an operating point (NAME@axis=value,...), a device's map (map:FILE), or a YAML file."
_ONE = click.option("--faults", "named", help=_FAULTS)
_MANY = click.option("--faults", "named", multiple=True, help=f"{_FAULTS} Several are compared; LABEL=... names one.")
_OPTIONS = (
    click.option("--ber", type=float, help="Symmetric bit errors with this probability (0.03 is 3 %)."),
    click.option("--select", help="With --ber, a profile or a map: the sites it strikes, a glob on names."),
    click.option(
        "--device",
        type=click.IntRange(min=0, max=(1 << 64) - 1),
        help="The device whose permanent faults strike.  [default: the seed's number; 0 for a graph]",
    ),
    click.option("--strict-sources", is_flag=True, help="Refuse profiles that rest on an assumption."),
)


def fault_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that name faults; the command is called with them as one argument `given`."""
    return _with(command, _ONE)


def many_fault_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that takes several lists of faults, each --faults one of them."""
    return _with(command, _MANY)


def _with(command: Callable[..., Any], named_option: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def with_given(
        named: str | tuple[str, ...] | None,
        ber: float | None,
        select: str | None,
        device: int | None,
        strict_sources: bool,
        **rest: Any,
    ) -> Any:
        one = {} if named is None or isinstance(named, tuple) else {named: named}
        specs = by_name(named, "--faults") if isinstance(named, tuple) else one
        return command(given=Given(specs, ber, select, device, strict_sources), **rest)

    for option in (*reversed(_OPTIONS), named_option):
        with_given = option(with_given)
    return with_given
