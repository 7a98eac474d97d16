"""`hwfault campaign`: how vulnerable a network is, with what confidence."""

from importlib import import_module

import click

from hwfault.cli.command import Commands

_COMMANDS = {
    "plan": (
        "campaign_run",
        "Say what STUDY would take: fault space, trials, minutes, disk, and how each is answered.",
    ),
    "run": ("campaign_run", "Answer the questions of STUDY; every trial is kept in the folder of --out."),
    "resume": ("campaign_run", "Go on with the campaign in FOLDER, as it was begun."),
    "status": ("campaign_look", "Print how far the campaign in FOLDER is, also while it runs."),
    "report": ("campaign_look", "Print what the campaign in FOLDER found, and write its tables and its page there."),
    "merge": ("campaign_look", "Put the trials of the campaigns in FOLDERS together in the folder of --out."),
    "export": ("campaign_look", "Write every trial of the campaign in FOLDER as a line of a .csv or .parquet file."),
    "verify": ("campaign_check", "Run a part of a campaign's trials anew, the slow way, and say which answers differ."),
    "harden": ("campaign_harden", "Say what to protect in the network of the campaign in FOLDER, and what it costs."),
    "compare": (
        "campaign_compare",
        "Say how much more the campaign in SECOND has than that in FIRST, trial by trial under the same faults.",
    ),
    "explain": (
        "campaign_check",
        "Replay one trial of the campaign in FOLDER on one sample, and tell it site by site.",
    ),
}
"""Each command, the module that holds it and its first sentence, told here so that --help imports none of them."""


class _Group(Commands):
    """Imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"hwfault.cli.{_COMMANDS[name][0]}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands as click does, by stand-ins."""
        width = formatter.width - 6 - max(map(len, _COMMANDS))
        rows = [
            (name, click.Command(name, help=said).get_short_help_str(width)) for name, (_, said) in _COMMANDS.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group("campaign", cls=_Group)
def command() -> None:
    """How vulnerable a network or graph is, with what confidence: studies of many trials, kept, resumed and told."""
