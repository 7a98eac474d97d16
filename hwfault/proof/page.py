"""The report on a bundle as one HTML page that needs nothing from outside it."""

from collections.abc import Iterable, Sequence
from html import escape as escape_html
from pathlib import Path

from hwfault.files import write_atomically
from hwfault.proof.report import (
    BINS,
    Difference,
    ReplayReport,
    RunRecord,
    SiteRecord,
    run_name,
)
from hwfault.proof.sentences import code_cells, place, sentence
from hwfault.terminal import shown

_WIDTH, _HEIGHT = 448, 14
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 86em; padding: 0 1em; color: #1b1b1b }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
.verdict { padding: .7em 1em; border-left: 6px solid #0a7d4f; background: #eef7f2 }
.verdict.differs { border-color: #d55e00; background: #fdf1ea }
table { border-collapse: collapse; margin: .6em 0 } caption { text-align: left; font-weight: 600; padding: .3em 0 }
th, td { white-space: nowrap; text-align: right; padding: .15em .7em; border-bottom: 1px solid #ddd }
td { font-variant-numeric: tabular-nums }
th:first-child, td:first-child, td.text { text-align: left } td.here { background: #fbdcc7; font-weight: 600 }
.key span { display: inline-block; width: 1em; height: .8em; margin: 0 .3em 0 1em } svg { display: block }
"""
_EQUAL, _FAULTY, _DIFFERS = "#e3e6ea", "#0072b2", "#d55e00"


def write_page(path: Path | str, report: ReplayReport) -> None:
    """Writes the page, atomically; it holds no script and loads nothing."""
    write_atomically(path, page(report).encode())


def page(report: ReplayReport) -> str:
    """The page's HTML; names, which a bundle may have from anybody, are escaped."""
    state = "verdict" if report.verdict == "pass" else "verdict differs"
    facts = [
        ("engine", report.engine),
        ("bundle", report.bundle_sha256),
        ("fault plan", report.plan_sha256 or "none"),
        ("recorded with", _versions(report.recorded_with)),
        ("checked with", _versions(report.versions)),
    ]
    body = [
        "<h1>Replay of a bundle</h1>",
        f'<p class="{state}">{escape(sentence(report))}</p>',
        *(f"<p>Note on the faults: {escape(note)}</p>" for note in report.notes),
        _table([], facts, texts=2),
        f'<p class="key">Each row is a site in the graph\'s order, its words from left to right:'
        f'<span style="background:{_EQUAL}"></span>as recorded<span style="background:{_FAULTY}"></span>as recorded, '
        f'with faults<span style="background:{_DIFFERS}"></span>differs</p>',
        *(part for run in report.runs for part in _run(run)),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>hwfault replay: {report.verdict}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def escape(text: str) -> str:
    """The text with nothing in it that a browser would take for markup, or that turns the direction of other text."""
    return escape_html(shown(text))


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _run(run: RunRecord) -> Iterable[str]:
    yield f"<h2>{escape(run_name(run.seed).removeprefix('the ').capitalize())}</h2>"
    yield f"<p>{run.predictions_differ:,} of {run.predictions:,} predictions and {run.outputs_differ:,} of "
    yield f"{run.outputs:,} outputs differ (by {run.outputs_max_difference:.3g} at most).{_accuracy(run)}</p>"
    if run.sites:
        columns = ["site", "", "words", "faults recorded", "found", "faults differ", "codes differ"]
        yield _table(columns, [_site(site) for site in run.sites], raw=1)
    if run.first is not None:
        yield f"<p>First difference: {escape(place(run, run.first))}.</p>"
        yield from _around(run.first)


def _accuracy(run: RunRecord) -> str:
    if run.correct_recorded is None or run.correct_found is None or not run.predictions:
        return ""
    shares = (100 * count / run.predictions for count in (run.correct_recorded, run.correct_found))
    return " Accuracy {:.1f} % as recorded, {:.1f} % as found.".format(*shares)


def _site(site: SiteRecord) -> list[object]:
    counts = (site.words, site.faults_expected, site.faults_seen, site.faults_differ, site.codes_differ)
    return [site.name, _strip(site), *(f"{count:,}" for count in counts)]


def _strip(site: SiteRecord) -> str:
    """The words of a site as a band: as dark as a part's share of faults, and red where any word differs."""
    parts = min(BINS, len(site.differ_at))
    width = _WIDTH / max(parts, 1)
    most = max(site.faults_at, default=0)
    cells = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="{_EQUAL}"/>']
    for i, (wrong, faulty) in enumerate(zip(site.differ_at, site.faults_at, strict=False)):
        if wrong or faulty:
            colour, opacity = (_DIFFERS, 1.0) if wrong else (_FAULTY, 0.25 + 0.75 * faulty / most)
            at = f'x="{i * width:.2f}" width="{width:.2f}" height="{_HEIGHT}"'
            note = f"<title>part {i + 1} of {parts}: {wrong:,} words differ, {faulty:,} faulty</title>"
            cells.append(f'<rect {at} fill="{colour}" fill-opacity="{opacity:.2f}">{note}</rect>')
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="words of the site">{"".join(cells)}</svg>'


def _around(first: Difference) -> Iterable[str]:
    if first.words:
        columns = ["word", "recorded before", "after the faults", "found before", "after the faults"]
        rows = [code_cells(codes) for codes in first.words]
        mark = next((i for i, codes in enumerate(first.words) if codes.word == first.word), None)
        yield _table(columns, rows, caption="Codes around it", mark=mark)
    if first.faults:
        faults = [[f.process, f.word, _known(f.bit), _known(f.aux), f.effect] for f in first.faults]
        yield _table(["fault", "word", "bit", "aux", "effect"], faults, caption="Faults drawn on these words")


def _known(value: int | None) -> object:
    return "-" if value is None else value


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    mark: int | None = None,
    raw: int = -1,
    texts: int = 1,
) -> str:
    """A table; column `raw` holds HTML, the first `texts` columns text, and row `mark` stands out."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = []
    for i, row in enumerate(rows):
        here = ' class="here"' if i == mark else ""
        cells = [str(cell) if j == raw else escape(str(cell)) for j, cell in enumerate(row)]
        kinds = [' class="text"' if 0 < j < texts else here for j in range(len(cells))]
        lines.append("<tr>" + "".join(f"<td{k}>{c}</td>" for k, c in zip(kinds, cells, strict=True)) + "</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{head}</tr></thead>" if columns else ""
    return f"<table>{title}{top}<tbody>{''.join(lines)}</tbody></table>"
