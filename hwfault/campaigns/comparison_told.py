"""What a comparison of two campaigns says: a table, JSON, CSV, a picture and a page."""

import io
import json
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwfault.campaigns.comparison import Compared, Comparison
from hwfault.campaigns.page.curves import Picture
from hwfault.campaigns.page.words import confidence, share
from hwfault.campaigns.picture import plain
from hwfault.campaigns.report_table import Table
from hwfault.campaigns.statistics.estimates import METHODS, Estimate
from hwfault.campaigns.tables import write_table
from hwfault.files import write_atomically
from hwfault.report.colours import DARK_GREY, SERIES
from hwfault.report.pages import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

PAGE = "comparison.html"


def comparison_table(found: Comparison) -> Table:
    """Columns and rows for people; differences are second less first."""
    first, second = found.names
    columns = [
        "task",
        "trials",
        f"SDC {first}",
        f"SDC {second}",
        "difference",
        f"{second} has",
        "accuracy, difference",
        "by",
    ]
    return columns, [_row(one) for one in found.compared]


def _row(one: Compared) -> list[str]:
    rates = [f"{rate:.4g}" for rate in one.sdc]
    accuracy = "-" if one.accuracy_difference is None else _difference(one.accuracy_difference)
    difference = one.sdc_difference
    return [
        one.name,
        f"{one.trials:,}",
        *rates,
        _difference(difference),
        verdict(difference),
        accuracy,
        difference.by,
    ]


def _difference(estimate: Estimate) -> str:
    if estimate.ends is None:
        return f"{estimate.value:+.4g} exact"
    low, high = estimate.ends
    return f"{estimate.value:+.3g} ({low:+.3g} to {high:+.3g})"


def verdict(difference: Estimate) -> str:
    """Whether the second has more than the first: "more", "less", "equal" of exact ones, or "not told apart"."""
    low, high = difference.ends or (difference.value, difference.value)
    if low > 0:
        return "more"
    if high < 0:
        return "less"
    return "equal" if difference.ends is None else "not told apart"


def comparison_data(found: Comparison) -> dict[str, Any]:
    """All of it as JSON tells it."""
    compared = []
    for one in found.compared:
        data = one._asdict() | {"labels": dict(one.labels), "verdict": verdict(one.sdc_difference)}
        for key in ("sdc_difference", "accuracy_difference"):
            estimate = data[key]
            data[key] = None if estimate is None else estimate._asdict() | {"method": METHODS[estimate.by]}
        compared.append(data)
    left_out = [{"task": task, "why": why} for task, why in found.left_out]
    names = {"first": found.names[0], "second": found.names[1], "subjects": list(found.subjects)}
    return names | {"compared": compared, "left_out": left_out}


def _lines(found: Comparison) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for one in found.compared:
        line: dict[str, object] = {"question": one.question, **one.labels, "trials": one.trials}
        line |= {"sdc_first": one.sdc[0], "sdc_second": one.sdc[1]}
        for key, estimate in (("sdc", one.sdc_difference), ("accuracy", one.accuracy_difference)):
            if estimate is not None:
                low, high = estimate.ends or (None, None)
                line |= {f"{key}_difference": estimate.value, f"{key}_low": low, f"{key}_high": high}
                line |= {f"{key}_by": estimate.by}
        lines.append(line)
    return lines


def write_comparison(folder: Path, found: Comparison) -> list[str]:
    """Leaves comparison.json, .csv, .html and a picture in a folder, and says which files; raises FileError."""
    data = json.dumps(comparison_data(found), indent=1) + "\n"
    write_atomically(folder / "comparison.json", data.encode())
    write_table(folder / "comparison.csv", _lines(found))
    picture = draw_differences(found) if found.compared else None
    write_atomically(folder / PAGE, _page(found, picture).encode())
    names = ["comparison.json", "comparison.csv", PAGE]
    return names if picture is None else names + picture.write(folder)


def _page(found: Comparison, picture: Picture | None) -> str:
    rows = []
    for one in found.compared:
        rates = [share(rate) for rate in one.sdc]
        accuracy = "-" if one.accuracy_difference is None else _points(one.accuracy_difference)
        told = _points(one.sdc_difference)
        rows.append((one.name, f"{one.trials:,}", *rates, told, verdict(one.sdc_difference), accuracy))
    used = {one.sdc_difference.by: METHODS[one.sdc_difference.by] for one in found.compared}
    embedded = None
    if picture is not None:
        source = f"data:image/svg+xml;base64,{b64encode(picture.svg).decode()}"
        embedded = {"title": picture.title, "alt": picture.alt, "data": source}
    return render(
        "comparison.html",
        first=found.names[0],
        second=found.names[1],
        subjects=list(zip(found.names, found.subjects, strict=True)),
        rows=rows,
        left_out=found.left_out,
        methods=list(used.items()),
        covers=_covered(found),
        picture=embedded,
    )


def _covered(found: Comparison) -> list[str]:
    """With which confidence, and of what, the intervals are; exact differences have none."""
    told: dict[str, None] = {}
    for one in found.compared:
        for difference in (one.sdc_difference, one.accuracy_difference):
            if difference is not None and difference.ends is not None:
                told[confidence(difference)] = None
    return sorted(told)


def _points(estimate: Estimate) -> str:
    """A difference in percentage points."""
    if estimate.ends is None:
        return f"{100 * estimate.value:+.3g} points, exact"
    low, high = estimate.ends
    return f"{100 * estimate.value:+.3g} points ({100 * low:+.3g} to {100 * high:+.3g})"


def draw_differences(found: Comparison) -> Picture:
    """The difference of each task with its interval, beside the line of none."""
    from matplotlib.figure import Figure as Drawing  # slow to import, and only needed here

    count = len(found.compared)
    figure = Drawing(figsize=(5, 1.2 + 0.32 * count), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for place, one in enumerate(found.compared):
        difference = one.sdc_difference
        axes.plot([difference.value], [place], color=SERIES[0], marker="o", markersize=6)
        if difference.ends is not None:
            axes.plot(difference.ends, [place, place], color=SERIES[0], linewidth=1.6, marker="|", markersize=8)
    axes.axvline(0, color=DARK_GREY, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
    axes.set_yticks(range(count), [plain(one.name) for one in found.compared], fontsize=8)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel(f"silent wrong answers (share), {plain(found.names[1])} less {plain(found.names[0])}")
    axes.grid(alpha=0.3, axis="x")
    return _picture(figure, found)


def _picture(figure: "Drawing", found: Comparison) -> Picture:
    import matplotlib

    svg, png = io.BytesIO(), io.BytesIO()
    # the same comparison gives the same bytes
    with matplotlib.rc_context({"svg.hashsalt": "hwfault"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png")
    title = f"Silent wrong answers, {found.names[1]} less {found.names[0]}"
    told = "; ".join(f"{one.name}: {_difference(one.sdc_difference)}" for one in found.compared)
    return Picture("comparison", title, f"{title}: {told}.", svg.getvalue(), png.getvalue())
