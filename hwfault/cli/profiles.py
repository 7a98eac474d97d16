"""`hwfault profiles`: the measured and reference fault profiles, and your own."""

import textwrap
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.command import Command, Commands
from hwfault.cli.common import json_option, print_json, print_table
from hwfault.cli.paths import OutputFile
from hwfault.files import PICTURES

if TYPE_CHECKING:
    from hwfault.profiles.profile import Profile, Rate

_ELSEWHERE: dict[str, str] = {"fit": "hwfault.cli.profiles_device", "draw": "hwfault.cli.profiles_device"}
"""Commands of the group that lie in another module, by their name there: name -> module."""

strict_option = click.option("--strict-sources", is_flag=True, help="Refuse what rests on an assumption.")


class _Group(Commands):
    """Imports the commands of other files when they are called."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_ELSEWHERE]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _ELSEWHERE:
            return super().get_command(ctx, name)
        command: click.Command = getattr(import_module(_ELSEWHERE[name]), name)
        return command


@click.group("profiles", cls=_Group)
def command() -> None:
    """Fault profiles: how pieces of hardware corrupt stored bits, with the source of every number.

    NAME is a profile of the library, or the path of a YAML file of your own.
    """


@command.command("list", examples=["profiles list"])
@json_option
def list_(as_json: bool) -> None:
    """List the library. Status: the worst of the sources (read, derived, assumed), or free if you set the rate."""
    from hwfault.profiles.describe import summary
    from hwfault.profiles.library import library
    from hwfault.profiles.profile import Profile

    found = [summary(Profile.load(name)) for name in library()]
    if as_json:
        print_json(found)
        return
    columns = ["name", "component", "operating point", "persistence", "status", "title"]
    rows = [
        [p["name"], p["component"], ", ".join(p["operating_point"]), p["persistence"], p["status"], p["title"]]
        for p in found
    ]
    print_table(columns, rows)


@command.command("show", examples=["profiles show bram28-kintex7-kc705b-undervolt@voltage_v=0.53"])
@click.argument("name", metavar="NAME[@AXIS=VALUE,...]")
@strict_option
@json_option
def show(name: str, strict_sources: bool, as_json: bool) -> None:
    """Show a profile: its numbers with 95 % intervals, its sources, and the rate at an operating point if one is given.

    Intervals are those of the counts (Clopper and Pearson): they take faults for independent of each other.
    """
    profile, point = _load(name)
    rate = profile.resolve_rate(point, strict_sources=strict_sources) if point or strict_sources else None
    _print(profile, point, rate, as_json)


@command.command("plot", examples=["profiles plot bram28-kintex7-kc705b-undervolt --out curve.png"])
@click.argument("name", metavar="NAME[@AXIS=VALUE,...]")
@click.option(
    "--out", type=OutputFile(*PICTURES, what="the picture"), help="The picture (.png, .svg, .pdf).  [default: NAME.png]"
)
@click.option("--device", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="The device's number.")
@strict_option
def plot(name: str, out: Path | None, device: int, strict_sources: bool) -> None:
    """Draw a profile's rate curve and, beside it, the fault map of one device.

    The map is drawn at the given operating point, or at the measured point with the highest rate.
    """
    from hwfault.devices.holding import pattern_note
    from hwfault.files import check_picture
    from hwfault.notices import tell_once
    from hwfault.report.map_pictures import device_panels
    from hwfault.report.profile_pictures import draw_profile

    profile, point = _load(name)
    out = Path(f"{profile.name}.png") if out is None else out
    check_picture(out)
    if not point and profile.rate.points:
        point = max(profile.rate.points, key=profile.rate.drawn).at
    rate = profile.resolve_rate(point, strict_sources=strict_sources)
    if (note := pattern_note(profile, point)) is not None:
        tell_once([note])
    draw_profile(out, profile, at=point, maps=device_panels(profile, rate, device))
    click.echo(f"{out}: {profile.name} at {_text(point)}, device {device}")


@command.command("check", examples=["profiles check mine.yaml"])
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Check a profile of your own; FILE is its path."""
    from hwfault.profiles.profile import Profile

    profile = Profile.load(file)
    if as_json:
        _print(profile, {}, None, as_json)
        return
    _print(profile, {}, None, as_json)
    click.echo(f"\n{file}: a valid profile")


def _load(name: str) -> "tuple[Profile, dict[str, float]]":
    from hwfault.profiles.library import parse_operating_point
    from hwfault.profiles.profile import Profile

    profile, point = parse_operating_point(name)
    return Profile.load(profile), point


def _text(point: dict[str, float]) -> str:
    return ",".join(f"{axis}={value:g}" for axis, value in point.items())


def _print(profile: "Profile", point: dict[str, float], rate: "Rate | None", as_json: bool) -> None:
    from hwfault.devices.holding import pattern_note
    from hwfault.profiles.describe import describe_rate, lines, points, rate_sentence, sources, summary

    note = None if rate is None else pattern_note(profile, point)
    if as_json:
        at = None if rate is None else {"operating_point": point, **describe_rate(rate), "note": note}
        told = {"digest": profile.digest, "points": points(profile.rate), "resolved": at}
        print_json(summary(profile) | told | {"profile": profile.model_dump(mode="json")})
        return
    click.echo(f"{profile.name}: {profile.title}\n")
    _print_lines(lines(profile))
    if profile.rate.points:
        click.echo()
        print_table(*_rate_table(profile))
    if profile.sources:
        click.echo()
        _print_lines(sources(profile))
    if profile.notes:
        click.echo()
        _print_lines([("notes", profile.notes)])
    if rate is not None:
        click.echo(f"\nat {_text(point)}: {rate_sentence(profile, rate)}")
    if note is not None:
        click.echo(f"\n{note}")


def _print_lines(found: Iterable[tuple[str, str]]) -> None:
    found = list(found)
    width = max(len(what) for what, _ in found) + 2
    for what, text in found:
        filled = textwrap.wrap(text, 118 - width, break_long_words=False, break_on_hyphens=False)
        click.echo(what.ljust(width) + f"\n{' ' * width}".join(filled))


def _rate_table(profile: "Profile") -> tuple[list[str], list[list[Any]]]:
    from hwfault.profiles.describe import points

    axes = [f"{axis.name} ({axis.unit})" for axis in profile.rate.axes]
    columns = [*axes, "rate", "95 % from", "to", "faults", "of cells", "source"]
    return columns, [_row(point) for point in points(profile.rate)]


def _row(point: dict[str, Any]) -> list[Any]:
    low, high = ("-", "-") if point["interval"] is None else (f"{v:.3g}" for v in point["interval"])
    bound = "upper bound: at most " if point["upper_bound"] else ""
    counts = ["-" if point[key] is None else f"{point[key]:,}" for key in ("n_faults", "n_bits")]
    values = [f"{value:g}" for value in point["at"].values()]
    return [*values, f"{bound}{point['rate']:.6g}", low, high, *counts, point["source"]]
