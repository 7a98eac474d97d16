"""`hwfault profiles fit` and `draw`: from a measured device to a profile, and from a profile to devices."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, progress
from hwfault.cli.paths import OutputFile
from hwfault.files import PICTURES

if TYPE_CHECKING:
    from hwfault.devices.crowding import Statistics
    from hwfault.devices.dumps import Measurement
    from hwfault.devices.fit import Fit
    from hwfault.profiles.profile import Profile
    from hwfault.stream.fault_map import FaultMap

_POSITIVE = click.IntRange(min=1)
_FORMATS = ("kc705", "csv", "npz", "pair", "hex_pair", "binary_pair")  # tests hold it equal to dumps.FORMATS


plot_option = click.option(
    "--plot",
    type=OutputFile(*PICTURES, what="the picture"),
    help="Write the picture of the map (.png, .svg, .pdf) to this file.",
)


@click.command(
    "fit",
    cls=Command,
    examples=["profiles fit KC705B-0.53.bin@voltage_v=0.53 KC705B-0.54.bin@voltage_v=0.54 -o mine.yaml"],
)
@click.argument("dumps", nargs=-1, required=True, metavar="DUMP[@AXIS=VALUE,...]...")
@click.option(
    "-o",
    "--out",
    type=OutputFile(".yaml", ".yml", what="the profile"),
    required=True,
    help="The profile to write (.yaml).",
)
@click.option("--name", help="The profile's name.  [default: from the file's name]")
@click.option("--title", help="One line for people.")
@click.option("--format", type=click.Choice(_FORMATS), help="How the dumps are written.  [default: by content]")
@click.option("--rows", type=_POSITIVE, help="Rows of the memory, where the dumps do not tell.")
@click.option("--row-bits", type=_POSITIVE, help="Bits of a row, where the dumps do not tell.  [default for pairs: 8]")
@click.option("--block-rows", type=_POSITIVE, help="Rows of a block.  [default: 1024]")
@click.option("--devices", type=click.IntRange(min=0), default=100, show_default=True, help="Devices drawn to compare.")
@plot_option
@click.option(
    "--save-map",
    type=OutputFile(".safetensors", what="the map"),
    help="Write the harshest dump's map (.safetensors) to this file.",
)
@json_option
def fit(
    dumps: tuple[str, ...],
    out: Path,
    name: str | None,
    title: str | None,
    format: str | None,
    rows: int | None,
    row_bits: int | None,
    block_rows: int | None,
    devices: int,
    plot: Path | None,
    save_map: Path | None,
    as_json: bool,
) -> None:
    """Fit a profile to dumps of a memory, measured at one or more operating points.

    A DUMP is a hex dump of the KC705 study, a table of address,bit,kind (CSV or NPZ), or a pair WRITTEN:READ of the
    pattern written and what was read back (hex text or raw bytes). For example: KC705B-0.53.bin@voltage_v=0.53
    """
    from hwfault.devices.fit import fit as fit_profile
    from hwfault.devices.fit_report import as_data, summary
    from hwfault.profiles.write import write_profile

    size = {"format": format, "rows": rows, "row_bits": row_bits, "block_rows": block_rows}
    measurements = _load(dumps, size)
    found = fit_profile(measurements, name=name or _name(out), title=title)
    drawn = _drawn(found, devices)
    write_profile(out, found.profile)
    worst = found.harshest
    if save_map is not None:
        worst.map.save(save_map)
    if plot is not None:
        from hwfault.report.map_picture import draw_map_overview

        draw_map_overview(plot, worst.map, worst.row_bits, worst.block_rows, title=_title(worst))
    if as_json:
        print_json(as_data(found, drawn))
        return
    click.echo("\n\n".join(summary(found, drawn)))
    for path, what in ((out, "the profile"), (save_map, "the map"), (plot, "its picture")):
        if path is not None:
            click.echo(f"\n{path}: {what}" if what == "the profile" else f"{path}: {what}")


def _load(dumps: Sequence[str], size: dict[str, Any]) -> "list[Measurement]":
    from hwfault.devices.dumps import load_dump, parse_dump

    found = []
    with progress() as begin:
        step = begin("reading dumps", len(dumps))
        for dump in dumps:
            source, at = parse_dump(dump)
            found.append(load_dump(source, at=at, **size))
            step()
    return found


def _drawn(found: "Fit", devices: int) -> "list[Statistics]":
    from hwfault.devices.synthetic import drawn_statistics

    if not devices or not sum(found.harshest.by_kind()):
        return []
    with progress() as begin:
        return drawn_statistics(found, devices, begin("drawing devices from the profile", devices))


def _name(out: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in out.stem)
    return kept.lstrip("._-") or "fitted"


def _title(measurement: "Measurement") -> str:
    at = ", ".join(f"{axis} = {value:g}" for axis, value in measurement.at.items())
    return measurement.file + (f" at {at}" if at else "")


@click.command(
    "draw",
    cls=Command,
    examples=["profiles draw bram28-kintex7-kc705b-undervolt@voltage_v=0.53 --device 1 -o device.safetensors"],
)
@click.argument("profile", metavar="PROFILE[@AXIS=VALUE,...]")
@click.option("--device", type=int, default=0, show_default=True, help="Number of the device.")
@click.option("--rows", type=_POSITIVE, help="Rows of the memory.  [default: the profile's]")
@click.option("--blocks", type=_POSITIVE, help="The same in blocks, where the profile's pattern has blocks.")
@click.option(
    "--row-bits", type=_POSITIVE, help="Bits of a row, or of an element's register.  [default: the profile's]"
)
@click.option(
    "-o",
    "--out",
    type=OutputFile(".safetensors", what="the map"),
    required=True,
    help="The map to write (.safetensors).",
)
@click.option("--strict-sources", is_flag=True, help="Refuse what rests on an assumption.")
@plot_option
@json_option
def draw(
    profile: str,
    device: int,
    rows: int | None,
    blocks: int | None,
    row_bits: int | None,
    out: Path,
    strict_sources: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Draw a synthetic device from a profile of permanent or intermittent faults: the map of one device number.

    PROFILE is a name of the library or a path, with its operating point: mine.yaml@voltage_v=0.53
    """
    from hwfault.devices.device import places
    from hwfault.devices.synthetic import draw_device, memory_rows
    from hwfault.profiles.library import parse_operating_point
    from hwfault.profiles.profile import Profile

    path, point = parse_operating_point(profile)
    found = Profile.load(path)
    rows = memory_rows(found, rows, blocks)
    drawn = draw_device(found, point, device=device, rows=rows, row_bits=row_bits, strict_sources=strict_sources)
    drawn.save(out)
    cells, bits = drawn.words * drawn.bit_width, int(drawn.provenance["row_bits"])
    faults = len(places(drawn, bits)[0])
    if plot is not None:
        _plot_drawn(plot, found, drawn, bits)
    if as_json:
        print_json({"out": str(out), "cells": cells, "faults": faults, "provenance": dict(drawn.provenance)})
        return
    click.echo(f"{out}: device {device} of {profile}: {faults:,} faulty cells of {cells:,} in {cells // bits:,} rows")


def _plot_drawn(plot: Path, profile: "Profile", drawn: "FaultMap", row_bits: int) -> None:
    from hwfault.profiles.spatial import BlockColumn
    from hwfault.report.map_picture import draw_map_overview

    rows = drawn.words * drawn.bit_width // row_bits
    block = profile.spatial.block_rows if isinstance(profile.spatial, BlockColumn) else min(1024, rows)
    title = f"{profile.name}, device {drawn.provenance['device']}"
    if drawn.provenance["operating_point"]:
        title += f" at {drawn.provenance['operating_point']}"
    draw_map_overview(plot, drawn, row_bits, block, title=title)
