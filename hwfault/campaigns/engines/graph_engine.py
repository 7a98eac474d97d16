"""Trials in onnxruntime: a graph, its inputs, and the outputs of every trial."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.campaigns.engines.engine import changes_by_batch
from hwfault.errors import HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.nodes import drawn_inputs
from hwfault.graph.read.qonnxgraph import attribute
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.blocked import session_of_struck
from hwfault.graph.run.graph_input import InputArrays
from hwfault.graph.run.session import run, session
from hwfault.plan.fault_plan import FaultPlan
from hwfault.stream.check import check_seed

Array = NDArray[Any]
GivenInputs = Array | Mapping[str, Array] | InputArrays
"""All images: an array (n, ...), or one for each input of a graph by its name."""

_KEPT_SESSIONS = 8


class _Loaded(NamedTuple):
    """The session of a plan, and what its batches may hold."""

    session: onnxruntime.InferenceSession
    stacks: bool
    """Whether samples of several trials: no parameter is struck by what the seed decides."""
    by_batch: bool
    """Whether some faults change with the batch, so that batches have to be those of all images in order."""


class GraphEngine:
    """Trials of a QONNX graph with one output, whose axis 0, as that of its inputs, holds the images, in onnxruntime.

    `inputs` (n, ...) are all images, by name where the graph has several inputs; image i is sample i of the fault
    stream. Plans that strike no parameter run trials
    side by side in one batch of `batch_size` rows, all others one trial after the other. Outputs do not depend on that,
    nor on the number of `threads`, where the graph's sums are exact (integer arithmetic, or scales that are powers of
    two and no normalization in floats); elsewhere onnxruntime may add up in another order in batches of another size,
    so that with `stacks=False` every trial has batches of its own, always the same ones.
    Faults that change with the batch (`refresh: batch`, or inference at parameters) change every `batch_size` images,
    as in all engines. Raises HwfaultError for a graph of other inputs or several outputs, and without an image.
    """

    def __init__(
        self, graph: ModelProto, inputs: GivenInputs, *, batch_size: int = 64, threads: int = 1, stacks: bool = True
    ) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self.threads = threads
        self.stacks = stacks
        self._clean = session(graph, threads=threads, spin=False, fast=True)
        self.inputs = InputArrays.of(inputs, _names_of_inputs(self._clean))
        images = len(self.inputs)
        if images < 1 or batch_size < 1:
            raise HwfaultError(f"given {images} images, batches of {batch_size}; expected at least one of each")
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()

    @cached_property
    def _golden(self) -> Array:
        answers = []
        for part in parts_of(len(self.inputs), self.batch_size):
            (answer,) = run(self._clean, self.inputs.rows(part))
            count = part.stop - part.start
            if answer.shape[:1] != (count,):
                raise HwfaultError(
                    f"the graph answers {count} images with an array of shape {answer.shape}, expected a row for each: "
                    "the images have to lie along axis 0 of its input and its output"
                )
            answers.append(answer)
        return np.concatenate(answers)

    def golden(self) -> Array:
        """The outputs (n, ...) of the clean graph; run once."""
        return self._golden

    def outputs(self, plan: FaultPlan, seeds: Sequence[int], images: Sequence[int] | Array | None = None) -> Array:
        """The outputs (trials, k, ...) under a plan for each seed, of all images or the k whose numbers are given.

        Raises HwfaultError for a seed that is none, for numbers of images that there are not, and for some of the
        images under faults that change with the batch; what `insert_faults` raises for a plan that does not fit.
        """
        seeds = [check_seed(seed) for seed in seeds]
        chosen = self.check_images(images)
        loaded = self._load(plan)
        golden = self.golden()
        out = np.empty((len(seeds), len(chosen), *golden.shape[1:]), golden.dtype)
        if loaded.by_batch:
            if images is not None and not np.array_equal(chosen, np.arange(len(self.inputs))):
                raise HwfaultError(
                    "the faults of the plan change from batch to batch, so that some of the images alone would meet "
                    "others; expected images=None, all of them"
                )
            self._run_in_order(loaded, seeds, out)
        elif loaded.stacks and self.stacks:
            self._run_stacked(loaded, seeds, chosen, out)
        else:
            self._run_one_by_one(loaded, seeds, chosen, out)
        return out

    def outputs_each(self, plan: FaultPlan, seeds: Sequence[int], images: Sequence[Array]) -> list[Array]:
        """The outputs (k, ...) under a plan for each seed, of images of its own; raises what `outputs` does.

        Trials of few images fill batches together, where trials run side by side.
        """
        loaded = self._load(plan)
        if loaded.by_batch or not (loaded.stacks and self.stacks):
            return [self.outputs(plan, [seed], chosen)[0] for seed, chosen in zip(seeds, images, strict=True)]
        each = [self.check_images(chosen) for chosen in images]
        sizes = [len(chosen) for chosen in each]
        of_seed = np.repeat(np.array([check_seed(seed) for seed in seeds], np.uint64), sizes)
        golden = self.golden()
        out = np.empty((len(of_seed), *golden.shape[1:]), golden.dtype)
        self._run_rows(loaded, of_seed, np.concatenate(each), out)
        return np.split(out, np.cumsum(sizes)[:-1])

    def check_images(self, images: Sequence[int] | Array | None) -> NDArray[np.int64]:
        """The numbers of the images (k,), all of them for None; raises HwfaultError for others than there are."""
        if images is None:
            return np.arange(len(self.inputs))
        chosen = np.asarray(images)
        if chosen.size == 0:
            return np.zeros(0, np.int64)
        whole = chosen.ndim == 1 and chosen.dtype.kind in "iu"
        if not whole or chosen.min() < 0 or chosen.max() >= len(self.inputs):
            raise HwfaultError(f"the numbers of the images are {images!r}, expected 0 to {len(self.inputs) - 1}")
        return chosen.astype(np.int64)

    def _load(self, plan: FaultPlan) -> _Loaded:
        """The session of a plan, made where it is not among those used last."""
        key = plan.digest
        if key not in self._loaded:
            self._loaded[key] = self._make(plan)
        self._loaded.move_to_end(key)
        while len(self._loaded) > _KEPT_SESSIONS:
            self._loaded.popitem(last=False)
        return self._loaded[key]

    def _make(self, plan: FaultPlan) -> _Loaded:
        graph = insert_faults(self.graph, plan)
        stacks = not draws_at_parameters(graph)
        if stacks:
            made = session(graph, threads=self.threads, spin=False, fast=True)
        else:
            made = session_of_struck(graph, threads=self.threads)
        return _Loaded(made, stacks, changes_by_batch(plan))

    def _run_stacked(self, loaded: _Loaded, seeds: Sequence[int], images: NDArray[np.int64], out: Array) -> None:
        """Trial behind trial in rows, of which a batch takes as many as it has room for."""
        of_seed = np.repeat(np.array(seeds, np.uint64), len(images))
        self._run_rows(loaded, of_seed, np.tile(images, len(seeds)), out.reshape(-1, *out.shape[2:]))

    def _run_rows(self, loaded: _Loaded, of_seed: Array, of_image: NDArray[np.int64], rows: Array) -> None:
        for part in parts_of(len(rows), self.batch_size):
            x = self.inputs.rows(of_image[part])
            (rows[part],) = run(loaded.session, x, seed=of_seed[part], samples=of_image[part])

    def _run_one_by_one(self, loaded: _Loaded, seeds: Sequence[int], images: NDArray[np.int64], out: Array) -> None:
        for trial, seed in enumerate(seeds):
            for part in parts_of(len(images), self.batch_size):
                x = self.inputs.rows(images[part])
                (out[trial, part],) = run(loaded.session, x, seed=seed, samples=images[part])

    def _run_in_order(self, loaded: _Loaded, seeds: Sequence[int], out: Array) -> None:
        for trial, seed in enumerate(seeds):
            for part in parts_of(len(self.inputs), self.batch_size):
                x = self.inputs.rows(part)
                (out[trial, part],) = run(loaded.session, x, seed=seed, first_sample=part.start)


def parts_of(rows: int, size: int) -> Iterator[slice]:
    """The rows in batches of a size; the last may be smaller."""
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def draws_at_parameters(graph: ModelProto) -> bool:
    """Whether the seed decides what strikes a parameter of a faulted graph, which all rows of a batch read."""
    nodes = (node for entry in fault_nodes(graph) for node in entry.nodes)
    return any("seed" in drawn_inputs(node) and not attribute(node, "batched", 1) for node in nodes)


def _names_of_inputs(made: onnxruntime.InferenceSession) -> list[str]:
    """What a graph calls its inputs; raises HwfaultError for one without inputs, or of several outputs."""
    inputs = [entry.name for entry in made.get_inputs()]
    outputs = [entry.name for entry in made.get_outputs()]
    if not inputs or len(outputs) != 1:
        raise HwfaultError(f"the graph has the inputs {inputs} and the outputs {outputs}, expected one output")
    return inputs
