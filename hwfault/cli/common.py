"""Options and output that several commands share."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.errors import HwfaultError
from hwfault.profiles.models import FaultModel
from hwfault.stream.check import check_seed

if TYPE_CHECKING:
    from torch import nn

    from hwfault.graph.report import ReplayReport
    from hwfault.plan import FaultPlan, Site
    from hwfault.train import TrainConfig
    from hwfault.train.data import Data, Split

data_folder_option = click.option(
    "--data-folder", type=click.Path(path_type=Path), help="Where the files of a published data set or images lie."
)
transform_option = click.option("--transform", help="The transform of a run's images, which is code: module:function.")
workers_option = click.option(
    "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Threads that read images ahead."
)
split_option = click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="What to measure on: the samples held out for tests, or those that the run split off for validation.",
)
batch_size_option = click.option("--batch-size", type=click.IntRange(min=1), default=512, show_default=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of a table.")
network_option = click.option("--network", help="The network of a run, if it is your own code: module:function.")
data_option = click.option("--data", help="Other data than the run's: digits, an .npz file, or module:function.")


class Seeds(click.ParamType[Any]):
    """Fault seeds as `0-19`, `1,2,5`, or one number."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            seeds = tuple(seed for part in str(value).split(",") for seed in _span(part))
        except (ValueError, HwfaultError) as error:
            self.fail(f"{value!r} names no seeds: {error}; expected e.g. 7, 0-19 or 1,2,5", param, ctx)
        if len(set(seeds)) < len(seeds):
            self.fail(f"{value!r} names a seed twice, expected each once: equal seeds give equal trials", param, ctx)
        return seeds


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    span = range(check_seed(int(first)), check_seed(int(last or first)) + 1)
    if not 0 < len(span) <= 1_000_000:
        raise ValueError("a range holds 1 to 1000000 seeds")
    return span


class Rates(click.ParamType[Any]):
    """Bit error rates as `0,0.001,0.03`."""

    name = "rates"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of rates, expected e.g. 0,0.001,0.03", param, ctx)


seeds_option = click.option(
    "--seeds", type=Seeds(), default="0-19", show_default=True, help="Fault seeds: one trial each."
)


def given_plan(
    sites: "Sequence[Site]", plan_file: Path | None, faults: Sequence[FaultModel], device: int = 0
) -> "FaultPlan | None":
    """The plan of --plan, or of the faults of a device resolved against the sites; None if neither is given."""
    from hwfault.plan import FaultPlan, resolve

    if plan_file is not None and faults:
        raise click.UsageError("a plan and faults were both given, expected one of them")
    if plan_file is not None:
        return FaultPlan.load(plan_file)
    return resolve(sites, faults, device=device) if faults else None


def print_json(data: Any) -> None:
    """Prints data as JSON on stdout."""
    click.echo(json.dumps(data, indent=1))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under their columns, as wide as they need to be, also where stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console()
    Console(width=max(console.width, 160) if not console.is_terminal else None, markup=False).print(table)


@contextmanager
def progress(*, shown: bool = True) -> Iterator[Callable[[str, int], Callable[[], object]]]:
    """A display on stderr, if it is to be shown.

    `begin(what, steps)` adds a line and answers with the function to call after each step.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as display:

        def begin(what: str, steps: int) -> Callable[[], object]:
            task = display.add_task(what, total=steps)
            return lambda: display.advance(task)

        yield begin


def load_run(
    run: Path, network: str | None, data: str | None, *, folder: Path | None = None, transform: str | None = None
) -> "tuple[nn.Module, TrainConfig, Data]":
    """The network of a run's folder or checkpoint in evaluation mode, its configuration, and its data or the given.

    The configuration is the run's own; the data's `folder` and `transform` take the place of its own, where given.
    """
    from hwfault.train import checkpoint
    from hwfault.train.folder import CHECKPOINT
    from hwfault.train.run import check_runs, load_data

    model, config = checkpoint.load(run / CHECKPOINT if run.is_dir() else run, network)
    wanted = config
    if data not in (None, config.data):  # whose files the run's folder does not hold
        wanted = wanted.model_copy(update={"data_folder": None, "image_size": None, "transform": None})
    given = {"data": data, "data_folder": None if folder is None else str(folder), "transform": transform}
    for key in ("data", "transform"):
        _refuse_code(run, key, getattr(wanted, key), given[key])
    loaded = load_data(wanted.model_copy(update={key: value for key, value in given.items() if value is not None}))
    check_runs(model, loaded)
    return model, config, loaded


def _refuse_code(run: Path, key: str, stored: str | None, given: str | None) -> None:
    from hwfault.errors import FileError
    from hwfault.train.spec import is_code

    if given is None and stored is not None and is_code(stored):
        raise FileError(
            f"{run}: was trained on the {key} {stored!r}; code that a file names is not run, so name it yourself "
            f"(--{key} {stored}) if you trust it"
        )


def split_of(data: "Data", config: "TrainConfig", which: str) -> "Split":
    """The split that --split names; raises HwfaultError where a run has none for validation."""
    from hwfault.train.loop import with_validation

    if which == "test":
        return data.test
    held = data.validation if data.validation is not None else with_validation(data, config).validation
    if held is None:
        raise HwfaultError(
            "--split validation: the run split no samples off for validation; expected one that was trained with "
            "--validation, or measure on its test samples (--split test)"
        )
    return held


def list_sites(source: str, network: str | None) -> "list[Site]":
    """The sites of a network's name, of a run or checkpoint, or of a graph."""
    if source.endswith(".onnx"):
        from hwfault.graph.session import load_model
        from hwfault.graph.sites import sites as sites_of_graph

        return sites_of_graph(load_model(source))
    from hwfault.inject import sites

    path = Path(source)
    if path.exists():
        model, _, data = load_run(path, network, None)
        return sites(model, data.example)
    from hwfault.train.networks import build

    return sites(build(source))


def verdict(report: "ReplayReport") -> str:
    """A replay in one plain sentence."""
    words, faults = (sum(getattr(site, key) for site in report.sites) for key in ("words", "faults_seen"))
    where = f"{words:,} words at {len(report.sites)} sites under {len(report.seeds)} seeds, {faults:,} of them faulty"
    arithmetic = sum(site.codes_differ for site in report.sites)
    outcome = {
        "exact": "onnxruntime and PyTorch agree on every one, and on every output to the last bit",
        "faults equal, arithmetic differs": (
            f"every fault is the same in both engines; {arithmetic:,} codes differ because they add in another order, "
            f"and {report.predictions_differ:,} of {report.predictions:,} predictions"
        ),
        "faults differ": (
            f"{sum(site.faults_differ for site in report.sites):,} faults DIFFER between the engines; the report names "
            "the first at each site"
        ),
    }
    return f"Replay: {report.verdict}. {where}: {outcome[report.verdict]}."
