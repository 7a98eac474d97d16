"""The report on a bundle: where a graph in onnxruntime, or another engine, first differs from what PyTorch recorded."""

from pathlib import Path
from typing import Literal

from pydantic import computed_field

from hwfault.files import write_atomically
from hwfault.plan.listing import Fault
from hwfault.records import Record

Verdict = Literal["pass", "outputs differ", "codes differ", "faults differ"]
Kind = Literal["codes", "faults", "site", "output", "prediction"]

BINS = 64
"""Into how many parts the words of a site are drawn."""


class Codes(Record):
    """The codes of one word of a sample as recorded and as found, before and after the faults."""

    word: int
    recorded_before: int
    recorded_after: int
    found_before: int | None = None
    found_after: int | None = None


class Difference(Record):
    """One place that differs: a word of a run (`call`, counted from 0) of a site, or a number of the output.

    `kind` says what: codes before the faults (another arithmetic), faults, a site's codes of which only those after the
    faults were found, an output or a prediction. `words` are the codes of the word and its neighbours, `faults` what
    the stream draws on these.
    """

    kind: Kind
    site: str
    sample: int
    word: int
    call: int = 0
    recorded: float
    found: float
    words: tuple[Codes, ...] = ()
    faults: tuple[Fault, ...] = ()


class SiteRecord(Record):
    """A site in one run, in words; parameters are counted once a batch.

    `faults_expected` and `faults_seen`: words that the faults changed, as recorded and as found. `faults_differ` and
    `codes_differ` as in the report of a replay (hwfault.proof.replay_report). The two last count the words that differ,
    and those that the faults changed, in each of up to 64 equal parts of the site.
    """

    name: str
    kind: str
    words: int
    faults_expected: int = 0
    faults_seen: int = 0
    faults_differ: int = 0
    codes_differ: int = 0
    first: Difference | None = None
    differ_at: tuple[int, ...] = ()
    faults_at: tuple[int, ...] = ()


class RunRecord(Record):
    """One run of all samples, clean (`seed` is None) or under a seed: its sites in the graph's order, its outputs.

    `correct_recorded` and `correct_found` count right predictions, where the bundle has labels.
    `outputs_changed_by_observation` counts numbers that change when the sites are looked at.
    """

    seed: int | None
    sites: tuple[SiteRecord, ...]
    predictions: int
    predictions_differ: int
    outputs: int
    outputs_differ: int
    outputs_max_difference: float
    outputs_changed_by_observation: int = 0
    correct_recorded: int | None = None
    correct_found: int | None = None
    first: Difference | None = None


class BundleReport(Record):
    """What was found in one bundle by one engine."""

    format: Literal["hwfault-bundle-report/1"] = "hwfault-bundle-report/1"
    bundle_sha256: str
    plan_sha256: str | None
    engine: str
    versions: dict[str, str]
    recorded_with: dict[str, str]
    samples: int
    runs: tuple[RunRecord, ...]
    notes: tuple[str, ...] = ()
    """What the plan says must be said wherever it is used."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The gravest that was found in any run."""
        sites = [site for run in self.runs for site in run.sites]
        if any(site.faults_differ for site in sites):
            return "faults differ"
        if any(site.codes_differ for site in sites):
            return "codes differ"
        return "outputs differ" if any(run.outputs_differ or run.predictions_differ for run in self.runs) else "pass"

    @property
    def exit_code(self) -> int:
        """0 for a pass, else 3."""
        return 0 if self.verdict == "pass" else 3

    @property
    def first(self) -> tuple[RunRecord, Difference] | None:
        """Where the first run that differs first does, None if none does."""
        return next(((run, run.first) for run in self.runs if run.first is not None), None)

    def save(self, path: Path | str) -> None:
        """Writes the report as JSON, atomically."""
        write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode())


def run_name(seed: int | None) -> str:
    """What a run is called."""
    return "the clean run" if seed is None else f"the run under seed {seed}"


def sentence(report: BundleReport) -> str:
    """A report in plain words: the verdict, and where the first difference is."""
    sites = max((len(run.sites) for run in report.runs), default=0)
    wrong, all_of = (sum(getattr(r, key) for r in report.runs) for key in ("predictions_differ", "predictions"))
    scope = f"{report.samples} samples, {len(report.runs)} runs, {sites} sites, {report.engine}"
    if report.first is None:
        return f"Replay: pass. {scope}: every code, output and prediction is the recorded one."
    run, first = report.first
    more = f"; {wrong:,} of {all_of:,} predictions differ"
    return f"Replay: {report.verdict}. {scope}. First difference, in {run_name(run.seed)}: {place(run, first)}{more}."


def place(run: RunRecord, first: Difference) -> str:
    """Where a difference is, and what was recorded and found there."""
    values = f"recorded {first.recorded:.9g}, found {first.found:.9g}"
    if first.kind in ("output", "prediction"):
        number = f", number {first.word}" if first.kind == "output" else ""
        return f"the {first.kind} of sample {first.sample}{number}: {values}"
    names = [site.name for site in run.sites]
    again = f", its run {first.call + 1}" if first.call else ""
    return (
        f"the site {first.site} ({names.index(first.site) + 1} of {len(names)}{again}), sample {first.sample}, word "
        f"{first.word}: code {'before' if first.kind == 'codes' else 'after'} the faults {values}"
    )
