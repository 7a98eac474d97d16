"""`hwfault demo`: the whole loop on the digits."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, print_table, progress
from hwfault.cli.measuring import print_legend
from hwfault.cli.paths import OutputFolder

if TYPE_CHECKING:
    from hwfault.campaigns.trials import Trials


_FOLDER = OutputFolder(
    "checkpoint.safetensors",
    "config.json",
    "plan.json",
    "model.qonnx.onnx",
    "model.faulted.onnx",
    "results.csv",
    "accuracy.png",
    "replay.json",
)


@click.command("demo", cls=Command, examples=["demo --out demo"])
@click.option("--out", default="demo", show_default=True, type=_FOLDER, help="Folder for the files.")
@json_option
def command(out: Path, as_json: bool) -> None:
    """Train a small network on the digits with and without faults, measure, export and replay it: under a minute."""
    from hwfault.demo import run
    from hwfault.proof.sentences import sentence

    with progress() as begin:
        result = run(out, begin)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        rates = [trials.ber for trials in next(iter(result.accuracy.values()))]
        print_table(
            ["accuracy at BER", *(f"{rate:g}" for rate in rates)],
            [[name, *map(_cell, trials)] for name, trials in result.accuracy.items()],
        )
        told = [point.told for trials in result.accuracy.values() for point in trials]
        print_legend(told)
        click.echo(f"{sentence(result.replay)}\nEverything is in {out}/: see accuracy.png and replay.json.")
    sys.exit(result.replay.exit_code)


def _cell(trials: "Trials") -> str:
    from hwfault.campaigns.words import accuracy

    return accuracy(trials.mean, trials.told, 1)
