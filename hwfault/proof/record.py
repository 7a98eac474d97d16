"""Recording a bundle from PyTorch: the graphs of a network, its plan, real inputs, and what becomes of them."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from hwfault import __version__
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import Arithmetic, export
from hwfault.graph.run.graph_input import InputArrays
from hwfault.network.inputs import Example, Inputs, samples_in, samples_of
from hwfault.network.sites import unwrap
from hwfault.plan.fault_plan import FaultPlan
from hwfault.proof.bundling import Given, check_asked, put_together, recorded_inputs
from hwfault.proof.manifest import CLEAN_GRAPH, FAULTED_GRAPH, Manifest
from hwfault.proof.noted import Noted, join
from hwfault.proof.places import exact_sums
from hwfault.proof.recorder import Recorder


def write_bundle(
    path: Path | str,
    model: nn.Module,
    inputs: Example,
    *,
    labels: Tensor | None = None,
    plan: FaultPlan | None = None,
    seeds: Sequence[int] = (),
    batch_size: int | None = None,
    arithmetic: Arithmetic = "float",
    as_traced: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> Manifest:
    """Writes a bundle (a folder, or a .zip by the path's suffix) of a network, and answers with its manifest.

    `inputs` (n, ...), a tensor or several as `export` takes them, are the samples 0 to n - 1, with their `labels` (n,)
    where these are known. They are run clean and, with a `plan`, under each of `seeds`, in batches of `batch_size`
    (None: all at once), in the `arithmetic` of the graphs (see `export` for this and `as_traced`); `progress` is called
    after each run. Raises HwfaultError for a plan without seeds or seeds without a plan, GraphError or PlanError where
    the network cannot be exported or the plan does not fit, FileError.
    """
    check_asked(samples_in(inputs, 0) or 0, plan, seeds)
    arrays = _arrays(model, inputs)
    size = len(arrays) if batch_size is None else min(batch_size, len(arrays))
    example = samples_of(inputs, slice(0, 1))
    graphs = {CLEAN_GRAPH: export(model, example, arithmetic=arithmetic, as_traced=as_traced)}
    if plan is not None:
        graphs[FAULTED_GRAPH] = insert_faults(graphs[CLEAN_GRAPH], plan)
    recorder = Recorder(model, example, arithmetic, exact_sums(graphs[CLEAN_GRAPH]))
    begins = range(0, len(arrays), size)
    run = partial(_run, recorder, [(begin, samples_of(inputs, slice(begin, begin + size))) for begin in begins])
    return put_together(
        path,
        graphs,
        Given(recorded_inputs(arrays), None if labels is None else labels.numpy(force=True), size),
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


def _arrays(model: nn.Module, inputs: Example) -> InputArrays:
    """The samples of each input; raises HwfaultError for inputs without samples, or not as many each."""
    given = Inputs.of(inputs)
    names = given.names(unwrap(model))
    arrays = {name: tensor.numpy(force=True) for name, tensor in zip(names, given.tensors, strict=True)}
    return InputArrays.of(arrays, names)


def _run(recorder: Recorder, batches: Sequence[tuple[int, Example]], plan: FaultPlan | None, seed: int) -> Noted:
    """What becomes of all samples in one run; batches come with the number of their first sample."""
    with recorder.attached(plan) as recording:
        return join([recording.run(batch, seed, begin) for begin, batch in batches])
