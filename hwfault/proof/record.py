"""Recording a bundle from PyTorch: the graphs of a network, its plan, real inputs, and what becomes of them."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hwfault import __version__
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import Arithmetic, export
from hwfault.plan.fault_plan import FaultPlan
from hwfault.proof.bundling import Given, check_asked, put_together
from hwfault.proof.manifest import CLEAN_GRAPH, FAULTED_GRAPH, Manifest
from hwfault.proof.noted import Noted, join
from hwfault.proof.places import exact_sums
from hwfault.proof.recorder import Recorder


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
    check_asked(len(inputs), plan, seeds)
    size = len(inputs) if batch_size is None else min(batch_size, len(inputs))
    graphs = {CLEAN_GRAPH: export(model, inputs[:1], arithmetic=arithmetic)}
    if plan is not None:
        graphs[FAULTED_GRAPH] = insert_faults(graphs[CLEAN_GRAPH], plan)
    recorder = Recorder(model, inputs[:1], arithmetic, exact_sums(graphs[CLEAN_GRAPH]))
    run = partial(_run, recorder, torch.split(inputs, size))
    return put_together(
        path,
        graphs,
        Given(inputs.numpy(force=True), None if labels is None else labels.numpy(force=True), size),
        plan,
        seeds,
        recorder,
        run,
        versions=recorded_with(),
        progress=progress,
    )


def recorded_with() -> dict[str, str]:
    """What records here, and its versions."""
    return {"hwfault": __version__, **{name: version(name) for name in ("torch", "brevitas", "onnx")}}


def _run(recorder: Recorder, batches: Sequence[Tensor], plan: FaultPlan | None, seed: int) -> Noted:
    """What becomes of all samples in one run."""
    begins = np.cumsum([0, *map(len, batches)]).tolist()
    with recorder.attached(plan) as recording:
        return join([recording.run(batch, seed, begin) for batch, begin in zip(batches, begins, strict=False)])
