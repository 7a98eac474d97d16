"""The options that name faults, the same on every command."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hwfault.laws.files import Files
    from hwfault.laws.models import FaultModel


def _no_files() -> "Files":
    from hwfault.laws.files import Files

    return Files()


@dataclass(frozen=True)
class Given:
    """What --faults, --ber, --select, --device and --strict-sources say."""

    named: Mapping[str, str]
    """What --faults names, each by a name of its own."""
    ber: float | None
    select: str | None
    device: int | None
    strict_sources: bool
    files: "Files" = field(default_factory=_no_files)
    """What a command reads of the files that the faults name."""

    @property
    def anything(self) -> bool:
        """Whether any faults were named."""
        return bool(self.named) or self.ber is not None

    @property
    def faults(self) -> "tuple[FaultModel, ...]":
        """The faults that the options name; empty if none does."""
        return next(iter(self.lists.values()), ())

    @cached_property
    def lists(self) -> "dict[str, tuple[FaultModel, ...]]":
        """Each list of faults that the options name, by a name of its own; none if no option does."""
        from hwfault.laws.models import bit_errors, named_faults

        if self.named and self.ber is not None:
            raise click.UsageError("--faults and --ber were both given, expected one of them")
        self.check_strict()
        if self.named:
            found = {name: named_faults(spec, self.files) for name, spec in self.named.items()}
            return {name: tuple(self._completed(fault) for fault in faults) for name, faults in found.items()}
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

    def _completed(self, fault: "FaultModel") -> "FaultModel":
        from hwfault.program.selectors import Select

        listed = "; in a YAML file each fault has its `sites:`"
        if self.select is not None and not fault.named_on_command_line:
            raise click.UsageError(f"--select goes with --ber, or with a profile or map in --faults{listed}")
        chosen = {} if self.select is None else {"sites": (Select(name=self.select),)}
        has_sources = "strict_sources" in type(fault).model_fields
        strict = {"strict_sources": True} if self.strict_sources and has_sources else {}
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


def _list_models(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    """Prints each fault model with an example, and ends the command."""
    if not asked or ctx.resilient_parsing:
        return
    from hwfault.laws.models import LAWS

    click.echo("faults:")
    for law in LAWS.values():
        click.echo(f"  - {law.example}")
        click.echo(textwrap.indent(textwrap.fill(law.help, 100), "      # "))
    ctx.exit()


_FAULTS = (
    "A profile at an operating point (NAME@axis=value,...), a device's map (map:FILE), single cells (cells:FILE, a CSV "
    "table), or a YAML file."
)
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
    click.option(
        "--models",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_list_models,
        help="Print what a YAML file of faults may hold, an example of each fault model, and exit.",
    ),
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
