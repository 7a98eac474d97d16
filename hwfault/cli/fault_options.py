"""The options that name faults, the same on every command."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from hwfault.profiles.models import BitFlips, FaultModel, MapFaults, ProfileFaults, named_faults
from hwfault.profiles.selectors import Select


@dataclass(frozen=True)
class Given:
    """What --faults, --ber, --select, --device and --strict-sources say."""

    named: str | None
    ber: float | None
    select: str | None
    device: int | None
    strict_sources: bool

    @property
    def anything(self) -> bool:
        """Whether any faults were named."""
        return self.named is not None or self.ber is not None

    @property
    def faults(self) -> tuple[FaultModel, ...]:
        """The faults that the options name; empty if none does."""
        if self.named is not None and self.ber is not None:
            raise click.UsageError("--faults and --ber were both given, expected one of them")
        self.check_strict()
        if self.named is None:
            return self._symmetric()
        return tuple(self._completed(fault) for fault in named_faults(self.named))

    def check_strict(self) -> None:
        """Raises UsageError where --strict-sources would say nothing."""
        if self.strict_sources and self.named is None:
            raise click.UsageError("--strict-sources goes with the profiles of --faults")

    def _symmetric(self) -> tuple[FaultModel, ...]:
        if self.ber is None and self.select is not None:
            raise click.UsageError("--select goes with --ber, or with a profile or map in --faults")
        return (
            ()
            if self.ber is None
            else (BitFlips(probability=self.ber, sites="*" if self.select is None else self.select),)
        )

    def _completed(self, fault: FaultModel) -> FaultModel:
        listed = "; in a YAML file each fault has its `sites:`"
        if self.select is not None and not isinstance(fault, ProfileFaults | MapFaults):
            raise click.UsageError(f"--select goes with --ber, or with a profile or map in --faults{listed}")
        chosen = {} if self.select is None else {"sites": (Select(name=self.select),)}
        strict = {"strict_sources": True} if self.strict_sources and isinstance(fault, ProfileFaults) else {}
        return fault.model_copy(update=chosen | strict)


_OPTIONS = (
    click.option(
        "--faults",
        "named",
        help="A profile at an operating point (NAME@axis=value,...), a device's map (map:FILE), or a YAML file.",
    ),
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

    @wraps(command)
    def with_given(
        named: str | None, ber: float | None, select: str | None, device: int | None, strict_sources: bool, **rest: Any
    ) -> Any:
        return command(given=Given(named, ber, select, device, strict_sources), **rest)

    for option in reversed(_OPTIONS):
        with_given = option(with_given)
    return with_given
