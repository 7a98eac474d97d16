"""A study as it stands in a file of YAML: network or graph, samples, questions, outcomes, stopping, engine."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictInt, field_validator, model_validator

from hwfault.campaigns.points import Point
from hwfault.campaigns.study.axes import nearest_axis
from hwfault.campaigns.study.hardening import Hardening
from hwfault.errors import FileError, ModelError
from hwfault.laws.models import FaultModel
from hwfault.program.selectors import GivenSites, Select
from hwfault.records import Record, read_yaml

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000_000)]
Seed = Annotated[StrictInt, Field(ge=0, lt=1 << 64)]
Minutes = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=1)]
Engine = Literal["auto", "onnxruntime", "torch", "sparse"]
Arithmetic = Literal["float", "integer"]
Claim = Literal["these", "population"]
Goal = Literal["estimate", "bound"]
Exhaustive = Literal["auto", "always", "never"]

OUTCOMES = ("top1", "top5", "confidence10", "confidence20", "due")
"""The outcomes that have a name of their own; any other is the user's code, as module:function."""
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_SEVERAL = 2


class Samples(Record):
    """Which samples the trials classify: those of a `split`, or only the `first` so many of them.

    `claim` says what the intervals are to cover: "these" samples under new faults, or a "population" of samples that
    these were drawn from, too.
    """

    split: Literal["test", "validation"] = "test"
    first: Count | None = None
    claim: Claim = "these"


class Stop(Record):
    """When a question has enough trials: its interval is at most `relative` of the rate, or a limit is reached.

    `require` asks for a verdict instead: "< 1e-4" on the rate of wrong answers stops as soon as it is known to hold or
    not to hold. `max_trials` and `max_minutes` end a question in any case.
    """

    relative: Share = 0.1
    confidence: Share = 0.95
    max_trials: Count = 20_000
    max_minutes: Minutes | None = None
    require: str | None = None

    @field_validator("require", mode="before", json_schema_input_type=str | dict[Literal["sdc"], str] | None)
    @classmethod
    def _of_wrong_answers(cls, value: Any) -> Any:
        # the only rate that every question has is that of silent wrong answers
        if isinstance(value, dict):
            if set(value) != {"sdc"}:
                raise ValueError(f'{value!r} requires something of {sorted(value)}, expected {{sdc: "< 1e-4"}}')
            return value["sdc"]
        return value


class DueLimits(Record):
    """Beyond what an output counts as detected: `range` times the largest magnitude of the golden run's outputs."""

    range: Annotated[float, Field(ge=1, allow_inf_nan=False)]


class RayOptions(Record):
    """What each worker on a Ray cluster is given: `cpus` of a node, and `gpus`, which may be a part of one.

    A part of a GPU is for networks that are loaded onto one; workers beyond what a node has go to other nodes.
    """

    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0


class FaultFile(Record):
    """A CSV `file` of trials, with the columns trial, site, word, bit and kind (and perhaps sample and step).

    The rows of one trial are faults that strike together. Every trial is run, once.
    """

    file: str


