"""The page's section on hardening: what the template hardening.html is made of."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from hwfault.campaigns.hardening.advice import NOT_ASSESSED, Advice, Plan
from hwfault.campaigns.hardening.candidates import BYPASSED
from hwfault.campaigns.hardening.measured import CLIPPED
from hwfault.campaigns.hardening.proof import Proof, Tried
from hwfault.campaigns.hardening.several import Several
from hwfault.campaigns.page.curves import Picture
from hwfault.campaigns.words import cell

_MOST = 12
"""How many measures the page tells; all are in the JSON file."""

_OF_RANGES = (
    "Ranges are those of the golden run on the study's own samples, so that clipping costs no answer here; others "
    "may leave them. Held once for each activation: two integers. The energy of comparing is an assumption "
    "(hardening: {costs: {compare: ...}})."
)
MEASURE_COLUMNS = ("measure", "on", "SDC removed, one flip", "accuracy regained", "DUE added", "extra bytes", "energy")
TRIED_COLUMNS = (
    *("plan", "trials", "SDC", "DUE", "accuracy", "SDC removed, by seed", "accuracy regained"),
    *("extra bytes", "extra energy"),
)
SEVERAL_COLUMNS = (
    *("measure", "on", "flips in one word", "probability in a sample", "trials", "detected"),
    *("wrong, detected or not", "silently wrong", "SDC of a trial"),
)


def section(advice: Advice, proofs: Sequence[Proof], picture: Picture) -> dict[str, Any]:
    """The section with advice, and what was tried at any time."""
    told = [("without measures", plan_told(advice.baseline))]
    taken: list[tuple[str, ...]] = []
    if advice.best is not None:
        told.append(("the cheapest plan", plan_told(advice.best)))
        told += prices_told(advice)
        taken = [(one.site, one.measure, f"{one.extra_bits / 8:,.6g}", one.gain) for one in advice.best.taken]
    told.append(("what is required", advice.why))
    return {
        "advice": advice,
        "picture": picture,
        "embedded": f"data:image/svg+xml;base64,{b64encode(picture.svg).decode()}",
        "columns": MEASURE_COLUMNS,
        "rows": [measure_row(one) for one in advice.worth[:_MOST]],
        "facts": told,
        "taken": taken,
        "proofs": [proof_told(one) for one in proofs],
        "not_assessed": not_tried(proofs),
    }


def section_of_proofs(proofs: Sequence[Proof]) -> dict[str, Any] | None:
    """The section of a study without advice; None where nothing was tried either."""
    if not proofs:
        return None
    return {"advice": None, "proofs": [proof_told(one) for one in proofs]}


def prices_told(advice: Advice) -> list[tuple[str, str]]:
    """The price of the cheapest plan, and what is proved of any price."""
    price = f"{advice.price:,.6g}"
    if advice.best is None or not advice.best.measured:
        return [("its price, and the bound on any", f"{price}, {advice.bound:,.6g}")]
    rows = [("its price, measured, not proved", price)]
    if advice.read_best is not None:
        rows.append(("the cheapest plan of gains read from single flips", plan_told(advice.read_best)))
        rows.append(("its price, and the bound on any such", f"{advice.read_price:,.6g}, {advice.bound:,.6g}"))
    return rows


def measure_row(one: Any) -> tuple[str, ...]:
    """A measure's worth, under MEASURE_COLUMNS."""
    regained = "-" if one.regained is None else f"{one.regained:.3g}{_between(one.regained_ends)}"
    costs = f"{one.extra_bytes:,.6g}", f"{one.energy:+.2%}"
    removed = f"{one.removed:.3g}{_between(one.removed_ends)}"
    return (one.measure, one.site, removed, regained, f"{one.due:.3g}", *costs)


def _between(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else " ({:.3g} to {:.3g})".format(*ends)


def plan_told(plan: Plan) -> str:
    """A plan's harm and price in a line."""
    at = "" if plan.expected_sdc is None else f", {plan.expected_sdc:.3g} at the rate"
    lost = ""
    if plan.accuracy_lost is not None:
        lost = f"; right answers lost {plan.accuracy_lost:.3g}{_between(plan.lost_ends)}"
        if plan.expected_lost is not None:
            lost += f", {plan.expected_lost:.3g} at the rate"
    price = f"{plan.memory - 1:.2%} more memory, {plan.energy - 1:.2%} more energy"
    return f"SDC of one flip {cell(plan.sdc)}{at}{lost}; DUE {plan.due:.3g}; {price}"


def proof_told(proof: Proof) -> dict[str, Any]:
    """What was tried of one question: a heading, and the rows of two tables."""
    at = "its own faults" if proof.rate is None else f"{proof.rate:g} flips for each bit"
    if proof.rates:
        at += f" in the mean, {min(proof.rates.values()):.3g} to {max(proof.rates.values()):.3g} by site"
    elif proof.rates is not None:
        at += ", as an older version kept it: whether each site had a rate of its own is not known"
    return {
        "title": f"{proof.question}: {at}",
        "tried_columns": TRIED_COLUMNS,
        "tried": [tried_row(one) for one in proof.tried],
        "notes": [_OF_RANGES] if any(one.told == CLIPPED for one in proof.tried) else [],
        "several_columns": SEVERAL_COLUMNS,
        "several": [several_row(one) for one in proof.several],
    }


def tried_row(one: Tried) -> tuple[str, ...]:
    """One candidate, under TRIED_COLUMNS."""
    rates = cell(one.sdc), cell(one.due), cell(one.accuracy), cell(one.removed), cell(one.regained)
    extra = "-" if one.extra_bytes is None else f"{one.extra_bytes:,.6g}"
    energy = "-" if one.energy is None else f"{one.energy:+.2%}"
    return (one.told, f"{one.trials:,}", *rates, extra, energy)


def several_row(one: Several) -> tuple[str, ...]:
    """Words with several flips under one measure, under SEVERAL_COLUMNS."""
    how = f"{one.flips}", f"{one.probability:.3g}", f"{one.trials:,}", f"{one.detected:.1%}"
    return (one.measure, one.on, *how, cell(one.wrong), cell(one.silent), cell(one.sdc))


def not_tried(proofs: Sequence[Proof]) -> list[tuple[str, str]]:
    """The measures of which neither single flips nor trials tell anything, and what would."""
    tried = {one.told for proof in proofs for one in proof.tried}
    done = {"clipped activation ranges": CLIPPED in tried, "bypassed elements": BYPASSED in tried}
    return [(name, why) for name, why in NOT_ASSESSED if not done[name]]
