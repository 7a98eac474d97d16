"""A report in plain words: the verdict, what was compared, and where the first difference is."""

from hwfault.plan.listing import Hit
from hwfault.proof.accept import BOUND, Accept, refusals, rounded_share
from hwfault.proof.report import Codes, Difference, ReplayReport, RunRecord, SiteRecord, run_name

_MOST_REASONS = 3


def sentence(report: ReplayReport) -> str:
    """A report in plain words: the verdict, what was compared, and where the first difference is."""
    whole, _, recorded = _count_sites(report)
    sites = f"{whole:,} sites" if whole == recorded else f"{whole:,} of {recorded:,} sites"
    words, faulty = (sum(getattr(s, key) for r in report.runs for s in r.sites) for key in ("words", "faults_seen"))
    counted = f", {words:,} words, {faulty:,} of them faulty" if words else ""
    scope = f"{report.samples} samples, {len(report.runs)} runs, {sites}, {report.engine}{counted}"
    complete = whole == recorded and _has_all_outputs(report)
    told = "" if complete else f" {compared(report)}; of the rest nothing is known."
    if report.first is None:
        what = "every code, output and prediction" if complete else "what was compared"
        return f"Replay: pass. {scope}: {what} is {'the recorded one' if complete else 'as recorded'}.{told}"
    run, first = report.first
    wrong, all_of = report.predictions_differ, report.predictions
    where = f"First difference, in {run_name(run.seed)}: {place(run, first)}"
    found = f"Replay: {report.verdict}. {scope}. {where}; {wrong:,} of {all_of:,} predictions differ.{told}"
    return found + _rounding(report) + _behind_the_last_site(report, wrong)


def _rounding(report: ReplayReport) -> str:
    """By how much codes differ before faults strike, the most at a site; empty where none does."""
    sites = [(site, run) for run in report.runs for site in run.sites if site.codes_differ]
    if not sites:
        return ""
    steps = max(site.largest_step for site, _ in sites)
    site, run = max(sites, key=lambda entry: rounded_share(entry[0]))
    return (
        f" Codes of unstruck words differ by at most {steps:,} grid step{'s' * (steps != 1)}, at most at "
        f"{rounded_share(site):.3%} of a site's ({site.name}, in {run_name(run.seed)})."
    )


def _behind_the_last_site(report: ReplayReport, predictions_differ: int) -> str:
    """What it means that outputs differ where all codes and predictions are equal; empty where they are not."""
    whole, _, recorded = _count_sites(report)
    if report.verdict != "outputs differ" or predictions_differ or whole < recorded:
        return ""
    share = max(run.outputs_max_difference / (run.outputs_largest or 1.0) for run in report.runs)
    found = f"by at most {share:.2g} of the largest output"
    equal = " Every code and prediction is the recorded one: the outputs differ"
    if share > BOUND:
        return (
            f"{equal} behind the last site, {found}. Floating-point rounding makes {BOUND:g} of it at most, as a rule: "
            "look for what else is computed there."
        )
    return (
        f"{equal} {found}, by floating-point rounding behind the last site, where engines add up in another order. "
        "Either export with --arithmetic integer, which all engines compute alike, or accept it with --accept outputs."
    )


def judgement(report: ReplayReport, accept: Accept) -> str:
    """Whether a report that does not pass is accepted, and what it is that is or is not."""
    reasons = refusals(report, accept)
    if reasons:
        more = f", and {len(reasons) - _MOST_REASONS} more" if len(reasons) > _MOST_REASONS else ""
        return f"Not accepted: {'; '.join(reasons[:_MOST_REASONS])}{more}."
    codes = "codes one grid step beside the recorded ones, " if accept.codes else ""
    return f"Accepted: {codes}outputs within {accept.outputs:g} of the largest recorded one, and equal predictions."


