"""What else than equality may be good enough: outputs that were rounded otherwise, codes one step beside the recorded.

Faults are exact in every engine, and so are integers that are added up: what differs there is never accepted.
"""

from typing import Annotated

from pydantic import Field

from hwfault.proof.report import ReplayReport, RunRecord, SiteRecord, run_name
from hwfault.records import Record

BOUND = 1e-5
"""By how much of the largest recorded magnitude outputs may differ, where nothing else is said."""
MOST_STEPS, MOST_SHARE = 1, 0.01
"""By how many grid steps, and at which share of a site's unstruck words, codes may differ."""


class Accept(Record):
    """What is accepted beside a pass.

    Outputs within `outputs` of the largest recorded magnitude of their run, NaN and infinities exactly where they were
    recorded, and equal predictions. With `codes` also codes of unstruck words, by one grid step at 1 % of a site's
    words; outputs of samples in which codes differ may then be further off, by that magnitude at most.
    """

    outputs: Annotated[float, Field(ge=0, lt=1)] = BOUND
    codes: bool = False


def refusals(report: ReplayReport, accept: Accept) -> list[str]:
    """Why a report is not accepted, a few words for each reason; empty where it is."""
    reasons: list[str] = []
    for run in report.runs:
        told = [*_of_sites(run, accept), *_of_outputs(run, accept)]
        reasons += [f"{reason} in {run_name(run.seed)}" for reason in told]
    return reasons


def _of_sites(run: RunRecord, accept: Accept) -> list[str]:
    faults = sum(site.faults_differ for site in run.sites)
    if faults:
        return [f"{faults:,} faults differ"]
    differing = [site for site in run.sites if site.codes_differ]
    if differing and not accept.codes:
        return [f"codes of {len(differing):,} sites differ"]
    return [f"{reason} at {site.name}" for site in differing for reason in _of_codes(site)]


def _of_codes(site: SiteRecord) -> list[str]:
    if site.kind == "accumulator":
        return ["sums of integers differ"]
    reasons = []
    if site.strange:
        reasons.append(f"{site.strange:,} values stand for no code")
    if site.struck_differ:
        reasons.append(f"codes of {site.struck_differ:,} words differ that faults strike or a fault map holds")
    if site.largest_step > MOST_STEPS:
        reasons.append(f"codes differ by {site.largest_step:,} grid steps, {MOST_STEPS} is accepted")
    if rounded_share(site) > MOST_SHARE:
        reasons.append(f"codes differ at {rounded_share(site):.3%} of the unstruck words, {MOST_SHARE:.0%} is accepted")
    return reasons


def rounded_share(site: SiteRecord) -> float:
    """The share of a site's unstruck words whose codes differ."""
    return (site.codes_differ - site.struck_differ) / max(site.unstruck, 1)


def _of_outputs(run: RunRecord, accept: Accept) -> list[str]:
    reasons = []
    if run.predictions_differ:
        reasons.append(f"{run.predictions_differ:,} of {run.predictions:,} predictions differ")
    allowed = accept.outputs * run.outputs_largest
    if run.outputs_max_rounding > allowed:
        reasons.append(
            f"outputs differ by up to {run.outputs_max_rounding:.3g}, accepted is {allowed:.3g} ({accept.outputs:g} of "
            f"the largest recorded, {run.outputs_largest:.3g})"
        )
    elif run.outputs_max_difference > run.outputs_largest:
        reasons.append(
            f"outputs differ by up to {run.outputs_max_difference:.3g}, more than the largest recorded, "
            f"{run.outputs_largest:.3g}"
        )
    return reasons
