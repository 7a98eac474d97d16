"""The command line: one file for each command; each parses, calls one function and prints."""

import sys
import warnings
from importlib import import_module
from typing import Any

import click

import hwfault
from hwfault.cli.door import Stopped, escaped_streams, stoppable
from hwfault.errors import HwfaultError
from hwfault.notices import spoken
from hwfault.own_code import modules_of_current_folder

COMMANDS = (
    "demo",
    "train",
    "evaluate",
    "compare",
    "sites",
    "faults",
    "export",
    "run",
    "insert",
    "strip",
    "replay",
    "profiles",
)
_OF_TRAINING = ("torch", "brevitas", "lightning", "matplotlib", "PIL", "qonnx", "scipy", "sklearn", "tensorboardX")
"""What the extra `train` installs."""


class _Commands(click.Group):
    """Imports a command when it is called, and turns hwfault's errors into one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"hwfault.cli.{name}").command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for text in args:
            if "\0" in text:
                raise click.UsageError(f"the argument {text!r} holds a zero byte, which no name and no number has")
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command line, with all that it prints escaped; the exit code of a signal is 128 + its number."""
        with escaped_streams(), stoppable():
            try:
                return super().main(*args, **kwargs)
            except Stopped as stopped:
                click.echo(f"Error: {stopped}", err=True)
                sys.exit(stopped.exit_code)

    def invoke(self, ctx: click.Context) -> object:
        ctx.with_resource(modules_of_current_folder())
        # Brevitas says on import which optional kernel it does without
        warnings.filterwarnings("ignore", message="fast_hadamard_transform package not found")
        try:
            with spoken(lambda text: click.echo(text, err=True)):
                return super().invoke(ctx)
        except HwfaultError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _OF_TRAINING:
                raise
            command = ctx.invoked_subcommand or "this command"
            raise click.ClickException(
                f"{command} needs {error.name}, which is not installed here; run `pip install 'hwfault[train]'`"
            ) from error


_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 120,
    "color": True,  # nothing is taken out of what is printed: the stream escapes it, and colours are none of ours
}


@click.group(cls=_Commands, context_settings=_SETTINGS)
@click.version_option(hwfault.__version__, prog_name="hwfault")
def main() -> None:
    """Bit errors in quantized networks: train under them, export them, replay them bit for bit in onnxruntime.

    Exit codes: 0 good, 1 an error, 2 wrong usage, 3 a replay whose faults differ.
    """


if __name__ == "__main__":
    sys.exit(main())