def compared(report: ReplayReport) -> str:
    """How much was compared of what was recorded: sites, and the outputs and predictions of all runs."""
    whole, in_part, recorded = _count_sites(report)
    sites = f"{whole:,} of {recorded:,} sites" + (f" (and {in_part:,} in part)" if in_part else "")
    outputs, predictions = (
        f"{sum(getattr(run, key) for run in report.runs):,} of "
        f"{sum(getattr(run, f'{key}_recorded') for run in report.runs):,} {key}"
        for key in ("outputs", "predictions")
    )
    return f"{sites}, {outputs} and {predictions} were compared"


def _count_sites(report: ReplayReport) -> tuple[int, int, int]:
    """How many sites were compared as a whole, how many in part, and of how many."""
    names = {site.name for run in report.runs for site in run.sites}
    whole = sum(all(_is_whole(name, run) for run in report.runs) for name in names)
    return whole, len(names) - whole, max((run.sites_recorded for run in report.runs), default=0)


def _is_whole(name: str, run: RunRecord) -> bool:
    """Whether all that a run recorded of a site was compared."""
    site = next((site for site in run.sites if site.name == name), None)
    if site is None:  # where all others were compared this one is not recorded: an accumulator without faults
        return len(run.sites) == run.sites_recorded
    return site.words == site.words_recorded


def _has_all_outputs(report: ReplayReport) -> bool:
    """Whether all outputs and predictions were compared."""
    runs = report.runs
    return all(run.outputs == run.outputs_recorded and run.predictions == run.predictions_recorded for run in runs)


def place(run: RunRecord, first: Difference) -> str:
    """Where a difference is, and what was recorded and found there."""
    values = f"recorded {first.recorded:.9g}, found {first.found:.9g}"
    if first.kind in ("output", "prediction"):
        number = f", number {first.word}" if first.kind == "output" else ""
        return f"the {first.kind} of sample {first.sample}{number}: {values}"
    names = [site.name for site in run.sites]
    again = f", its run {first.call + 1}" if first.call else ""
    strange = ", which stands for no code" if first.strange else ""
    return (
        f"the site {first.site} ({names.index(first.site) + 1} of {len(names)}{again}), sample {first.sample}, word "
        f"{first.word}: code {'before' if first.kind == 'codes' else 'after'} the faults {values}{strange}"
    )


def code_cells(codes: Codes) -> list[str]:
    """A word's number and its codes for a table: recorded before and after the faults, found before and after."""
    recorded = [str(number) for number in (codes.word, codes.recorded_before, codes.recorded_after)]
    found = ["-" if code is None else str(code) for code in (codes.found_before, codes.found_after)]
    if codes.found_value is not None:  # in the place of the code that is missing: a runner's has none before the faults
        found[1 if codes.found_after is None else 0] = f"{codes.found_value:.9g}, no code"
    return recorded + found


def fault_cells(hit: Hit) -> list[str]:
    """A drawn fault for a table: its number in the plan, the word, the bit, what else was drawn, and its effect."""
    known = ["-" if value is None else str(value) for value in (hit.bit, hit.aux)]
    return [str(hit.process), str(hit.word), *known, hit.effect]


def integers_told(report: ReplayReport) -> str:
    """Which sites were compared as integers, without scale and zero point, and of which types; empty where none was."""
    types = {site.name: site.integers for run in report.runs for site in run.sites}
    found = [kind for kind in types.values() if kind is not None]
    if not found:
        return ""
    counted = [f"{found.count(kind)} {kind}" for kind in dict.fromkeys(found)]
    return f"{len(found)} of {len(types)} sites hold ONNX' own integers, compared bit for bit: {', '.join(counted)}"


def words_told(site: SiteRecord) -> list[str]:
    """What must be said of a site's words besides their numbers."""
    told = []
    if site.no_numbers:
        words = "word" if site.no_numbers == 1 else "words"
        told.append(
            f"{site.name}: {site.no_numbers:,} {words} held no number (NaN or infinite), which no fault strikes"
        )
    return told if site.note is None else [*told, f"{site.name}: {site.note}"]
