"""What a bundle holds: the schema of its manifest, and the names of its files and tensors (docs/replay.md)."""

import re
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hwfault.codes import CodeFormat
from hwfault.plan.fault_plan import needs_stream
from hwfault.program.names import split_run
from hwfault.program.processes import Site
from hwfault.records import Record

MANIFEST, CLEAN_GRAPH, FAULTED_GRAPH, PLAN = "manifest.json", "clean.onnx", "faulted.onnx", "plan.json"
INPUTS, CLEAN = "inputs.safetensors", "clean.safetensors"
MOST_FILES = 1 << 16
LARGEST = 4 << 30
"""The most bytes that the files of a bundle have together."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,200}(/[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,200})?")


INPUT, LABEL = "input", "label"
"""The tensors of a bundle's samples: the one input (several are `input.NAME`), and the labels."""
NO_NUMBERS = "no_numbers"
"""What a run of a site has recorded where its values were not finite: these, and (NO_NUMBERS_at) where they lie."""


def seed_file(seed: int) -> str:
    """The file of what was recorded under a seed."""
    return f"seed-{seed}.safetensors"


def input_tensor(name: str, inputs: int) -> str:
    """The name of the tensor that holds the samples of one of so many inputs."""
    return INPUT if inputs == 1 else f"{INPUT}.{name}"


def tensor(site: str, call: int, what: str) -> str:
    """The name of a recorded tensor: of one run of a site's quantizer or layer, counted from 0.

    The runs of activations and accumulators are sites (`q`, `q#1`), those of a parameter are calls of one.
    """
    first, run = split_run(site)
    return f"{first}#{run + call}.{what}"


class BundledFile(Record):
    """The size of a file and the SHA-256 of its bytes."""

    bytes: Annotated[int, Field(ge=0, le=LARGEST)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Integers = Literal["int8", "uint8", "int16", "uint16", "int32"]
"""The types of words that are integers themselves, without scale and zero point."""


class RecordedSite(Record):
    """A site, and how many times it runs in one forward.

    An accumulator whose width the plan changes is another one in the `clean` run (None: the same). `integers` is the
    type of words that are ONNX' own integers, which may have fewer bits than it (None: values on a grid).
    """

    site: Site
    calls: Annotated[int, Field(ge=1, le=1 << 16)]
    clean: Site | None = None
    integers: Integers | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for site in (self.site, self.clean):
            if self.integers is None or site is None:
                continue
            fmt, limits = CodeFormat(site.bit_width, site.signed), np.iinfo(self.integers)
            if fmt.low < limits.min or fmt.high > limits.max:
                raise ValueError(
                    f"integers: {self.integers} does not hold those of {site.name!r}, from {fmt.low} to {fmt.high}"
                )
        return self


class RecordedInput(Record):
    """An input of the graphs: its name, its type, and the shape of one sample."""

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    dtype: Literal["float32", "int64", "int32"]
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=1 << 32)], ...], Field(max_length=64)]

    @property
    def is_plain(self) -> bool:
        """Whether it is what a bundle has that says nothing of its inputs."""
        return (self.name, self.dtype) == (INPUT, "float32")


class Manifest(Record):
    """What `manifest.json` says; every other file of the bundle is listed with its size and hash.

    Samples are numbered from 0 and were recorded in batches of `batch_size`. `sites` are in the order in which they
    first ran. Accumulators are among them where the plan strikes them, under the seeds, and in integer
    arithmetic all, in every run. `profiles` names the file of each fault
    profile that the plan was made from, by the name that the plan has for it. `inputs` are those of the graphs, in
    their order, each by its name there; a single one is called `input`, and is float32 where nothing is said (None).
    """

    format: Literal["hwfault-bundle/1"] = "hwfault-bundle/1"
    spec: Literal["fault-stream v1", "fault-stream v1.1"] = "fault-stream v1"
    versions: dict[str, str]
    samples: Annotated[int, Field(ge=1, le=1 << 32)]
    batch_size: Annotated[int, Field(ge=1, le=1 << 32)]
    inputs: Annotated[tuple[RecordedInput, ...], Field(min_length=1, max_length=1 << 10)] | None = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=1 << 64)], ...] = ()
    plan_sha256: str | None = None
    profiles: dict[str, str] = Field(default_factory=dict)
    sites: tuple[RecordedSite, ...]
    files: dict[str, BundledFile]

    @model_validator(mode="before")
    @classmethod
    def _not_too_many(cls, data: Any) -> Any:
        for key in ("files", "profiles", "versions"):  # before each of them is looked at
            found = data.get(key) if isinstance(data, dict) else None
            if isinstance(found, dict) and len(found) > MOST_FILES:
                raise ValueError(f"{key}: {len(found)} entries, expected at most {MOST_FILES}")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.files:
            if not _NAME.fullmatch(name) or name == MANIFEST:
                raise ValueError(f"files: {name!r} is no name of a file in a bundle, expected NAME or FOLDER/NAME")
        if (self.plan_sha256 is None) != (not self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: expected one or more, each once, where there is a plan, and none without one")
        own = [CLEAN_GRAPH, INPUTS, CLEAN, *self.profiles.values(), *map(seed_file, self.seeds)]
        own += [FAULTED_GRAPH, PLAN] if self.seeds else []
        if missing := [name for name in own if name not in self.files]:
            raise ValueError(f"files: {missing[0]!r} is not listed")
        if len({entry.name for entry in self.inputs or ()}) < len(self.inputs or ()):
            raise ValueError("inputs: a name is listed twice")
        if len({entry.site.name for entry in self.sites}) < len(self.sites):
            raise ValueError("sites: a site is listed twice")
        if self.spec == "fault-stream v1" and needs_stream(entry.site for entry in self.sites) is not None:
            raise ValueError("spec: its sites need fault-stream v1.1, which the manifest does not say")
        if (total := sum(entry.bytes for entry in self.files.values())) > LARGEST:
            raise ValueError(f"files: {total} bytes together, expected at most {LARGEST}: take fewer samples or seeds")
        return self
