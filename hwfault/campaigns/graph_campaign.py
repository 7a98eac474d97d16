"""A campaign of one question about a graph alone, with samples from a file: in onnxruntime, without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwfault.campaigns.one_question import OneQuestion
from hwfault.campaigns.subject import Subject, subject_of_graph
from hwfault.errors import HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.run.graph_input import GraphInputs
from hwfault.graph.run.samples import read_samples
from hwfault.graph.run.session import load_model
from hwfault.laws.files import Files
from hwfault.plan.fault_plan import FaultPlan

_BATCH = 512


class GraphCampaign(OneQuestion):
    """A graph (.onnx) with one output, whose answers are classes, and the samples of `data` for its inputs.

    Sample i of the fault stream is the i-th of the file (`hwfault.graph.run.samples`), of which the `first` so many are
    taken. `batch_size` samples run at a time (None: as many as the graph is made for, or 512). Where samples have no
    labels it is measured how many answers are the golden run's. Raises GraphError, FileError or HwfaultError for what
    cannot be run, or has no classes.
    """

    def __init__(
        self,
        graph: Path,
        data: Path,
        *,
        first: int | None = None,
        device: int | None = None,
        batch_size: int | None = None,
        files: Files | None = None,
    ) -> None:
        self._graph = load_model(graph)
        wanted = GraphInputs.of(self._graph)
        samples = read_samples(data, wanted, first)
        size = wanted.batch_size(batch_size, len(samples.inputs), _BATCH)
        self._subject = subject_of_graph(self._graph, samples, size)
        self._said = {"graph": str(graph), "data": str(data), "samples": {"first": first}, "engine": "onnxruntime"}
        super().__init__(self._subject.engine, device=device, files=files)
        self._check_answers(samples.classes)

    @property
    def subject(self) -> Subject:
        """The graph and its samples, as a study has them."""
        return self._subject

    @property
    def said(self) -> Mapping[str, Any]:
        """The files of graph and samples, and onnxruntime."""
        return self._said

    @property
    def has_labels(self) -> bool:
        """Whether it is known which answers are right."""
        return self._subject.labels is not None

    def check_fits(self, plan: FaultPlan) -> None:
        """Raises PlanError for a plan that does not fit the graph."""
        insert_faults(self._graph, plan)

    def _check_answers(self, classes: tuple[str, ...] | None) -> None:
        """Raises HwfaultError unless the golden run answers each sample with one of several classes."""
        golden, labels = self.engine.golden(), self._subject.labels
        if golden.ndim != 2 or golden.shape[1] < 2:
            raise HwfaultError(
                f"the graph answers a sample with an array of shape {golden.shape[1:]}, expected a number for each "
                "class: (classes,). A campaign tells other answers apart by a criterion of your own (docs/campaigns.md)"
            )
        if labels is None and not np.isfinite(golden).all():
            raise HwfaultError(
                "the golden run's outputs hold NaN or infinities and the samples have no labels, so that there is "
                "nothing to compare answers with; give labels (y)"
            )
        if classes is not None and len(classes) != golden.shape[1]:
            raise HwfaultError(
                f"the samples lie in the folders of {len(classes)} classes, but the graph tells {golden.shape[1]}; "
                "expected a folder for each, or folders that are called after the class's number"
            )
        if labels is not None and labels.max() >= golden.shape[1]:
            wrong = int(labels.argmax())
            raise HwfaultError(
                f"the label of sample {wrong} is {labels[wrong]}, but the graph tells {golden.shape[1]} classes; "
                f"expected labels from 0 to {golden.shape[1] - 1}"
            )
