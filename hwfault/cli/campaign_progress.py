"""How far a campaign is while it runs: a bar for each task on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.command import QUIET, loudness
from hwfault.cli.door import escaped_streams, unescaped
from hwfault.terminal import shown

if TYPE_CHECKING:
    from hwfault.campaigns.driver import Present
    from hwfault.campaigns.study.tasks import Task

_EVERY_SECONDS = 30.0
"""Where nobody watches, a line comes at most this often."""

Progress = Callable[["Present"], None]


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Tells on stderr of the task at hand: trials done, rate, time left to the next look, present interval."""
    if loudness() == QUIET:
        yield lambda present: None
    elif unescaped(sys.stderr).isatty():
        with _bars() as progress:
            yield progress
    else:
        yield lines_now_and_then(lambda text: click.echo(text, err=True))


def lines_now_and_then(say: Callable[[str], object], every: float = _EVERY_SECONDS) -> Progress:
    """Says a line of a task, the first after so many seconds and at most one in so many."""
    said = time.monotonic()

    def progress(present: "Present") -> None:
        nonlocal said
        if time.monotonic() - said >= every:
            said = time.monotonic()
            say(line_of(present))

    return progress


def line_of(present: "Present") -> str:
    """A task in one line: curve ber=0.001: 240 of 320 trials, 35.1/s, 0:02 to the next look, SDC 0.01 (0 to 0.02)."""
    parts = [f"{present.done:,} of {present.until:,} trials"]
    if present.rate is not None:
        left = int((present.until - present.done) / present.rate)
        hours, minutes = divmod(left // 60, 60)
        told = f"{hours}:{minutes:02d}:{left % 60:02d}" if hours else f"{minutes}:{left % 60:02d}"
        parts += [f"{present.rate:.3g}/s", f"{told} to the next look"]
    if present.decision is not None:
        parts.append(_told(present))
    return f"{shown(present.task.name, one_line=True)}: {', '.join(parts)}"


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    with Progress(*columns, console=Console(file=unescaped(sys.stderr))) as display, escaped_streams():
        bars: dict[str, Any] = {}

        def progress(present: "Present") -> None:
            name = present.task.name
            if name not in bars:
                bars[name] = display.add_task(shown(name, one_line=True), total=present.until, rate="", now="")
            fields: dict[str, Any] = {}
            if present.rate is not None:
                fields["rate"] = f"{present.rate:.3g}/s"
            if present.decision is not None:
                fields["now"] = _told(present)
            display.update(bars[name], completed=present.done, total=present.until, **fields)

        yield progress


def _told(present: "Present") -> str:
    from hwfault.campaigns.words import cell

    assert present.decision is not None
    # first turns are no SDC
    what = f"turned by {_end_of(present.task)}" if present.task.sweep else "SDC"
    return f"{what} {cell(present.decision.estimate)}"


def _end_of(task: "Task") -> str:
    labels, _ = task.sweep[-1]
    return " ".join(f"{key}={value}" for key, value in labels.items())
