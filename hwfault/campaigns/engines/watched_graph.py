"""A graph in onnxruntime of which every site is looked at while one batch runs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.campaigns.engines.engine import Trial, changes_by_batch
from hwfault.campaigns.engines.watching import Batch, Eye, Watched
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.run.graph_input import InputArrays
from hwfault.graph.run.session import run, session
from hwfault.plan.fault_plan import FaultPlan
from hwfault.proof.engine import with_sites
from hwfault.proof.places import find_tensors

Array = NDArray[Any]


def watch_graph(graph: ModelProto, inputs: InputArrays, trial: Trial | None, batch: Batch) -> Watched:
    """What a trial (None: the golden run) does to one sample of a batch of the `inputs` of a clean graph.

    Raises PlanError for a plan that does not fit the graph, GraphError for a grid that is no constant.
    """
    plan = None if trial is None else trial.plan
    struck = graph if plan is None else insert_faults(graph, plan)
    places = find_tensors(struck, plan)
    made = session(with_sites(struck, places), threads=1, spin=False, fast=True)
    names = [made.get_outputs()[0].name]
    names += dict.fromkeys(name for place in places for name in place.types if name != names[0])
    numbers = _numbers(plan, batch)
    seed = 0 if trial is None else trial.seed
    values = run(made, inputs.rows(batch.numbers), seed=seed, outputs=names, **numbers)
    tensors = dict(zip(names, values, strict=True))
    eye = Eye(batch.place)
    for place in places:
        side = place.side(tensors)
        eye.add(place.site, [side.before, side.after])
    return Watched(values[0][batch.place][np.newaxis], eye.seen)


def _numbers(plan: FaultPlan | None, batch: Batch) -> dict[str, Any]:
    """How the samples are numbered: faults that change with the batch know it by its first."""
    if batch.in_order and plan is not None and changes_by_batch(plan):
        return {"first_sample": batch.first}
    return {"samples": batch.numbers}
