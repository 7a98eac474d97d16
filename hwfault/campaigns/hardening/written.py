"""Hardening advice from a store, and its files beside it: JSON, the cheapest plan's faults as YAML, a picture."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.advice import Advice, advise
from hwfault.campaigns.hardening.candidates import BASELINE, Comparison
from hwfault.campaigns.hardening.faults import FILE, faults_of, write_faults
from hwfault.campaigns.hardening.gains import considered_of
from hwfault.campaigns.hardening.harm import Harm, read_harm
from hwfault.campaigns.hardening.kept_proof import read_proofs
from hwfault.campaigns.hardening.picture import draw_front
from hwfault.campaigns.hardening.proof import Proof
from hwfault.campaigns.hardening.rates import kept_rates
from hwfault.campaigns.hardening.section import section, section_of_proofs
from hwfault.campaigns.hardening.verifying import proof_of
from hwfault.campaigns.kept import KeptTask, kept_tasks
from hwfault.campaigns.page.curves import Picture
from hwfault.campaigns.page.page import write_page
from hwfault.campaigns.study.hardening import Hardening, Key
from hwfault.campaigns.study.tasks import has_single_flips
from hwfault.errors import HwfaultError, ModelError, nearest
from hwfault.files import write_atomically

_JSON = "hardening.json"


def has_flips_to_read(tasks: Sequence[KeptTask]) -> bool:
    """Whether any task is one of single flips, of which advice is read."""
    return any(has_single_flips(task.draw) for task in tasks)


def advise_from(
    database: Database,
    tasks: Sequence[KeptTask],
    question: str | None,
    rate: float | None,
    require: Sequence[str],
    rates_of: str | None = None,
) -> tuple[Harm, Hardening, Advice]:
    """The harm of a question (None: the first of single flips), what is asked, and the advice.

    Raises HwfaultError for a study without single flips and for an unknown question, ModelError for a rate or a
    requirement that is none.
    """
    single = [task for task in tasks if has_single_flips(task.draw)]
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
        changes["rates_of"] = None
    if rates_of is not None:
        changes |= {"rates_of": rates_of, "rate": rate}
    if require:
        changes["require"] = dict(_read(text) for text in require)
    asked = Hardening.parse(asked.model_dump(mode="json") | changes, "hardening")
    harm = read_harm(database, chosen)
    rates = None if asked.rates_of is None else kept_rates(database, tasks, asked.rates_of)
    weighted, mean = (harm, asked.rate) if rates is None else harm.with_rates(rates)
    considered = considered_of(read_proofs(database), weighted, asked, mean, rates)
    return harm, asked, advise(harm, asked, rates, considered)


def _read(text: str) -> tuple[str, str]:
    """What is required of which rate."""
    name, sign, limit = text.partition("<")
    if name.strip() not in get_args(Key) or not sign:
        raise ModelError(f"the requirement is {text!r}, expected 'sdc < 1e-5' or 'due < 1e-3'")
    return name.strip(), f"< {limit.strip()}"


def write_advice(
    folder: Path,
    database: Database,
    read: tuple[Harm, Hardening, Advice] | None,
    comparisons: Sequence[Comparison] = (),
) -> list[str]:
    """Leaves the advice in a campaign's folder, its page among it, and says which files these are; raises FileError.

    `read` is what single flips told, None for a study without; the page tells what was tried of it at any time, as the
    store has it. `comparisons` are those of now, of which the faults under each measure beyond check bits are left.
    """
    proofs = read_proofs(database)
    names = []
    if read is None:
        shown: Any = section_of_proofs(proofs)
    else:
        harm, _, advice = read
        picture = draw_front(advice)
        names = _write_files(folder, harm, advice, proofs, picture)
        shown = section(advice, proofs, picture)
    names += _write_candidates(folder, comparisons)
    write_page(folder, database, shown)
    return [*names, "report.html"]


def _write_files(folder: Path, harm: Harm, advice: Advice, proofs: Sequence[Proof], picture: Picture) -> list[str]:
    own = proof_of(proofs, advice)
    tried = [] if own is None else [one.to_data() for one in own.tried]
    data = advice.to_data() | {"tried": tried, "proofs": [one.to_data() for one in proofs]}
    write_atomically(folder / _JSON, (json.dumps(data, indent=1) + "\n").encode())
    names = [_JSON]
    plan = advice.best or advice.baseline
    widths = {site.name: site.width for site in harm.sites}
    faults = faults_of(plan.measures, widths, advice.rate_of_each)
    for one in plan.measured:
        faults += one.laws
    if faults:
        write_faults(folder / FILE, faults, _head(advice))
        names.append(FILE)
    return names + picture.write(folder)


def _write_candidates(folder: Path, comparisons: Sequence[Comparison]) -> list[str]:
    """The faults under measures that are no choice of check bits or cells: clipped activations, elements bypassed."""
    names = []
    for comparison in comparisons:
        for one in comparison.others:
            if one.name == BASELINE or (one.measures and not one.laws):
                continue
            question = re.sub(r"[^A-Za-z0-9_.=-]+", "_", comparison.question)
            name = f"hardening-{question}-{one.name}.yaml"
            said = [
                f"{one.told}: {comparison.question}",
                "For hwfault inject, export --faults, and `faults:` of a study.",
            ]
            write_faults(folder / name, one.faults, said)
            names.append(name)
    return names


def advise_again(folder: Path, database: Database) -> dict[str, Any] | None:
    """The page's section: what was tried, and where the study says what is required the advice, if flips allow it.

    Writes the advice's files anew; None where there is nothing to tell.
    """
    tasks = kept_tasks(database)
    proofs = read_proofs(database)
    single = [task for task in tasks if has_single_flips(task.draw) and task.seen(database) is not None]
    if single and single[0].study.hardening is not None:
        among = [task for task in tasks if task.draw == "seeds" or task in single]
        try:
            harm, _, advice = advise_from(database, among, None, None, ())
        except HwfaultError:  # a census that goes on: the page tells how far it is
            return section_of_proofs(proofs)
        picture = draw_front(advice)
        _write_files(folder, harm, advice, proofs, picture)
        return section(advice, proofs, picture)
    return section_of_proofs(proofs)


def _head(advice: Advice) -> list[str]:
    """What stands above the faults."""
    what = "The cheapest plan's faults" if advice.best is not None else "Faults without any measure"
    how = "each site's bits flip with a probability of their own"
    if advice.rates is None:
        mean = "" if advice.rate is not None else ", at which one bit flips in the mean"
        how = f"each bit flips with the probability {advice.rate_of_each:g}{mean}"
    return [
        f"{what}: {how}, hardened bits do not.",
        f"{advice.question}: {advice.why}",
        "For hwfault inject, export --faults, and `faults:` of a study's question.",
    ]
