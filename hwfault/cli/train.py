"""`hwfault train`: a network, with or without faults."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, progress
from hwfault.cli.fault_options import Given, fault_options
from hwfault.cli.paths import OutputFolder
from hwfault.train.folder import FILES

if TYPE_CHECKING:
    from hwfault.train import TrainConfig


class Setting(click.ParamType[Any]):
    """KEY=VALUE with a value as in YAML."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        import yaml

        from hwfault.yaml12 import load_yaml

        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is no setting, expected e.g. network_args.bits=3", param, ctx)
        try:
            return key, load_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            self.fail(f"{text!r} is no value as in YAML", param, ctx)


@click.command(
    "train",
    cls=Command,
    examples=["train --ber 0.03 --ramp-epochs 20 --out run", "train --config train.yaml --out run --resume"],
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file; options override its keys.")
@click.option("--network", help="A network's name, or your own as module:function.  [default: digits_cnn]")
@click.option("--initial", help="A checkpoint of the float (or the same) network to begin with.")
@click.option("--data", help="A data set's name, an .npz file, or module:function.  [default: digits]")
@click.option("--data-folder", help="Where a data set's files are.")
@click.option("--validation", type=float, help="Share (below 1) or number of training samples to validate on.")
@click.option("--augment", help="crop_flip, resized_crop, or module:function.")
@click.option("--transform", help="A torchvision transform as module:function.")
@click.option("--workers", type=int, help="Processes that read images.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--accumulate", type=int, help="Batches whose gradients make one step.")
@click.option("--optimizer", help="sgd, adam or adamw.")
@click.option("--learning-rate", type=float)
@click.option("--momentum", type=float, help="Of sgd.")
@click.option("--weight-decay", type=float)
@click.option("--schedule", help="constant, cosine, step, multistep, exponential or plateau; keys with --set schedule.")
@click.option("--warmup-epochs", type=int, help="Over which the learning rate rises.")
@click.option("--freeze-schedule/--no-freeze-schedule", default=None, help="Let it wait for the ramps of faults.")
@click.option("--ramp-epochs", type=click.IntRange(min=0), help="Epochs over which the faults' rate rises linearly.")
@click.option("--gradient", help="What flows back through faulty words: zero or straight_through.")
@click.option("--loss", help="cross_entropy or squared_hinge.")
@click.option("--label-smoothing", type=float)
@click.option("--loss-on", help="The network with faults, without, or both: faulty, clean or average.")
@click.option("--draws", type=int, help="Forwards a step, each under faults of its own.")
@click.option("--clip-weights", type=float, help="Largest magnitude of a weight.")
@click.option("--clip-gradient", type=float, help="Largest norm of the gradient.")
@click.option("--early-stopping", type=int, help="Epochs without getting better after which to stop.")
@click.option("--monitor", help="The column of history.csv that says what is better.")
@click.option("--precision", help="32, 16-mixed or bf16-mixed.")
@click.option("--accelerator", help="auto, cpu or gpu.")
@click.option("--devices", type=int, help="How many processors train together.")
@click.option("--checkpoint-every", type=int, help="Epochs after each of which a checkpoint is kept.")
@click.option("--checkpoint-every-steps", type=int, help="Steps after which the state to resume from is written.")
@click.option("--seed", type=int, help="For initial weights, the order of the data, and the faults.  [default: 0]")
@click.option("--set", "settings", type=Setting(), multiple=True, help="Any other key of the file: KEY=VALUE.")
@fault_options
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in the folder, as if it had not stopped; with more --epochs it gets longer, unless its "
    "rate follows a cosine.",
)
@click.option(
    "--extend",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Begin with the weights and the configuration of this run's folder; history.csv says so.",
)
@click.option(
    "--dry-run", is_flag=True, help="Build and check everything, print the whole configuration, train nothing."
)
@click.option("--out", type=OutputFolder(*FILES), help="Folder for checkpoint and configuration.  [required]")
@json_option
def command(
    config_file: Path | None,
    settings: tuple[tuple[str, Any], ...],
    ramp_epochs: int | None,
    given: Given,
    resume: bool,
    extend: Path | None,
    dry_run: bool,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network; its checkpoint, configuration and history are in the folder after every epoch."""
    from hwfault.errors import HwfaultError
    from hwfault.own_code import is_code
    from hwfault.train.loading import RunOptions
    from hwfault.train.run import train_into
    from hwfault.train.telling import rank, told_by_another

    _check_options(config_file, resume=resume, extend=extend, dry_run=dry_run, out=out)
    chosen = {key: value for key, value in options.items() if value is not None} | dict(settings)
    if faults := given.faults:
        chosen["faults"] = faults
    if given.device is not None:
        chosen["device"] = given.device
    config = _with_ramps(_config(config_file, chosen, extend or (out if resume else None)), ramp_epochs)
    if extend is not None:
        from hwfault.train.longer import extended

        config = extended(extend, config)
    if dry_run:
        _print_dry_run(config, as_json)
        return
    assert out is not None
    try:
        with progress(visible=rank() == 0) as begin:
            history = train_into(out, config, begin, resume=resume)
    except HwfaultError as error:
        if told_by_another(error):
            raise click.exceptions.Exit(1) from None
        raise
    if rank() != 0:
        return
    if as_json:
        print_json([epoch.model_dump(mode="json") for epoch in history])
    else:
        last = history[-1]
        click.echo(
            f"after {last.epoch} epochs: loss {last.loss:.4f}, accuracy {last.accuracy:.1%} on the training data"
        )
        held_out = {"": last.validation_accuracy, " under faults": last.faulty_accuracy}
        for how, accuracy in held_out.items():
            if accuracy is not None:
                click.echo(f"accuracy {accuracy:.1%} on the validation data{how}")
        specs = (config.network, config.data, config.transform)
        network, data, transform = (spec if is_code(spec or "") else None for spec in specs)
        named = RunOptions(network, data, None, transform).words
        click.echo(f"{out}/checkpoint.safetensors; next: hwfault evaluate {quote(str(out))}{named} --rates 0,0.01,0.03")


def _check_options(
    config_file: Path | None, *, resume: bool, extend: Path | None, dry_run: bool, out: Path | None
) -> None:
    """Raises UsageError for options that exclude or need one another."""
    if out is None and (resume or not dry_run):
        raise click.UsageError("no --out was given, expected the run's folder (or --dry-run, which needs none)")
    if extend is not None and (resume or config_file is not None):
        other = "--resume" if resume else "--config"
        raise click.UsageError(f"--extend and {other} were both given, expected one: --extend begins a run of its own")


def _print_dry_run(config: "TrainConfig", as_json: bool) -> None:
    """Prints the configuration as a file that --config takes, once all of it has been built."""
    import yaml

    from hwfault.train.run import check_training

    summary = check_training(config)
    whole = config.model_dump(mode="json", exclude_none=True)
    whole["faults"] = [one["fault"] | {"schedule": one["schedule"]} for one in whole["faults"]]
    if as_json:
        print_json(whole)
        return
    click.echo(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), nl=False)
    click.echo(f"# valid: {summary}")


def _config(config_file: Path | None, chosen: dict[str, Any], resumed: Path | None) -> "TrainConfig":
    """What the file, or else the run to resume, and the options say together."""
    from hwfault.records import read_yaml
    from hwfault.train.config import merge_settings
    from hwfault.train.run import resumed_config

    if config_file is not None:
        return merge_settings(read_yaml(config_file), chosen, str(config_file))
    return merge_settings({}, chosen, "the options") if resumed is None else resumed_config(resumed, chosen)


def _with_ramps(config: "TrainConfig", epochs: int | None) -> "TrainConfig":
    """The configuration with a linear ramp on every fault."""
    if epochs is None:
        return config
    from hwfault.train.config import merge_settings
    from hwfault.train.schedule import ScheduledFault

    if not config.faults:
        raise click.UsageError("--ramp-epochs goes with faults: --ber, --faults, or those of --config")
    ramp = {"ramp": "linear" if epochs else "none", "ramp_epochs": epochs}
    schedules = [fault.schedule.model_dump() | ramp for fault in config.faults]
    faults = [ScheduledFault(fault=f.fault, schedule=s) for f, s in zip(config.faults, schedules, strict=True)]
    return merge_settings(config.model_dump(exclude_none=True), {"faults": faults}, "the options")
