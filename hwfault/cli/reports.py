"""Showing the report of a replay, of a bundle or of a graph beside its network, and ending with its exit code."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwfault.cli.common import print_json, print_table

if TYPE_CHECKING:
    from hwfault.proof.accept import Accept
    from hwfault.proof.report import Difference, ReplayReport, RunRecord, SiteRecord


def show_report(
    report: "ReplayReport",
    *,
    accept: "Accept | None" = None,
    out: Path | None = None,
    html: Path | None = None,
    as_json: bool = False,
) -> None:
    """Writes and prints a report, and ends the process: exit code 0 for what passes or is accepted, else 3."""
    from hwfault.proof.accept import refusals
    from hwfault.proof.sentences import judgement, sentence

    # files
    if out is not None:
        report.save(out)
    if html is not None:
        from hwfault.proof.page import write_page

        write_page(html, report)
    # the terminal
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print(report)
        click.echo(sentence(report))
    # what is accepted beside a pass
    if accept is None or report.exit_code == 0:
        sys.exit(report.exit_code)
    click.echo(judgement(report, accept), err=as_json)
    sys.exit(report.exit_code if refusals(report, accept) else 0)


def _print(report: "ReplayReport") -> None:
    from hwfault.proof.report import run_name
    from hwfault.proof.sentences import integers_told, words_told

    runs = [
        [run_name(run.seed).removeprefix("the "), run.predictions, run.predictions_differ, run.outputs_differ]
        for run in report.runs
    ]
    print_table(["run", "predictions", "differ", "outputs differ"], runs)
    if report.sites:
        click.echo()
        print_table(_COLUMNS, list(map(_site_cells, report.sites)))
    if integers := integers_told(report):
        click.echo(integers)
    for told in (told for site in report.sites for told in words_told(site)):
        click.echo(told)
    if report.first is not None:
        _print_first(*report.first)


_COLUMNS = ["site", "words", "faults recorded", "found", "differ", "other codes differ"]


def _site_cells(site: "SiteRecord") -> list[object]:
    counts = (site.words, site.faults_expected, site.faults_seen, site.faults_differ, site.codes_differ)
    return [site.name, *counts]


def _print_first(run: "RunRecord", first: "Difference") -> None:
    """The sites that differ in the first run in which any does, and what is around the first difference."""
    from hwfault.proof.report import run_name
    from hwfault.proof.sentences import code_cells, fault_cells

    rows = [_site_cells(site) for site in run.sites if site.first is not None]
    if rows:
        click.echo(f"\nsites that differ in {run_name(run.seed)}:")
        print_table(_COLUMNS, rows)
    if first.words:
        click.echo(f"\ncodes around word {first.word} of {first.site}, sample {first.sample}:")
        codes = [code_cells(around) for around in first.words]
        print_table(["word", "recorded before", "after", "found before", "after"], codes)
    if first.faults:
        click.echo("\nfaults drawn on these words:")
        print_table(["fault", "word", "bit", "aux", "effect"], [fault_cells(hit) for hit in first.faults])