class Question(Record):
    """One question: which faults strike which sites, at one point or along a sweep.

    The faults are symmetric bit errors along `sweep: {ber: [...]}`; a list of fault models, a profile or a file
    (`faults`), at one point or along an axis of its profiles (`sweep: {voltage_v: [...]}`); or `flips`: "single", each
    bit of the sites' weights alone, or a number, exactly so many bits a trial, drawn without replacement and uniformly
    over all bits that one sample sees, or a `file` of trials, each of which is tried. `sites` chooses among the sites
    for `ber` and `flips`. Or `points` name each point: its labels, its `faults` or a saved `plan`, and the one `site`
    or `bit` of them that strikes alone.

    `first_turn` asks of a sweep at which of its points each answer first turns, in the place of what the answers are at
    each of them (docs/campaigns.md, "First turns").

    `goal` says what single flips are to give: an "estimate" of the rate, or an upper "bound" on it. `exhaustive` says
    whether every one of them is tried: where that is affordable ("auto"), "always", or "never". `stop` takes the
    study's own place, where it is given. `seeds` are run in place of those that a stopping rule would ask for.
    """

    sites: tuple[Select, ...] = (Select(),)
    sweep: dict[str, tuple[float, ...]] | None = None
    faults: str | tuple[FaultModel, ...] | None = None
    flips: Literal["single"] | Count | FaultFile | None = None
    points: tuple[Point, ...] | None = None
    seeds: tuple[Seed, ...] | None = None
    device: Seed | None = None
    goal: Goal = "estimate"
    exhaustive: Exhaustive = "auto"
    first_turn: StrictBool = False
    stop: Stop | None = None

    @field_validator("sites", mode="before", json_schema_input_type=GivenSites)
    @classmethod
    def _as_selectors(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        if not items:
            raise ValueError("an empty list selects no site; leave `sites` out to select all")
        return tuple({"name": item} if isinstance(item, str) else item for item in items)

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if self.sweep is not None and (len(self.sweep) != 1 or not all(self.sweep.values())):
            raise ValueError("`sweep` has one axis with at least one value: {ber: [1e-4, 1e-3]}")
        if self.sweep is not None and any(len(set(values)) < len(values) for values in self.sweep.values()):
            raise ValueError("`sweep` has a value twice, expected each once")
        points = 0 if self.sweep is None else len(next(iter(self.sweep.values())))
        if self.first_turn and points < _SEVERAL:
            raise ValueError(f"`first_turn` asks where along a sweep answers turn; expected two points, found {points}")
        ways = {
            "flips": self.flips is not None,
            "faults": self.faults is not None,
            "points": self.points is not None,
            "sweep ber": self.sweeps_rates,
        }
        asked = [way for way, given in ways.items() if given]
        if self.sweep is not None and not asked:
            (axis,) = self.sweep
            raise ValueError(f"`sweep` has the axis {axis!r}: {nearest_axis(axis)}")
        if len(asked) != 1:
            told = " and ".join(asked) or "none of them"
            raise ValueError(f"expected one of sweep: {{ber: [...]}}, faults, flips and points, found {told}")
        if self.flips is not None and self.sweep is not None:
            raise ValueError("`flips` has no axis to sweep; expected a question for each number of flips")
        if self.faults is not None and self.sites != (Select(),):
            raise ValueError("`sites` goes with a sweep of ber and with flips; each of the `faults` names its own")
        if self.faults == ():
            raise ValueError("an empty list of faults strikes nothing; expected at least one")
        return self

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if self.points is not None:
            names = [point.key for point in self.points]
            if not names or len(set(names)) < len(names):
                raise ValueError("`points` are at least one, each with labels of its own")
            if self.sweep is not None or self.sites != (Select(),):
                raise ValueError("`sweep` and `sites` go without `points`, which name their faults themselves")
        if self.seeds is not None:
            if not self.seeds or len(set(self.seeds)) < len(self.seeds):
                raise ValueError("`seeds` are at least one, each once")
            if self.flips == "single" or isinstance(self.flips, FaultFile):
                raise ValueError("`seeds` have no say in flips that are tried one by one; leave them out")
        if isinstance(self.flips, FaultFile) and self.sites != (Select(),):
            raise ValueError("each line of the list of faults names its site; leave `sites` out")
        return self

    @property
    def sweeps_rates(self) -> bool:
        """Whether it sweeps the rate of symmetric bit errors."""
        return self.sweep is not None and "ber" in self.sweep


class Study(Record):
    """A study: what `hwfault campaign` is asked. Raises ModelError for a wrong or unknown key.

    `network` is the folder of a run, or a checkpoint; `graph` a QONNX graph, with `data`, an .npz file of inputs x and
    labels y. `arithmetic` is the network's own floating point, or "integer". Faults are drawn by seeds from `seed` on.
    `outcomes` are what is told of each answer, see `hwfault.campaigns.outcomes`; the first of them is what stops.
    `hardening` says what is required of a hardened network; `fit_per_mbit` is how many bits of 2^20 flip in 1e9 hours.
    `workers` is a number of processes, "ray" or "ray://HOST:PORT"; `ray: {cpus: 1, gpus: 0.25}` what one takes there.
    """

    network: str | None = None
    graph: str | None = None
    data: str | None = None
    arithmetic: Arithmetic = "float"
    samples: Samples = Samples()
    questions: dict[Annotated[str, Field(pattern=f"^{_NAME}$")], Question]
    outcomes: tuple[str, ...] = ("top1", "due")
    due: DueLimits | None = None
    stop: Stop = Stop()
    hardening: Hardening | None = None
    fit_per_mbit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    engine: Engine = "auto"
    workers: Count | str = 1
    ray: RayOptions = RayOptions()
    batch_size: Count = 64
    seed: Annotated[StrictInt, Field(ge=0, lt=1 << 63)] = 0

    @model_validator(mode="after")
    def _names_one_network(self) -> Self:
        if (self.network is None) == (self.graph is None):
            raise ValueError("expected either `network`, the folder of a run, or `graph`, an .onnx file")
        if self.graph is not None and self.data is None:
            raise ValueError(
                "a graph holds no data; give `data`, an .npz file with the arrays x (inputs) and y (labels)"
            )
        if not self.questions:
            raise ValueError("expected at least one question")
        unknown = [name for name in self.outcomes if name not in OUTCOMES and ":" not in name]
        if unknown or not self.outcomes:
            told = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"outcomes: {told}, expected {', '.join(OUTCOMES)} or your own, as module:function")
        if len(set(self.outcomes)) < len(self.outcomes):
            raise ValueError("outcomes: one is named twice, expected each once")
        return self

    @model_validator(mode="after")
    def _requires_nothing_of_first_turns(self) -> Self:
        for name, question in self.questions.items():
            if question.first_turn and self.stop_of(question).require is not None:
                raise ValueError(
                    f"questions.{name}: `first_turn` tells no rate of SDC, so that nothing can be required of it; give "
                    "the question a `stop` of its own, or ask without `first_turn`"
                )
        return self

    def to_data(self) -> dict[str, Any]:
        """The study as its file says it, without what is said anyhow; `parse` reads it back."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        for name, question in self.questions.items():
            # the model is a default of its record, but without it no record can be told from another
            if isinstance(question.faults, tuple):
                data["questions"][name]["faults"] = [fault.to_data() for fault in question.faults]
            if question.points is not None:
                data["questions"][name]["points"] = [point.to_data() for point in question.points]
        return data

    def stop_of(self, question: Question) -> Stop:
        """When a question stops: as it says itself, or as the study does."""
        return question.stop or self.stop


def read_study(path: Path | str) -> Study:
    """The study in a file of YAML; raises FileError or ModelError."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path}: no study (expected network or graph, and questions)")
    return Study.parse(content, str(path))


def kept_study(text: str | None, source: str) -> Study:
    """The study that a store keeps as JSON; raises FileError where it keeps none, ModelError for a damaged one."""
    if text is None:
        raise FileError(f"{source}: keeps no study; begin with `hwfault campaign run STUDY --out {source}`")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{source}: its study cannot be read ({error}); the file is damaged") from None
    return Study.parse(content, source)
