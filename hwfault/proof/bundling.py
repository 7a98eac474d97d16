"""Putting a bundle together of what an engine records: graphs, plan, profiles, inputs, and what becomes of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from safetensors.numpy import save as save_tensors

from hwfault.errors import FileError, HwfaultError
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.graph.read.versions import NEW, SPEC
from hwfault.plan.fault_plan import FaultPlan, needs_stream, spec_of
from hwfault.profiles.library import profile_path
from hwfault.proof.manifest import CLEAN, INPUTS, PLAN, Manifest, RecordedSite, seed_file
from hwfault.proof.noted import Noted
from hwfault.proof.storage import Tensors, describe_files, write
from hwfault.stream.check import check_seed


class Given(NamedTuple):
    """The samples of a bundle: inputs (n, ...) float32, labels (n,) or None, in batches of a size."""

    inputs: NDArray[Any]
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


def _numbers(given: Given) -> Tensors:
    known = {} if given.labels is None else {"label": given.labels.astype(np.int64)}
    return {"input": given.inputs, **known}


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
