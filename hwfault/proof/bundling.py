"""Putting a bundle together of what an engine records: graphs, plan, profiles, inputs, and what becomes of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from safetensors.numpy import save as save_tensors

from hwfault.errors import FileError, GraphError, HwfaultError
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.graph.read.versions import NEW, SPEC
from hwfault.graph.run.graph_input import InputArrays
from hwfault.plan.fault_plan import FaultPlan, needs_stream, spec_of
from hwfault.profiles.library import profile_path
from hwfault.proof.manifest import (
    CLEAN,
    INPUT,
    INPUTS,
    LABEL,
    PLAN,
    Manifest,
    RecordedInput,
    RecordedSite,
    input_tensor,
    seed_file,
)
from hwfault.proof.noted import Noted
from hwfault.proof.storage import Tensors, describe_files, write
from hwfault.stream.check import check_seed

TYPES = (np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.int32))
"""Of which types the inputs of a bundle may be."""


class Given(NamedTuple):
    """The samples of a bundle: inputs (n, ...), labels (n,) or None, in batches of a size."""

    inputs: InputArrays
    labels: NDArray[Any] | None
    batch_size: int


class Recorded(Protocol):
    """What an engine knows of its runs, once it has made them."""

    @property
    def sites(self) -> tuple[RecordedSite, ...]:
        """The sites that ran, in the order in which they did."""
        ...

    @property
    def parameters(self) -> Collection[str]:
        """The keys of the runs of parameters, which are no samples'."""
        ...

    @property
    def needs_stream(self) -> bool:
        """Whether codes were noted that only version 1.1 of the fault stream defines."""
        ...


Run = Callable[[FaultPlan | None, int], Noted]
"""What becomes of all samples under a plan (None: clean) and a seed."""


def check_asked(samples: int, plan: FaultPlan | None, seeds: Sequence[int]) -> None:
    """Raises HwfaultError for a bundle without samples, for a plan without seeds and for seeds without a plan."""
    if (plan is None) != (not seeds) or not samples:
        raise HwfaultError(
            f"a bundle of {samples} samples, {len(seeds)} seeds and {'no' if plan is None else 'a'} plan; expected "
            "samples, and seeds exactly where there is a plan"
        )


def put_together(
    path: Path | str,
    graphs: Mapping[str, ModelProto],
    given: Given,
    plan: FaultPlan | None,
    seeds: Sequence[int],
    recorded: Recorded,
    run: Run,
    *,
    versions: Mapping[str, str],
    progress: Callable[[], object],
) -> Manifest:
    """Records the runs and writes them with all that goes along; answers with the manifest. Raises FileError."""
    # the graphs and what goes with them
    files = {name: graph.SerializeToString() for name, graph in graphs.items()}
    files[INPUTS] = _saved(_numbers(given))
    if plan is not None:
        files[PLAN] = plan.to_json().encode()
    profiles = _profiles(plan)
    files |= dict(profiles.values())
    # the runs
    clean = run(None, 0).clean_tensors(recorded.parameters)
    files[CLEAN] = _saved(clean)
    progress()
    for seed in map(check_seed, seeds):
        files[seed_file(seed)] = _saved(run(plan, seed).faulty_tensors(clean))
        progress()
    manifest = Manifest(
        spec=_spec(recorded, list(graphs.values())),
        versions=dict(versions),
        samples=len(given.inputs),
        batch_size=given.batch_size,
        inputs=_described(given.inputs),
        seeds=tuple(seeds),
        plan_sha256=None if plan is None else plan.digest,
        profiles={name: place for name, (place, _) in profiles.items()},
        sites=recorded.sites,
        files=describe_files(files),
    )
    write(path, manifest, files)
    return manifest


def _spec(recorded: Recorded, graphs: Sequence[ModelProto]) -> str:
    """The version of the fault stream that a bundle needs."""
    needed = recorded.needs_stream or any(metadata(graph).get(SPEC) == NEW for graph in graphs)
    return spec_of("1.1" if needed else needs_stream(entry.site for entry in recorded.sites))


def recorded_inputs(inputs: InputArrays) -> InputArrays:
    """Inputs as a bundle has them: a single one is called `input`; raises GraphError for types that it has not."""
    for name, values in inputs.arrays.items():
        if values.dtype not in TYPES:
            raise GraphError(
                f"the graph's input {name!r} takes {values.dtype}, but a bundle's samples are float32, int64 or int32; "
                "convert them in the graph"
            )
    return inputs if len(inputs.arrays) > 1 else InputArrays.of(inputs.only, [INPUT])


def _described(inputs: InputArrays) -> tuple[RecordedInput, ...] | None:
    """What the manifest says of the inputs; nothing of a single one of float32, so that versions before read it."""
    found = []
    for name, values in inputs.arrays.items():
        found.append(RecordedInput(name=name, dtype=values.dtype.name, shape=values.shape[1:]))
    return None if len(found) == 1 and found[0].is_plain else tuple(found)


def _numbers(given: Given) -> Tensors:
    several = len(given.inputs.arrays)
    numbers = {input_tensor(name, several): values for name, values in given.inputs.arrays.items()}
    return numbers if given.labels is None else numbers | {LABEL: given.labels.astype(np.int64)}


def _saved(tensors: Tensors) -> bytes:
    """Tensors as the bytes of a .safetensors file, which writes memory as it lies."""
    return bytes(save_tensors({name: np.array(values, order="C") for name, values in tensors.items()}))


def _profiles(plan: FaultPlan | None) -> dict[str, tuple[str, bytes]]:
    """The file in the bundle and the content of each profile that a plan was made from."""
    found: dict[str, tuple[str, bytes]] = {}
    for fault in () if plan is None else plan.faults:
        name = fault.profile_name
        if name is not None and name not in found:
            path = profile_path(name)
            try:
                found[name] = f"profiles/{len(found)}-{_plain(path.stem)}.yaml", path.read_bytes()
            except OSError as error:
                raise FileError(f"{path}: cannot be read ({error.strerror}); expected the plan's profile") from None
    return found


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in name)[:100]
