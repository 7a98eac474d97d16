"""What every command has: an example in its help, --quiet and --verbose, and a look at its outputs before it works."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import click

from hwfault.cli.paths import check_places

_LOUDNESS = "hwfault.loudness"
QUIET, USUAL, VERBOSE = -1, 0, 1


def loudness() -> int:
    """How much the command at hand is to say: QUIET, USUAL or VERBOSE."""
    context = click.get_current_context(silent=True)
    return USUAL if context is None else int(context.find_root().meta.get(_LOUDNESS, USUAL))


def _loud(level: int) -> Any:
    def set_loudness(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
        if not asked:
            return
        meta = ctx.find_root().meta
        if meta.get(_LOUDNESS, level) != level:
            raise click.UsageError("--quiet and --verbose were both given, expected one of them", ctx)
        meta[_LOUDNESS] = level

    return set_loudness


def _loudness_options() -> list[click.Parameter]:
    """--quiet and --verbose, anew for each command, as click keeps what it parsed of an option in it."""
    quiet = "Print the result, warnings and errors only: no progress, no remarks."
    verbose = "Print what is logged for debugging as well, and what an error came from."
    return [
        click.Option(["--quiet", "-q"], is_flag=True, expose_value=False, callback=_loud(QUIET), help=quiet),
        click.Option(["--verbose", "-v"], is_flag=True, expose_value=False, callback=_loud(VERBOSE), help=verbose),
    ]


class Command(click.Command):
    """A command that refuses to write over what it reads, or where it cannot write, before it does anything.

    `examples` are command lines for its help, without the program's name.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params += _loudness_options()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples, each in a line of its own, so that it can be copied."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}hwfault {example}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; raises FileError if an output is an input, two are one, or one cannot be written."""
        check_places(self.params, ctx.params)
        with _logged():
            return super().invoke(ctx)


@contextmanager
def _logged() -> Iterator[None]:
    """Inside, hwfault's loggers say as much as --quiet and --verbose ask for."""
    levels = {QUIET: {"hwfault.remarks": logging.WARNING}, VERBOSE: {"hwfault": logging.DEBUG}}
    asked = {logging.getLogger(name): level for name, level in levels.get(loudness(), {}).items()}
    before = {log: log.level for log in asked}
    try:
        for log, level in asked.items():
            log.setLevel(level)
        yield
    finally:
        for log, level in before.items():
            log.setLevel(level)


class Commands(click.Group):
    """A group that names the nearest command where one is misspelt."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; raises UsageError that says which was meant, or which there are."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = get_close_matches(args[0], known, n=1, cutoff=0.6)
            instead = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            raise click.UsageError(f"no command {args[0]!r}: {instead}", ctx)
        return super().resolve_command(ctx, args)


def tell_when_torch_starts() -> None:
    """Says on a terminal that PyTorch is being loaded, when it is for the first time: that takes seconds."""
    if "torch" not in sys.modules and sys.stderr.isatty():
        sys.meta_path.insert(0, _Told())


class _Told:
    """A finder of modules that finds none: it sees the first import of torch, and goes."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name == "torch":
            sys.meta_path.remove(self)
            if loudness() != QUIET:
                click.echo("loading PyTorch ...", err=True)
