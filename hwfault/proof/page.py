"""The report of a replay as one HTML page that needs nothing from outside it: the data of its template."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwfault.files import write_atomically
from hwfault.proof.report import BINS, Difference, ReplayReport, RunRecord, SiteRecord, run_name
from hwfault.proof.sentences import code_cells, fault_cells, integers_told, place, sentence, words_told
from hwfault.report.pages import render

_WIDTH, _HEIGHT = 448, 14


def write_page(path: Path | str, report: ReplayReport) -> None:
    """Writes the page, atomically; it holds no script and loads nothing."""
    write_atomically(path, page(report).encode())


def page(report: ReplayReport) -> str:
    """The page's HTML; names, which a bundle may have from anybody, are escaped."""
    beside = report.bundle_sha256 is None
    return render(
        "replay.html",
        title="Replay of a graph beside its network" if beside else "Replay of a bundle",
        verdict=report.verdict,
        sentence=sentence(report),
        notes=report.notes,
        facts=list(_facts(report)),
        runs=list(map(_run, report.runs)),
    )


def _facts(report: ReplayReport) -> Iterator[tuple[str, str]]:
    for number, fault in enumerate(report.faults):
        yield f"fault {number}", fault
    if report.rate is not None:
        yield "rate", report.rate
    if report.network is not None:
        yield "network", report.network
    if report.data is not None:
        yield "data", report.data
    if integers := integers_told(report):
        yield "integers", integers
    yield "engine", report.engine
    if report.bundle_sha256 is not None:
        yield "bundle", report.bundle_sha256
    yield "fault plan", report.plan_sha256 or "none"
    yield "recorded with", _versions(report.recorded_with)
    yield "checked with", _versions(report.versions)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "name": run_name(run.seed).removeprefix("the ").capitalize(),
        "outputs": _outputs(run),
        "sites": list(map(_site, run.sites)),
        "told": [told for site in run.sites for told in words_told(site)],
        "first": None if run.first is None else _first(run, run.first),
    }


def _outputs(run: RunRecord) -> str:
    """What a run says of outputs and predictions, and of the accuracy where labels are known."""
    told = (
        f"{run.predictions_differ:,} of {run.predictions:,} predictions and {run.outputs_differ:,} of {run.outputs:,} "
        f"outputs differ (by {run.outputs_max_difference:.3g} at most)."
    )
    if run.correct_recorded is None or run.correct_found is None or not run.predictions:
        return told
    recorded, found = (100 * count / run.predictions for count in (run.correct_recorded, run.correct_found))
    return f"{told} Accuracy {recorded:.1f} % as recorded, {found:.1f} % as found."


def _site(site: SiteRecord) -> dict[str, Any]:
    counts = (site.words, site.faults_expected, site.faults_seen, site.faults_differ, site.codes_differ)
    return {"name": site.name, "counts": counts, "band": _band(site)}


def _band(site: SiteRecord) -> dict[str, Any]:
    """The parts of a site's words in which any differs or is faulty."""
    of = min(BINS, len(site.differ_at))
    width, most = _WIDTH / max(of, 1), max(site.faults_at, default=0)
    parts = []
    for i, (differ, faulty) in enumerate(zip(site.differ_at, site.faults_at, strict=False)):
        if differ or faulty:
            opacity = 1.0 if differ else 0.25 + 0.75 * faulty / most
            where = {"x": f"{i * width:.2f}", "width": f"{width:.2f}", "opacity": f"{opacity:.2f}"}
            parts.append(where | {"number": i + 1, "differ": differ, "faulty": faulty})
    told = f"words of {site.name}: {site.faults_seen:,} faulty, {sum(site.differ_at):,} differ"
    return {"width": _WIDTH, "height": _HEIGHT, "of": of, "parts": parts, "told": told}


def _first(run: RunRecord, first: Difference) -> dict[str, Any]:
    """Where a run first differs, with the codes around it and the faults drawn there."""
    return {
        "place": place(run, first),
        "words": list(map(code_cells, first.words)),
        "mark": next((i for i, codes in enumerate(first.words) if codes.word == first.word), None),
        "faults": list(map(fault_cells, first.faults)),
    }
