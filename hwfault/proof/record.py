"""Recording a bundle from PyTorch: the graphs of a network, its plan, real inputs, and what becomes of them."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto
from safetensors.numpy import save as save_tensors
from torch import Tensor, nn

from hwfault import __version__
from hwfault.errors import FileError, HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import Arithmetic, export
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.graph.read.versions import NEW, SPEC
from hwfault.plan.fault_plan import FaultPlan, needs_stream, spec_of
from hwfault.profiles.library import profile_path
from hwfault.proof.manifest import CLEAN, CLEAN_GRAPH, FAULTED_GRAPH, INPUTS, PLAN, Manifest, seed_file
from hwfault.proof.places import exact_sums
from hwfault.proof.recorder import Noted, Recorder, join
from hwfault.proof.storage import Tensors, describe_files, write
from hwfault.stream.check import check_seed


def write_bundle(
    path: Path | str,
    model: nn.Module,
    inputs: Tensor,
    *,
    labels: Tensor | None = None,
    plan: FaultPlan | None = None,
    seeds: Sequence[int] = (),
    batch_size: int | None = None,
    arithmetic: Arithmetic = "float",
    progress: Callable[[], object] = lambda: None,
) -> Manifest:
    """Writes a bundle (a folder, or a .zip by the path's suffix) of a network, and answers with its manifest.

    `inputs` (n, ...) float32 are the samples 0 to n - 1, with their `labels` (n,) where these are known. They are run
    clean and, with a `plan`, under each of `seeds`, in batches of `batch_size` (None: all at once), in the `arithmetic`
    of the graphs (see `export`); `progress` is called after each run. Raises HwfaultError for a plan without seeds or
    seeds without a plan, GraphError or PlanError where the network cannot be exported or the plan does not fit,
    FileError.
    """
    if (plan is None) != (not seeds) or not len(inputs):
        raise HwfaultError(
            f"a bundle of {len(inputs)} samples, {len(seeds)} seeds and {'no' if plan is None else 'a'} plan; expected "
            "samples, and seeds exactly where there is a plan"
        )
    size = len(inputs) if batch_size is None else min(batch_size, len(inputs))
    # the graphs and what goes with them
    graphs = {CLEAN_GRAPH: export(model, inputs[:1], arithmetic=arithmetic)}
    if plan is not None:
        graphs[FAULTED_GRAPH] = insert_faults(graphs[CLEAN_GRAPH], plan)
    files = {name: graph.SerializeToString() for name, graph in graphs.items()}
    files[INPUTS] = _saved(_numbers(inputs, labels))
    if plan is not None:
        files[PLAN] = plan.to_json().encode()
    profiles = _profiles(plan)
    files |= dict(profiles.values())
    # the runs
    recorder = Recorder(model, inputs[:1], arithmetic, exact_sums(graphs[CLEAN_GRAPH]))
    files |= _runs(recorder, torch.split(inputs, size), plan, seeds, progress)
    manifest = Manifest(
        spec=_spec(recorder, list(graphs.values())),
        versions=recorded_with(),
        samples=len(inputs),
        batch_size=size,
        seeds=tuple(seeds),
        plan_sha256=None if plan is None else plan.digest,
        profiles={name: place for name, (place, _) in profiles.items()},
        sites=recorder.sites,
        files=describe_files(files),
    )
    write(path, manifest, files)
    return manifest


def recorded_with() -> dict[str, str]:
    """What records here, and its versions."""
    return {"hwfault": __version__, **{name: version(name) for name in ("torch", "brevitas", "onnx")}}


def _runs(
    recorder: Recorder,
    batches: Sequence[Tensor],
    plan: FaultPlan | None,
    seeds: Sequence[int],
    progress: Callable[[], object],
) -> dict[str, bytes]:
    """The files of the clean run and of those under the seeds."""
    clean = _run(recorder, None, batches, 0).clean_tensors(recorder.parameters)
    files = {CLEAN: _saved(clean)}
    progress()
    for seed in map(check_seed, seeds):
        files[seed_file(seed)] = _saved(_run(recorder, plan, batches, seed).faulty_tensors(clean))
        progress()
    return files


def _run(recorder: Recorder, plan: FaultPlan | None, batches: Sequence[Tensor], seed: int) -> Noted:
    """What becomes of all samples in one run."""
    begins = np.cumsum([0, *map(len, batches)]).tolist()
    with recorder.attached(plan) as recording:
        return join([recording.run(batch, seed, begin) for batch, begin in zip(batches, begins, strict=False)])


def _spec(recorder: Recorder, graphs: Sequence[ModelProto]) -> str:
    """The version of the fault stream that a bundle needs."""
    needed = recorder.needs_stream or any(metadata(graph).get(SPEC) == NEW for graph in graphs)
    return spec_of("1.1" if needed else needs_stream(entry.site for entry in recorder.sites))


def _numbers(inputs: Tensor, labels: Tensor | None) -> Tensors:
    known = {} if labels is None else {"label": labels.numpy(force=True).astype(np.int64)}
    return {"input": inputs.numpy(force=True), **known}


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
