"""`hwfault evaluate`: accuracy of trained networks under faults."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwfault.cli.common import (
    Rates,
    Seeds,
    data_option,
    json_option,
    load_run,
    network_option,
    print_json,
    print_table,
    progress,
)
from hwfault.cli.fault_options import Given, fault_options

if TYPE_CHECKING:
    from hwfault.campaign import Trials


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@network_option
@data_option
@fault_options
@click.option("--rates", type=Rates(), help="Sweep symmetric bit errors over these rates, e.g. 0,0.001,0.03.")
@click.option("--seeds", type=Seeds(), default="0-19", show_default=True, help="Fault seeds: one trial each.")
@click.option("--batch-size", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results.csv and accuracy.png.")
@json_option
def command(
    run: Path,
    network: str | None,
    data: str | None,
    given: Given,
    rates: tuple[float, ...] | None,
    seeds: tuple[int, ...],
    batch_size: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Accuracy of RUN (a folder of `hwfault train`, or a checkpoint) on its held-out data, under faults or without.

    The faults are those of --faults or --ber, or a sweep of --rates; without any of them there are none.
    """
    import torch

    from hwfault.campaign import draw_accuracy, evaluate, sweep, write_results
    from hwfault.files import output_folder
    from hwfault.profiles.models import bit_errors

    folder = None if out is None else output_folder(out)
    if rates is not None and given.anything:
        raise click.UsageError("--rates and --faults or --ber were both given, expected one of them")
    given.check_strict()
    faults = given.faults if rates is None else ()
    model, config, held_out = load_run(run, network, data)
    x, y = held_out.test.inputs(torch.arange(len(held_out.test))), held_out.test.labels
    with progress() as begin:
        if rates is not None:
            advance = begin("evaluating", len(rates))
            points = sweep(
                model,
                x,
                y,
                rates,
                seeds=seeds,
                faults_at=lambda rate: bit_errors(rate, "*" if given.select is None else given.select),
                batch_size=batch_size,
                progress=lambda _trials: advance(),
            )
        else:
            advance = begin("evaluating", 1)
            points = (evaluate(model, x, y, faults, seeds=seeds, device=given.device, batch_size=batch_size),)
            advance()
    if folder is not None:
        write_results(folder / "results.csv", {str(run): points})
        if rates is not None:
            draw_accuracy(folder / "accuracy.png", {str(run): points}, title=config.network)
    if as_json:
        print_json([_as_data(p) for p in points])
        return
    rows = [
        [_what(p.ber, bool(faults)), f"{p.mean:.2%}", *(f"{v:.2%}" for v in p.interval), len(p.seeds), p.samples]
        for p in points
    ]
    print_table(["BER", "accuracy", "95 % from", "to", "trials", "samples"], rows)
    for p in (p for p in points if p.protection):
        counts = [f"{sum(getattr(c, what) for c in p.protection):,} {what}" for what in ("corrected", "detected")]
        wrong = sum(c.miscorrected for c in p.protection)
        click.echo(f"protected words: {', '.join(counts)}, {wrong:,} wrong unnoticed; {sum(p.due)} trials count as DUE")


def _as_data(trials: "Trials") -> dict[str, object]:
    unprotected = None if trials.protection else {"protection", "due"}
    data = trials.model_dump(mode="json", exclude=unprotected)
    if trials.protection:
        data["protection"] = [counts._asdict() for counts in trials.protection]
    return data | {"mean": trials.mean, "interval": trials.interval}


def _what(ber: float | None, faults: bool) -> str:
    return f"{ber:g}" if ber is not None else "as given" if faults else "no faults"
