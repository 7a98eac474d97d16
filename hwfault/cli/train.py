"""`hwfault train`: a network, with or without faults."""

from pathlib import Path
from typing import Any

import click

from hwfault.cli.common import json_option, print_json, progress
from hwfault.cli.fault_options import Given, fault_options


@click.command("train")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file; options override its keys.")
@click.option("--network", help="digits_cnn, or your own as module:function.  [default: digits_cnn]")
@click.option("--data", help="digits, an .npz file (x_train, y_train, x_test, y_test), or module:function.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--learning-rate", type=float)
@click.option("--weight-decay", type=float)
@click.option("--optimizer", help="adamw or sgd.")
@click.option("--ramp", type=float, help="Share of the epochs over which the faults' rate rises.  [default: 1/3]")
@click.option("--gradient", help="What flows back through faulty words: zero or straight_through.")
@click.option("--seed", type=int, help="For initial weights, the order of the data, and the faults.  [default: 0]")
@fault_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for checkpoint and configuration.")
@json_option
def command(
    config_file: Path | None,
    given: Given,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network; its checkpoint, configuration and history are in the folder after every epoch."""
    from hwfault.profiles.records import read_yaml
    from hwfault.train.config import TrainConfig
    from hwfault.train.run import train_into

    chosen = {key: value for key, value in options.items() if value is not None}
    if faults := given.faults:
        chosen["faults"] = faults
    if given.device is not None:
        chosen["device"] = given.device
    written = {} if config_file is None else read_yaml(config_file)
    merged = written | chosen if isinstance(written, dict) else written
    config = TrainConfig.parse(merged, "the options" if config_file is None else str(config_file))
    with progress() as begin:
        history = train_into(out, config, begin)
    if as_json:
        print_json([epoch.model_dump(mode="json") for epoch in history])
    else:
        last = history[-1]
        click.echo(
            f"after {last.epochs} epochs: loss {last.loss:.4f}, accuracy {last.accuracy:.1%} on the training data"
        )
        click.echo(f"{out}/checkpoint.safetensors; next: hwfault evaluate {out} --rates 0,0.01,0.03")
