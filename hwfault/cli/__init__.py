"""The command line: one file for each command; each parses, calls one function and prints."""

import signal
import sys
import traceback
import warnings
from importlib import import_module
from typing import Any

import click

import hwfault
from hwfault.cli.command import VERBOSE, Commands, loudness, tell_when_torch_starts
from hwfault.cli.door import Stopped, escaped_streams, stoppable
from hwfault.errors import HwfaultError, ModelError
from hwfault.notices import spoken
from hwfault.own_code import modules_of_current_folder

COMMANDS = {
    "demo": "Train a small network on the digits with and without faults, measure, export and replay it: under a "
    "minute.",
    "train": "Train a network; its checkpoint, configuration and history are in the folder after every epoch.",
    "evaluate": "Accuracy of RUN (a folder of `hwfault train`, or a checkpoint) on its held-out data, under faults or "
    "without.",
    "compare": "Accuracy of each RUN (a folder of `hwfault train`, or a checkpoint) against the bit error rate.",
    "campaign": "How vulnerable a network or graph is, with what confidence: studies of many trials, kept, resumed and "
    "told.",
    "sites": "List the injection sites of SOURCE: a network (digits_cnn, module:function), a run or checkpoint, or a "
    "graph.",
    "faults": "Print the faults that strike one sample of a site, in the order of the fault stream.",
    "export": "Write RUN (a folder of `hwfault train`, or a checkpoint) as a QONNX graph; with faults given, they are "
    "inside it.",
    "run": "Run MODEL, any QONNX graph with or without faults, in onnxruntime, and print what its outputs hold.",
    "insert": "Put faults into GRAPH, a QONNX graph (.onnx) of any origin; `hwfault sites GRAPH` lists where they can "
    "strike.",
    "strip": "Take the faults out of GRAPH: what is written is the graph before they were put in, the same in every "
    "byte.",
    "bake": "Write GRAPH with the faults of its parameters in its constants: a plain graph, without any op of hwfault.",
    "replay": "Run GRAPH (a faulted graph) in onnxruntime and RUN (its network) in PyTorch on the held-out data, and "
    "compare.",
    "schema": "Print the JSON Schema of a kind of file, for editors that check and complete YAML.",
    "profiles": "Fault profiles: how pieces of hardware corrupt stored bits, with the source of every number.",
}
"""Each command with the first sentence of its help, which is told here again so that --help imports none of them."""
_OF_TRAINING = ("torch", "brevitas", "lightning", "matplotlib", "PIL", "qonnx", "scipy", "sklearn", "tensorboardX")
"""What the extra `train` installs."""
_OF_MEASURING = ("matplotlib", "PIL", "scipy")
"""What of it the extra `measure` installs alone: intervals and pictures of graphs, without torch."""


class _Commands(Commands):
    """Imports a command when it is called, and turns hwfault's errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"hwfault.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands as click does, by stand-ins."""
        width = formatter.width - 6 - max(map(len, COMMANDS))
        rows = [(name, click.Command(name, help=said).get_short_help_str(width)) for name, said in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

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
        tell_when_torch_starts()
        try:
            with spoken(lambda text: click.echo(text, err=True)):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped(signal.SIGINT, self._goes_on(ctx)) from None
        except HwfaultError as error:
            raise _told(error) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _OF_TRAINING:
                raise
            extra = "measure" if package in _OF_MEASURING else "train"
            command = ctx.invoked_subcommand or "this command"
            raise click.ClickException(
                f"{command} needs {error.name}, which is not installed here; run `pip install 'hwfault[{extra}]'`"
            ) from error

    def _goes_on(self, ctx: click.Context) -> str:
        """How the command that was stopped goes on, if it can."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        resumes = command is not None and any(param.name == "resume" for param in command.params)
        return ", and the same command with --resume goes on from there" if resumes else ""


class _WrongValue(click.ClickException):
    """What was asked for is wrong, in an option or in a file that says it: wrong usage."""

    exit_code = click.UsageError.exit_code


def _told(error: HwfaultError) -> click.ClickException:
    """An error for people; with --verbose what it came from is printed first."""
    if loudness() == VERBOSE:
        click.echo("".join(traceback.format_exception(error)), err=True)
    return _WrongValue(str(error)) if isinstance(error, ModelError) else click.ClickException(str(error))


_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 120,
    "color": True,  # nothing is taken out of what is printed: the stream escapes it, and colours are none of ours
}


@click.group(cls=_Commands, context_settings=_SETTINGS)
@click.version_option(hwfault.__version__, prog_name="hwfault")
def main() -> None:
    """Bit errors in quantized networks: train under them, export them, replay them bit for bit in onnxruntime.

    Exit codes: 0 good, 1 an error, 2 wrong usage or a wrong value, 3 a replay whose faults differ.
    """


if __name__ == "__main__":
    sys.exit(main())
