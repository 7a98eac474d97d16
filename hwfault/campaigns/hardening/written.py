"""Hardening advice from a store, and its files beside it: JSON, the cheapest plan's faults as YAML, a picture."""

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.advice import NOT_ASSESSED, Advice, Plan, advise
from hwfault.campaigns.hardening.faults import FILE, faults_of, write_faults
from hwfault.campaigns.hardening.harm import Harm, read_harm
from hwfault.campaigns.hardening.picture import draw_front
from hwfault.campaigns.hardening.proof import Tried
from hwfault.campaigns.kept import KeptTask, kept_tasks
from hwfault.campaigns.page.curves import Picture
from hwfault.campaigns.page.page import write_page
from hwfault.campaigns.study.hardening import Hardening
from hwfault.campaigns.words import cell
from hwfault.errors import HwfaultError, ModelError, nearest
from hwfault.files import write_atomically

_JSON = "hardening.json"
_MOST = 12
"""How many measures the page tells; all are in the JSON file."""


def advise_from(
    database: Database, tasks: Sequence[KeptTask], question: str | None, rate: float | None, require: Sequence[str]
) -> tuple[Harm, Hardening, Advice]:
    """The harm of a question (None: the first of single flips), what is asked, and the advice.

    Raises HwfaultError for a study without single flips and for an unknown question, ModelError for a rate or a
    requirement that is none.
    """
    single = [task for task in tasks if task.draw != "seeds"]
    if not single:
        raise HwfaultError("the campaign has no single flips to read; add a question with `flips: single` to its study")
    chosen = single[0]
    if question is not None:
        named = {task.question: task for task in single}
        if question not in named:
            raise HwfaultError(f"no question of single flips is called {question!r}: {nearest(question, named)}")
        chosen = named[question]
    asked = chosen.study.hardening or Hardening()
    changes: dict[str, Any] = {}
    if rate is not None:
        changes["rate"] = rate
    if require:
        changes["require"] = dict(_read(text) for text in require)
    asked = Hardening.parse(asked.model_dump(mode="json") | changes, "hardening")
    harm = read_harm(database, chosen)
    return harm, asked, advise(harm, asked)


def _read(text: str) -> tuple[str, str]:
    """What is required of which rate."""
    name, sign, limit = text.partition("<")
    if name.strip() not in ("sdc", "due") or not sign:
        raise ModelError(f"the requirement is {text!r}, expected 'sdc < 1e-5' or 'due < 1e-3'")
    return name.strip(), f"< {limit.strip()}"


def write_advice(folder: Path, database: Database, harm: Harm, advice: Advice, tried: Sequence[Tried]) -> list[str]:
    """Leaves the advice in a campaign's folder, its page among it, and says which files these are; raises FileError."""
    picture = draw_front(advice)
    names = _write_files(folder, harm, advice, tried, picture)
    write_page(folder, database, shown(advice, tried, picture))
    return [*names, "report.html"]


def _write_files(folder: Path, harm: Harm, advice: Advice, tried: Sequence[Tried], picture: Picture) -> list[str]:
    data = advice.to_data() | {"tried": [one.to_data() for one in tried]}
    write_atomically(folder / _JSON, (json.dumps(data, indent=1) + "\n").encode())
    names = [_JSON]
    plan = advice.best or advice.baseline
    rate = advice.rate or 1 / harm.bits
    widths = {site.name: site.width for site in harm.sites}
    faults = faults_of(plan.measures, widths, rate)
    if faults:
        write_faults(folder / FILE, faults, _head(advice, rate))
        names.append(FILE)
    return names + picture.write(folder)


def advise_again(folder: Path, database: Database) -> dict[str, Any] | None:
    """The page's section, where the study says what is required and has single flips that were all answered.

    Writes the advice's files anew; None where there is nothing to advise on.
    """
    tasks = kept_tasks(database)
    single = [task for task in tasks if task.draw != "seeds" and task.seen(database) is not None]
    if not single or single[0].study.hardening is None:
        return None
    try:
        harm, _, advice = advise_from(database, single, None, None, ())
    except HwfaultError:  # a census that goes on: the page tells how far it is
        return None
    picture = draw_front(advice)
    _write_files(folder, harm, advice, [], picture)
    return shown(advice, [], picture)


def shown(advice: Advice, tried: Sequence[Tried], picture: Picture) -> dict[str, Any]:
    """What the page's section is made of."""
    rows = []
    for one in advice.worth[:_MOST]:
        costs = f"{one.extra_bytes:,.6g}", f"{one.energy:+.2%}"
        rows.append((one.measure, one.site, f"{one.removed:.3g}", f"{one.due:.3g}", *costs))
    told = [("without measures", _plan_told(advice.baseline))]
    taken = []
    if advice.best is not None:
        told.append(("the cheapest plan", _plan_told(advice.best)))
        told.append(("its price, and the bound on any", f"{advice.price:,.6g}, {advice.bound:,.6g}"))
        for measure in advice.best.measures:
            if measure.kind != "none":
                taken.append((measure.site, measure.name, f"{measure.extra_bytes:,.6g}"))
    told.append(("what is required", advice.why))
    trials = [(one.told, f"{one.trials:,}", cell(one.sdc), cell(one.due), cell(one.removed)) for one in tried]
    return {
        "advice": advice,
        "picture": picture,
        "embedded": f"data:image/svg+xml;base64,{b64encode(picture.svg).decode()}",
        "rows": rows,
        "facts": told,
        "taken": taken,
        "tried_rows": trials,
        "not_assessed": NOT_ASSESSED,
    }


def _plan_told(plan: Plan) -> str:
    at = "" if plan.expected_sdc is None else f", {plan.expected_sdc:.3g} at the rate"
    price = f"{plan.memory - 1:.2%} more memory, {plan.energy - 1:.2%} more energy"
    return f"SDC of one flip {cell(plan.sdc)}{at}; DUE {plan.due:.3g}; {price}"


def _head(advice: Advice, rate: float) -> list[str]:
    """What stands above the faults."""
    what = "The cheapest plan's faults" if advice.best is not None else "Faults without any measure"
    mean = "" if advice.rate is not None else ", at which one bit flips in the mean"
    return [
        f"{what}: each bit flips with the probability {rate:g}{mean}, hardened bits do not.",
        f"{advice.question}: {advice.why}",
        "For hwfault inject, export --faults, and `faults:` of a study's question.",
    ]
