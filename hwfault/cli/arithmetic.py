"""The option that chooses integer arithmetic, and what is said of what it leaves as it is."""

from collections.abc import Callable, Mapping
from typing import Any

import click


def arithmetic_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--arithmetic: "float" or "integer"."""
    return click.option(
        "--arithmetic",
        type=click.Choice(["float", "integer"]),
        default="float",
        show_default=True,
        help="Layers add up what Brevitas does, or integers: exact, and equal in every engine.",
    )(command)


def tell_left(left: Mapping[str, str]) -> None:
    """Says on stderr what is left as it is, and why."""
    for name, reason in left.items():
        click.echo(f"left as it is: {name}: {reason}", err=True)
