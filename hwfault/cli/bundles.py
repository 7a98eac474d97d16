"""The options that go with bundles: what to write into one, and how to check one."""

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hwfault.cli.common import Seeds, print_json, progress
from hwfault.cli.paths import OutputFile
from hwfault.cli.reports import show_report

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from hwfault.graph.export.of_network import Arithmetic
    from hwfault.plan.fault_plan import FaultPlan
    from hwfault.proof.accept import Accept
    from hwfault.proof.answer import Runner
    from hwfault.proof.manifest import Manifest
    from hwfault.train.data.split import Split


class _Seconds(click.FloatRange):
    """A length of time; no number is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if found != found:
            self.fail(f"{value!r} is no length of time, expected seconds", param, ctx)
        return found


class _Accepts(click.ParamType[Any]):
    """What is accepted beside a pass: `outputs`, `outputs=1e-4` or `codes`."""

    name = "outputs[=BOUND]|codes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Literal["outputs", "codes"], float | None]:
        kind, separator, bound = str(value).partition("=")
        if kind == "codes" and not separator:
            return "codes", None
        try:
            number = float(bound) if separator else None
        except ValueError:
            number = math.nan
        # a bound of 1 would accept zeros in the place of all outputs
        if kind != "outputs" or not (number is None or 0 <= number < 1):
            self.fail(
                f"{value!r} cannot be accepted, expected outputs, codes, or outputs=BOUND with a bound from 0 to "
                "less than 1, as in outputs=1e-4",
                param,
                ctx,
            )
        return "outputs", number


_CHECKING = (
    click.option(
        "--html", type=OutputFile(".html", ".htm", what="the page"), help="Write the report to this HTML page, too."
    ),
    click.option(
        "--graph", "other", type=click.Path(path_type=Path), help="Of a bundle: this graph, made from one of its own."
    ),
    click.option("--runner", "function", help="Another engine in onnxruntime's place: module:function."),
    click.option(
        "--runner-command", "command_line", help="The same as a program, given an input and an output .npz file."
    ),
    click.option("--runner-url", "url", help="The same behind HTTP: .npz posted, .npz answered."),
    click.option(
        "--runner-timeout",
        "timeout",
        type=_Seconds(min=0, min_open=True, max=1e6),
        help="Seconds for a batch.  [default: 60]",
    ),
    click.option(
        "--accept",
        "accepts",
        type=_Accepts(),
        multiple=True,
        help="Exit code 0 also if outputs differ, by 1e-5 of the largest at most (outputs=BOUND: another "
        "bound), or codes that no fault strikes as well, by one grid step at 1 % of a site's words (codes).",
    ),
    click.option("--only", type=click.Choice(["clean", "faulty"]), help="Of a bundle: these runs only."),
)


_RECORDING = (
    click.option("--bundle", is_flag=True, help="Write graphs, plan, samples, and what PyTorch makes of them."),
    click.option("--samples", type=click.IntRange(min=1), help="Held-out samples in a bundle.  [default: 16]"),
    click.option("--seeds", type=Seeds(), help="Fault seeds in a bundle.  [default: 0-2]"),
    click.option(
        "--batch-size", type=click.IntRange(min=1), help="Samples at a time in a bundle.  [default: all of them]"
    ),
)


@dataclass(frozen=True)
class Recording:
    """What the options for writing a bundle say."""

    bundle: bool
    samples: int | None
    seeds: tuple[int, ...] | None
    batch_size: int | None

    def chosen_seeds(self, plan: "FaultPlan | None") -> tuple[int, ...]:
        """The seeds of a bundle, none without faults; raises UsageError for seeds without faults."""
        if plan is None and self.seeds is not None:
            raise click.UsageError("--seeds goes with faults: --faults, --ber or --plan")
        return () if plan is None else self.seeds or (0, 1, 2)

    def write_graph(self, out: Path, graph: "ModelProto", data: Path, plan: "FaultPlan | None") -> "Manifest":
        """Writes the bundle of a graph alone; the first samples of its data go along."""
        from hwfault.graph.run.graph_input import GraphInputs
        from hwfault.graph.run.samples import read_samples
        from hwfault.proof.record_graph import write_graph_bundle

        seeds = self.chosen_seeds(plan)
        wanted = GraphInputs.of(graph)
        # as many as fill the batches of a graph that is made for batches of one size
        count = self.samples or max(16 - 16 % (wanted.batch or 1), wanted.batch or 1)
        samples = read_samples(data, wanted, count)
        size = self.batch_size
        with progress() as begin:
            advance = begin("recording", 1 + len(seeds))
            return write_graph_bundle(out, graph, samples, plan=plan, seeds=seeds, batch_size=size, progress=advance)

    def write(
        self,
        out: Path,
        model: "nn.Module",
        split: "Split",
        plan: "FaultPlan | None",
        arithmetic: "Arithmetic",
        as_traced: bool,
    ) -> "Manifest":
        """Writes the bundle of a network; the split's first samples go along."""
        import torch

        from hwfault.proof.record import write_bundle

        seeds = self.chosen_seeds(plan)
        index = torch.arange(min(self.samples or 16, len(split)))
        with progress() as begin:
            return write_bundle(
                out,
                model,
                split.inputs(index),
                labels=split.labels[index],
                plan=plan,
                seeds=seeds,
                batch_size=self.batch_size,
                arithmetic=arithmetic,
                as_traced=as_traced,
                progress=begin("recording", 1 + len(seeds)),
            )


