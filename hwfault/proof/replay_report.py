"""The report of a replay: what two engines did at each site, and where they first differed."""

from pathlib import Path
from typing import Literal

from pydantic import computed_field

from hwfault.files import write_atomically
from hwfault.records import Record

Verdict = Literal["exact", "faults equal, arithmetic differs", "faults differ"]


class Place(Record):
    """One word at which the engines differ; `call` counts the runs of a quantizer within one forward."""

    seed: int
    sample: int
    word: int
    call: int
    pytorch_before: int
    pytorch_after: int
    onnxruntime_before: int
    onnxruntime_after: int


class SiteReport(Record):
    """A site over all seeds and samples, in words; parameters are compared once a seed.

    `faults_expected` and `faults_seen`: words that the faults changed in PyTorch and in onnxruntime. `faults_differ`:
    words that differ because of a fault (not what the stream says, or unequal where the codes before were equal).
    `codes_differ`: words whose codes differed already before the faults. An accumulator's codes are those that leave
    its array of processing elements; what the array changed counts as faults, and is checked against its own inputs.
    `no_numbers`: words that held NaN or an infinity in PyTorch, which no fault strikes (None: none did). `note` says
    what is special about the site's words.
    """

    name: str
    words: int
    faults_expected: int
    faults_seen: int
    faults_differ: int
    codes_differ: int
    no_numbers: int | None = None
    note: str | None = None
    first_fault_difference: Place | None = None
    first_code_difference: Place | None = None


class ReplayReport(Record):
    """A replay of one graph: each site, then the network's output (`logits`) and the predictions (its largest logit).

    `logits_changed_by_observation` counts logits of the graph that change when its sites are looked at: then
    onnxruntime computes the watched graph in another way, and the sites' numbers are those of the watched one.
    """

    format: Literal["hwfault-replay/1"] = "hwfault-replay/1"
    plan_sha256: str
    versions: dict[str, str]
    seeds: tuple[int, ...]
    samples: int
    sites: tuple[SiteReport, ...]
    predictions: int
    predictions_differ: int
    logits: int
    logits_differ: int
    logits_max_difference: float
    logits_changed_by_observation: int
    notes: tuple[str, ...] | None = None
    """What the plan says must be said wherever it is used."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Exact to the last bit, or equal in the faults only, or not even that."""
        if any(site.faults_differ for site in self.sites):
            return "faults differ"
        arithmetic = self.logits_differ + self.predictions_differ + sum(site.codes_differ for site in self.sites)
        return "faults equal, arithmetic differs" if arithmetic else "exact"

    @property
    def exit_code(self) -> int:
        """3 if faults differ, else 0."""
        return 3 if self.verdict == "faults differ" else 0

    def save(self, path: Path | str) -> None:
        """Writes the report as JSON, atomically."""
        write_atomically(path, (self.model_dump_json(indent=1, exclude_none=True) + "\n").encode())
