"""`hwfault evaluate`: accuracy of trained networks under faults."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hwfault.cli.arithmetic import arithmetic_option, tell_left
from hwfault.cli.command import Command
from hwfault.cli.common import Rates, json_option, print_json, print_table, progress
from hwfault.cli.fault_options import Given, by_name, many_fault_options
from hwfault.cli.graph_options import check_options_of_graph, data_of_graph, tell_of_images, was_given
from hwfault.cli.measuring import (
    Measuring,
    measure,
    measuring_options,
    print_legend,
    statistics_tables,
    warn_of_one_seed,
)
from hwfault.cli.runs import Trusted, run_options

if TYPE_CHECKING:
    from hwfault.campaigns.one_question import Kept, OneQuestion
    from hwfault.campaigns.points import Faults, Point
    from hwfault.campaigns.trials import Trials
    from hwfault.plan.expected import Range

_ROWS = 12
"""Of how many rows the expected faults are printed."""


class Sweep(click.ParamType[Any]):
    """An axis of an operating point and its values, as `voltage_v=0.52,0.53,0.54`."""

    name = "axis=values"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, list[float]]:
        axis, _, values = str(value).partition("=")
        try:
            numbers = [float(part) for part in values.split(",")]
        except ValueError:
            numbers = []
        if not axis.strip() or not numbers or len(set(numbers)) < len(numbers):
            self.fail(f"{value!r} is no sweep, expected an axis and values: voltage_v=0.52,0.53,0.54", param, ctx)
        return axis.strip(), numbers


@dataclass(frozen=True)
class _Asked:
    """What the options ask for."""

    given: Given
    plans: tuple[str, ...]
    rates: tuple[float, ...] | None
    sweep: tuple[str, list[float]] | None
    by_site: str | None
    by_bit: bool

    def check(self) -> None:
        """Raises UsageError for options that contradict each other."""
        ways = {"--rates": self.rates is not None, "--sweep": self.sweep is not None}
        parts = {"--by-site": self.by_site is not None, "--by-bit": self.by_bit}
        chosen = [option for option, given in (ways | parts).items() if given]
        if len(chosen) > 1 and any(ways.values()):
            raise click.UsageError(f"{' and '.join(chosen)} were given together, expected one of them")
        if self.rates is not None and (self.given.anything or self.plans):
            raise click.UsageError("--rates and --faults, --ber or --plan were both given, expected one of them")
        if self.plans and self.given.ber is not None:
            raise click.UsageError("--plan and --ber were both given, expected one of them")
        self.given.check_strict()
        if chosen and self.rates is None and not (self.given.anything or self.plans):
            raise click.UsageError(f"{chosen[0]} goes with the faults of --faults, --ber or --plan")

    def lists(self) -> "dict[str, Faults]":
        """The faults to measure under, by name."""
        from hwfault.plan.fault_plan import FaultPlan

        found: dict[str, Faults] = dict(self.given.lists) if self.rates is None else {}
        for name, file in by_name(self.plans, "--plan").items():
            if name in found:
                raise click.UsageError(
                    f"--plan: {name!r} is given twice, expected a name of its own for each: NAME=..."
                )
            found[name] = FaultPlan.load(file)
        if len(found) > 1 and (self.by_site is not None or self.by_bit):
            raise click.UsageError("--by-site and --by-bit take one list of faults, several were given")
        return found

    def points(self, campaign: "OneQuestion", lists: "Mapping[str, Faults]") -> "list[Point]":
        """The points of the campaign."""
        from hwfault.campaigns.points import (
            Point,
            at_operating_points,
            at_rates,
            each_bit,
            each_bit_of_each_site,
            each_site,
        )

        if self.rates is not None:
            return at_rates(self.rates, self.given.selected)
        if self.sweep is not None:
            return at_operating_points(lists, *self.sweep, files=self.given.files)
        if self.by_site is None and not self.by_bit:
            named = lists or {"no faults": ()}
            return [Point.of(faults, labels={"faults": name}) for name, faults in named.items()]
        (faults,) = lists.values()
        plan = campaign.whole_plan(Point.of(faults))
        if self.by_site is None:
            return each_bit(faults, plan)
        return (each_bit_of_each_site if self.by_bit else each_site)(faults, plan, self.by_site)


@click.command(
    "evaluate",
    cls=Command,
    examples=[
        "evaluate run --rates 0,0.01,0.03 --out results",
        "evaluate run --faults bram28-kintex7-kc705b-undervolt --sweep voltage_v=0.53,0.54",
        "evaluate g.onnx --data x.npz --ber 0.01",
    ],
)
@click.argument("run", type=click.Path(path_type=Path))
@run_options
@many_fault_options
@click.option("--plan", "plans", multiple=True, help="A saved plan (.json); several are compared; LABEL=... names one.")
@click.option(
    "--rates",
    type=Rates(),
    help="Sweep symmetric bit errors over these rates (a higher one only adds hits), e.g. 0,0.001,0.03.",
)
@click.option("--sweep", type=Sweep(), help="Sweep an axis of the profiles in --faults, e.g. voltage_v=0.52,0.53.")
@click.option(
    "--by-site", is_flag=False, flag_value="*", metavar="[GLOB]", help="Each site (whose name matches) struck alone."
)
@click.option("--by-bit", is_flag=True, help="Each bit plane struck alone; with --by-site, of each site.")
@click.option(
    "--statistics", is_flag=True, help="Print what the faults do at each site: rate, flips of each bit, RMSE."
)
@arithmetic_option
@click.option("--samples", type=click.IntRange(min=1), help="Only the first so many samples.  [default: all]")
@measuring_options
@json_option
def command(
    run: Path,
    trusted: Trusted,
    given: Given,
    plans: tuple[str, ...],
    rates: tuple[float, ...] | None,
    sweep: tuple[str, list[float]] | None,
    by_site: str | None,
    by_bit: bool,
    statistics: bool,
    arithmetic: str,
    samples: int | None,
    how: Measuring,
    as_json: bool,
) -> None:
    """Accuracy of RUN (a folder of `hwfault train`, or a checkpoint) on its held-out data, under faults or without.

    RUN may be a graph (.onnx), with its samples in --data: an .npz file with the arrays x (inputs, samples along axis
    0; several by the graph's names) and y (labels), or a folder CLASS/IMAGE of images, given as pixels from 0 to 255.
    It runs in onnxruntime, without PyTorch. Without labels it is told how many answers are those of the golden run.

    The faults are those of --faults, --ber or --plan, or a sweep of --rates; without any of them there are none. What
    they cost is told against the golden run, which has none. With --out finished trials are kept: the same command
    goes on where it was stopped, and more --seeds add trials.
    """
    asked = _Asked(given, plans, rates, sweep, by_site, by_bit)
    is_graph = run.suffix == ".onnx"
    if is_graph:
        check_options_of_graph(trusted)
    folder = how.folder()
    asked.check()
    lists = asked.lists()

    # what is measured, its samples, and the points at which it is
    if is_graph:
        measured = _graph(run, trusted, samples, given, how)
    else:
        measured = _network(run, trusted, arithmetic, samples, given, how, statistics)
    campaign = measured.campaign
    points = asked.points(campaign, lists)
    for point in points:
        campaign.whole_plan(point, how.seeds[0])  # what does not fit is told before the first trial

    # the trials
    kept = None if folder is None else _kept(folder, measured.told)
    with progress() as begin:
        results = measure(campaign, points, how.seeds, what="evaluating", begin=begin, kept=kept)
    tell_left(measured.left())

    # what is kept of them, and printed
    expected = {id(p): _expected(campaign, point, how.seeds[0], p) for point, p in zip(points, results, strict=True)}
    if by_site is not None:
        results.sort(key=lambda point: point.mean)
    if folder is not None:
        _write(folder, results, asked, str(run), measured.name, campaign.question(points, measured.told))
    if as_json:
        print_json([p.to_data() | {"expected_faults": list(expected[id(p)])} for p in results])
    else:
        _print(results, asked, [str(expected[id(p)]) for p in results])
    warn_of_one_seed(how.seeds)


class _Measured(NamedTuple):
    """What is measured: its campaign, what it is called, what is told of it where trials are kept.

    `left` says after the trials what its arithmetic leaves as it is, and why.
    """

    campaign: "OneQuestion"
    name: str
    told: dict[str, Any]
    left: Callable[[], Mapping[str, str]] = dict


def _graph(graph: Path, trusted: Trusted, samples: int | None, given: Given, how: Measuring) -> _Measured:
    """A graph alone, on the samples of --data."""
    from hwfault.campaigns.graph_campaign import GraphCampaign

    data = data_of_graph(trusted)
    tell_of_images(data)
    size = how.batch_size if was_given("batch_size") else None
    options: dict[str, Any] = {"first": samples, "device": given.device, "batch_size": size, "files": given.files}
    return _Measured(GraphCampaign(graph, data, **options), graph.name, {"graph": str(graph), "data": str(data)})


def _network(
    run: Path,
    trusted: Trusted,
    arithmetic: str,
    samples: int | None,
    given: Given,
    how: Measuring,
    statistics: bool,
) -> _Measured:
    """The network of a run, on its data."""
    from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
    from hwfault.campaigns.campaign import Campaign

    model, config, data = trusted.load(run)
    exact = integer_arithmetic(model) if arithmetic == "integer" else None
    on = how.split_of(data, config)
    campaign = Campaign(
        model,
        on,
        indices=None if samples is None else range(min(samples, len(on))),
        device=given.device,
        batch_size=how.batch_size,
        workers=how.workers,
        statistics=statistics,
        files=given.files,
        said={"network": str(run), "arithmetic": arithmetic, "samples": {"split": how.split, "first": samples}},
    )
    told = {"network": trusted.network or config.network, "data": trusted.data or config.data, "split": how.split}
    told |= {} if arithmetic == "float" else {"arithmetic": arithmetic}
    return _Measured(campaign, config.network, told, lambda: {} if exact is None else exact.left)


def _kept(folder: Path, told: Mapping[str, Any]) -> "Kept":
    """Where trials are kept in a folder, and where 0.4.0 kept them."""
    from hwfault.campaigns.database import FILE
    from hwfault.campaigns.one_question import Kept

    return Kept(folder / FILE, folder / "trials.jsonl", told)


def _write(
    folder: Path, results: "Sequence[Trials]", asked: _Asked, run: str, network: str, why: Mapping[str, Any]
) -> None:
    """Leaves the results in a folder, with the picture that suits the question."""
    from hwfault.campaigns import report

    report.write(folder, run, results, why)
    _draw(folder / "accuracy.png", results, asked, run, network)


def _draw(path: Path, results: "Sequence[Trials]", asked: _Asked, run: str, network: str) -> None:
    """The picture that suits the question; none for a single number."""
    from hwfault.campaigns.picture import draw_accuracy, draw_losses

    if asked.rates is not None:
        draw_accuracy(path, {run: results}, title=network)
    elif asked.sweep is not None:
        axis = asked.sweep[0]
        curves: dict[str, list[Trials]] = {}
        for point in results:
            curves.setdefault(str(point.labels.get("faults", run)), []).append(point)
        draw_accuracy(path, curves, title=network, axis=axis, axis_label=_axis_label(axis, asked.given))
    elif len(results) > 1:
        draw_losses(path, {_name(point): point for point in results}, title=f"{network}, {_told(asked)}")


def _axis_label(axis: str, given: Given) -> str:
    """The axis and its unit."""
    from hwfault.laws.models import bind

    units: set[str] = set()
    for faults in given.lists.values():
        profiles = [bound.profile for bound in bind(faults, given.files) if bound.profile is not None]
        units.update(known.unit for profile in profiles for known in profile.rate.axes if known.name == axis)
    units.discard("")
    return f"{axis} in {units.pop()}" if len(units) == 1 else axis


def _name(point: "Trials") -> str:
    parts = {key: value for key, value in point.labels.items() if key in ("site", "bit")} or point.labels
    return " ".join(f"bit {value}" if key == "bit" else str(value) for key, value in parts.items())


def _lost(point: "Trials") -> float | None:
    """What faults cost of the accuracy, or of the agreement with the golden run."""
    return None if point.reference is None else point.reference - point.mean


def _told(asked: _Asked) -> str:
    of_what = [what for what, given in (("bit", asked.by_bit), ("site", asked.by_site is not None)) if given]
    alone = f"each {' of each '.join(of_what)} alone" if of_what else ""
    names = [] if not alone else [*asked.given.lists, *by_name(asked.plans, "--plan")]
    return ", ".join([*names, alone or "faults compared"])


def _expected(campaign: "OneQuestion", point: "Point", seed: int, results: "Trials") -> "Range":
    """The faults that a trial of a point has on average; under permanent faults those of the first seed's device."""
    from hwfault.plan.expected import Range, expected_faults

    if point.silent:
        return Range(0, 0)
    return expected_faults(point.part(campaign.whole_plan(point, seed))).in_trial(results.samples)


def _print(results: "Sequence[Trials]", asked: _Asked, expected: "Sequence[str]") -> None:
    from hwfault.campaigns import report
    from hwfault.campaigns.words import percent, points

    first = results[0]
    print_table(*report.table(results))
    if first.measures == "agreement":
        click.echo(
            f"the {first.samples} samples have no labels (y): agreement is the share of answers that are the golden "
            "run's; accuracy, and what faults cost of it, are not known"
        )
    else:
        click.echo(f"golden run (no faults): {percent(first.golden_accuracy)} of {first.samples} samples")
    print_legend([point.told for point in results if len(point.seeds) > 1])
    changed = "an answer" if first.measures == "agreement" else "the number of right answers"
    click.echo(
        f"events: trials in which the faults changed {changed}, and the share of fault seeds that at "
        "most do so (95 %); pp: percentage points"
    )
    rows = ", ".join(expected[:_ROWS]) + (", ... (all with --json)" if len(expected) > _ROWS else "")
    click.echo(f"faults expected in a trial of {results[0].samples} samples, row by row: {rows}")
    if asked.by_site is not None and len(results) > 1:
        least, most = results[0], results[-1]
        told = [f"{_name(point)}, which costs {points(_lost(point))} pp" for point in (least, most)]
        click.echo(f"least resilient: {told[0]}; most resilient: {told[1]}")
    for p in (p for p in results if p.protection):
        counts = [f"{sum(getattr(c, what) for c in p.protection):,} {what}" for what in ("corrected", "detected")]
        wrong = sum(c.miscorrected for c in p.protection)
        click.echo(f"protected words: {', '.join(counts)}, {wrong:,} wrong unnoticed; {sum(p.due)} trials count as DUE")
    statistics_tables(results)