def recording_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for writing a bundle; the command is called with them as one argument `recording`."""

    @wraps(command)
    def with_recording(**given: Any) -> Any:
        recording = Recording(**{field.name: given.pop(field.name) for field in fields(Recording)})
        if not recording.bundle and recording != Recording(False, None, None, None):
            raise click.UsageError("--samples, --seeds and --batch-size go with --bundle")
        return command(recording=recording, **given)

    for option in reversed(_RECORDING):
        with_recording = option(with_recording)
    return with_recording


@dataclass(frozen=True)
class Checking:
    """What the options for checking say, a bundle or a graph beside its network."""

    html: Path | None = None
    other: Path | None = None
    function: str | None = None
    command_line: str | None = None
    url: str | None = None
    timeout: float | None = None
    accepts: tuple[tuple[Literal["outputs", "codes"], float | None], ...] = ()
    only: Literal["clean", "faulty"] | None = None

    @property
    def accept(self) -> "Accept | None":
        """What is accepted beside a pass; None: nothing."""
        from hwfault.proof.accept import BOUND, Accept

        if not self.accepts:
            return None
        bounds = [bound for _, bound in self.accepts if bound is not None]
        return Accept(outputs=bounds[-1] if bounds else BOUND, codes=any(kind == "codes" for kind, _ in self.accepts))

    @property
    def of_bundles(self) -> bool:
        """Whether any is given that goes with a bundle alone."""
        return self != Checking(html=self.html, accepts=self.accepts)

    def runner(self) -> "tuple[Runner, str] | tuple[None, None]":
        """The runner that the options name and what it is called; raises UsageError for several."""
        given = [self.function, self.command_line, self.url]
        if self.other is not None and (self.only is not None or given != [None, None, None]):
            raise click.UsageError("--graph goes with neither --only nor --runner...: it is clean or faulted itself")
        if sum(value is not None for value in given) > 1:
            raise click.UsageError("expected one of --runner, --runner-command and --runner-url")
        if not any(value is not None for value in given) and self.timeout is not None:
            raise click.UsageError("--runner-timeout goes with --runner, --runner-command or --runner-url")
        from hwfault.proof import runners

        timeout = 60.0 if self.timeout is None else self.timeout
        if self.function is not None:
            return runners.by_function(self.function, timeout), f"runner {self.function}"
        if self.command_line is not None:
            return runners.by_command(self.command_line, timeout), f"runner {self.command_line}"
        return (None, None) if self.url is None else (runners.by_url(self.url, timeout), f"runner {self.url}")


def checking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options for checking; the command is called with them as one argument `checking`."""

    @wraps(command)
    def with_checking(**given: Any) -> Any:
        own = {field.name: given.pop(field.name) for field in fields(Checking)}
        return command(checking=Checking(**own), **given)

    for option in reversed(_CHECKING):
        with_checking = option(with_checking)
    return with_checking


def replay_bundle(
    path: Path, checking: Checking, seeds: tuple[int, ...] | None, out: Path | None, as_json: bool
) -> None:
    """Checks a bundle, prints and writes what was found, and ends the process: exit code 0, or 3 where it differs."""
    from hwfault.graph.run.session import load_model
    from hwfault.proof.check import Which, check, runs_of
    from hwfault.proof.storage import Bundle

    runner, engine = checking.runner()
    bundle = Bundle.open(path)
    graph = None if checking.other is None else load_model(checking.other)
    which: Which = checking.only or "both"
    with progress() as begin:
        advance = begin("replaying", len(runs_of(bundle, seeds, which, graph)))
        report = check(bundle, seeds=seeds, which=which, graph=graph, runner=runner, engine=engine, progress=advance)
    show_report(report, accept=checking.accept, out=out, html=checking.html, as_json=as_json)


def written(out: Path, manifest: "Manifest", as_json: bool) -> None:
    """Says what a bundle holds."""
    size = sum(entry.bytes for entry in manifest.files.values())
    if as_json:
        print_json({"bundle": str(out), "bytes": size, "sites": len(manifest.sites), "plan": manifest.plan_sha256})
        return
    seeds = f", {len(manifest.seeds)} seeds" if manifest.seeds else ", clean"
    click.echo(f"{out}: {manifest.samples} samples{seeds}, {len(manifest.sites)} sites, {size / 1e6:.1f} MB unpacked")
    click.echo(f"next: hwfault replay {shlex.quote(str(out))}")
