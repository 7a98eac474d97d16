"""The report of a replay: where a graph in onnxruntime, or another engine, first differs from what PyTorch recorded."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, computed_field

from hwfault.files import write_atomically
from hwfault.plan.listing import Hit
from hwfault.proof.manifest import Integers
from hwfault.records import Record

Verdict = Literal["pass", "outputs differ", "codes differ", "faults differ"]
Kind = Literal["codes", "faults", "site", "output", "prediction"]

Number = Annotated[float, PlainSerializer(lambda value: _finite_or_text(value), when_used="json")]
"""A number that JSON has, or the texts nan, inf and -inf, which it has not."""


def _finite_or_text(value: float) -> Any:
    return value if math.isfinite(value) else str(value)


BINS = 64
"""Into how many parts the words of a site are drawn."""


class Codes(Record):
    """The codes of one word of a sample as recorded and as found, before and after the faults.

    Where what was found stands for no code there is none, but the `found_value`.
    """

    word: int
    recorded_before: int
    recorded_after: int
    found_before: int | None = None
    found_after: int | None = None
    found_value: Number | None = None


class Difference(Record):
    """One place that differs: a word of a run (`call`, counted from 0) of a site, or a number of the output.

    `kind` says what: codes before the faults (another arithmetic), faults, a site's codes of which only those after the
    faults were found, an output or a prediction. `words` are the codes of the word and its neighbours, `faults` what
    the stream draws on these. `recorded` is a code at a site, and so is `found`, unless it is `strange`: a value that
    stands for no code.
    """

    kind: Kind
    site: str
    sample: int
    word: int
    call: int = 0
    recorded: Number
    found: Number
    strange: bool = False
    words: tuple[Codes, ...] = ()
    faults: tuple[Hit, ...] = ()


class SiteRecord(Record):
    """A site in one run, in words; a parameter whose faults do not change is counted once a run beside a network.

    `words` were compared, of `words_recorded`. `faults_expected` and `faults_seen`: words that the faults changed, as
    recorded and as found; what an array of processing elements changed counts among them. `faults_differ`: words that
    differ because of a fault (not what the stream says, or unequal where the codes before were equal), and sums of the
    same integers. `codes_differ`: words whose codes differ already before the faults. `strange` of these stand for no
    code. `unstruck` words are neither changed by faults nor held by a fault map; those of them whose codes differ do so
    by at most `largest_step` grid steps, and `struck_differ` others do. `no_numbers` words held NaN or an infinity as
    recorded, which no fault strikes. `note` says what is special about the words; `integers` is their type where they
    are ONNX' own integers, compared as such, and None for values on a grid. `differ_at` and `faults_at` count the words
    that differ, and those that the faults changed, in each of up to 64 equal parts of the site.
    """

    name: str
    kind: str
    words: int
    words_recorded: int = 0
    faults_expected: int = 0
    faults_seen: int = 0
    faults_differ: int = 0
    codes_differ: int = 0
    strange: int = 0
    unstruck: int = 0
    struck_differ: int = 0
    largest_step: int = 0
    no_numbers: int = 0
    note: str | None = None
    integers: Integers | None = None
    first: Difference | None = None
    differ_at: tuple[int, ...] = ()
    faults_at: tuple[int, ...] = ()


class RunRecord(Record):
    """One run of all samples, clean (`seed` is None) or under a seed: its sites in the graph's order, its outputs.

    `sites`, `predictions` and `outputs` are those that were compared; so many more were recorded as `sites_recorded`,
    `predictions_recorded` and `outputs_recorded` say. `correct_recorded` and `correct_found` count right predictions,
    where the bundle has labels. `outputs_largest` is the largest recorded magnitude, `outputs_max_difference` the
    largest difference, and `outputs_max_rounding` that in samples in which no code differs.
    `outputs_changed_by_observation` counts numbers that change when the sites are looked at.
    """

    seed: int | None
    sites: tuple[SiteRecord, ...]
    sites_recorded: int = 0
    predictions: int
    predictions_recorded: int = 0
    predictions_differ: int
    outputs: int
    outputs_recorded: int = 0
    outputs_differ: int
    outputs_max_difference: Number
    outputs_max_rounding: Number = 0.0
    outputs_largest: Number = 0.0
    outputs_changed_by_observation: int = 0
    correct_recorded: int | None = None
    correct_found: int | None = None
    first: Difference | None = None


class ReplayReport(Record):
    """What was found by one engine: in a bundle (`bundle_sha256`), or beside the network that recorded in memory.

    Samples are numbered from 0. `recorded_with` are the versions of what recorded, `versions` of what checked.
    """

    format: Literal["hwfault-proof/1"] = "hwfault-proof/1"
    bundle_sha256: str | None = None
    plan_sha256: str | None
    engine: str
    versions: dict[str, str]
    recorded_with: dict[str, str]
    samples: int
    runs: tuple[RunRecord, ...]
    notes: tuple[str, ...] = ()
    """What the plan says must be said wherever it is used."""
    faults: tuple[str, ...] = ()
    """The plan's faults in words: the law, its numbers, and where it strikes."""
    rate: str | None = None
    """How many faults the plan is expected to make, in words."""
    network: str | None = None
    """Which network or graph was run, with its digest."""
    data: str | None = None
    """Which samples, with the digest of their inputs."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The gravest that was found in any run."""
        sites = [site for run in self.runs for site in run.sites]
        if any(site.faults_differ for site in sites):
            return "faults differ"
        if any(site.codes_differ for site in sites):
            return "codes differ"
        return "outputs differ" if self.outputs_differ or self.predictions_differ else "pass"

    @property
    def exit_code(self) -> int:
        """0 for a pass, else 3."""
        return 0 if self.verdict == "pass" else 3

    @property
    def first(self) -> tuple[RunRecord, Difference] | None:
        """Where the first run that differs first does, None if none does."""
        return next(((run, run.first) for run in self.runs if run.first is not None), None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs under faults."""
        return tuple(run.seed for run in self.runs if run.seed is not None)

    @property
    def sites(self) -> tuple[SiteRecord, ...]:
        """Each site over all runs, in the graph's order; its first difference is that of the first run that has one."""
        found: dict[str, list[SiteRecord]] = {}
        for run in self.runs:
            for site in run.sites:
                found.setdefault(site.name, []).append(site)
        return tuple(map(_add_up, found.values()))

    @property
    def predictions(self) -> int:
        """How many were compared, over all runs; the next ones likewise."""
        return sum(run.predictions for run in self.runs)

    @property
    def predictions_differ(self) -> int:
        return sum(run.predictions_differ for run in self.runs)

    @property
    def outputs(self) -> int:
        return sum(run.outputs for run in self.runs)

    @property
    def outputs_differ(self) -> int:
        return sum(run.outputs_differ for run in self.runs)

    @property
    def outputs_max_difference(self) -> float:
        return max((run.outputs_max_difference for run in self.runs), default=0.0)

    @property
    def outputs_changed_by_observation(self) -> int:
        return sum(run.outputs_changed_by_observation for run in self.runs)

    def save(self, path: Path | str) -> None:
        """Writes the report as JSON, atomically."""
        write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode())


def _add_up(records: Sequence[SiteRecord]) -> SiteRecord:
    """One site in several runs."""
    counts = {key: sum(getattr(site, key) for site in records) for key in _COUNTS}
    counts |= {key: tuple(map(sum, zip(*(getattr(s, key) for s in records), strict=False))) for key in _STRIPS}
    step = max(site.largest_step for site in records)
    first = next((site.first for site in records if site.first is not None), None)
    return records[0].model_copy(update={**counts, "largest_step": step, "first": first})


_COUNTS = (
    *("words", "words_recorded", "faults_expected", "faults_seen", "faults_differ", "codes_differ"),
    *("strange", "unstruck", "struck_differ", "no_numbers"),
)
_STRIPS = ("differ_at", "faults_at")


def run_name(seed: int | None) -> str:
    """What a run is called."""
    return "the clean run" if seed is None else f"the run under seed {seed}"
