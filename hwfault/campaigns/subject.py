"""What a study is about: a trained network with its data, or a graph with an .npz file; and the engine that runs it."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.campaigns.engines.engine import Engine
from hwfault.campaigns.engines.sparse_flips import SparseFlips, make_sparse
from hwfault.campaigns.exactness import why_not_exact
from hwfault.campaigns.study.records import Arithmetic, Study
from hwfault.errors import HwfaultError
from hwfault.graph.read.integer import is_integer
from hwfault.program.processes import Site
from hwfault.train.loading import RunOptions, split_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwfault.campaigns.engines.torch_engine import TorchEngine
    from hwfault.graph.run.graph_input import Samples as GraphSamples
    from hwfault.train.data import Split


Score = Callable[[Sequence[Site]], NDArray[np.float64] | str]
"""How much harm the flips of each bit of some sites are expected to do, by sites and bits; or why that is not known."""


class Subject(NamedTuple):
    """Network or graph with its samples: the engine that runs it, the labels (n,) or None, and what it is.

    `slow` is PyTorch's engine, which runs whatever a network can be struck by (None: a graph has none). `exact` says
    that every engine, batch and thread count gives the same outputs to the bit; `note` says why. `make_sparse` makes
    what runs single flips of weights, or says why there is none; `score` says where they are expected to do harm.
    `by_engine` says whether trials depend on who computes them, `counts_faults` whether it is told of each if any
    fault fell.
    """

    engine: Engine
    slow: Engine | None
    labels: NDArray[np.int64] | None
    identity: dict[str, Any]
    exact: bool
    note: str
    make_sparse: Callable[[], tuple[SparseFlips | None, str | None]]
    score: Score
    by_engine: bool
    counts_faults: bool = True


def load_subject(study: Study, trusted: RunOptions) -> Subject:
    """Loads what a study names; raises FileError or HwfaultError for what cannot be loaded or run."""
    if study.graph is not None:
        return _of_graph(study)
    return _of_network(study, trusted)


def subject_of(
    model: "nn.Module", split: "Split", order: "Tensor", engine: "TorchEngine", *, statistics: bool
) -> Subject:
    """A network and the samples `order` of a split that are there already, run by PyTorch as the network itself is.

    Nobody looks whether other engines would give the same, and of each trial no more is told than `engine` tells.
    """
    identity = _identity(model, split, order)
    if statistics:
        identity["statistics"] = True
    note = "the network's own arithmetic, on its own device"
    return Subject(
        engine,
        engine,
        _labels_of(split, order),
        identity,
        exact=False,
        note=note,
        make_sparse=lambda: (None, note),
        score=lambda _sites: note,
        by_engine=False,
        counts_faults=False,
    )


def _identity(model: "nn.Module", split: "Split", order: "Tensor") -> dict[str, Any]:
    from hwfault.campaigns.samples import digest

    return {"network": network_digest(model), "samples": len(order), "samples digest": digest(split, order)}


def _labels_of(split: "Split", order: "Tensor") -> NDArray[np.int64]:
    found: NDArray[np.int64] = split.labels[order.to(split.labels.device)].cpu().numpy()
    return found


def network_digest(network: "nn.Module") -> str:
    """SHA-256 of a network's tensors with their names, types and shapes."""
    import torch

    found = sha256()
    for key, tensor in network.state_dict().items():
        found.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _of_network(study: Study, trusted: RunOptions) -> Subject:
    import torch

    from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
    from hwfault.campaigns.engines.onnxruntime_engine import OnnxruntimeEngine
    from hwfault.campaigns.engines.torch_engine import TorchEngine

    assert study.network is not None
    model, config, data = trusted.load(Path(study.network))
    split = split_of(study.samples.split, data, config)
    count = len(split) if study.samples.first is None else min(study.samples.first, len(split))
    if not count:
        raise HwfaultError("the split holds no samples, expected at least one")
    order = torch.arange(count)
    identity = _identity(model, split, order) | {"class": trusted.network or config.network}
    inputs = split.inputs(order).cpu()
    graph, rounds = _exported(model, inputs[:1], study.arithmetic)
    added = integer_arithmetic(model) if study.arithmetic == "integer" else None
    slow = TorchEngine(model, split, order, study.batch_size)
    engine: Engine = slow
    # where nothing rounds the fastest engine gives the same answers; elsewhere they are those of the network itself
    wanted = study.engine == "onnxruntime" or (study.engine in ("auto", "sparse") and rounds is None)
    if wanted:
        if graph is None:
            raise HwfaultError(f"the network cannot be exported, so that onnxruntime cannot run it: {rounds}")
        engine = OnnxruntimeEngine(graph, inputs.numpy(), study.batch_size, exact=rounds is None)

    def sparse() -> tuple[SparseFlips | None, str | None]:
        if rounds is not None:
            return None, rounds
        return make_sparse(model, inputs.numpy(), engine.golden())

    def score(sites: Sequence[Site]) -> NDArray[np.float64] | str:
        from hwfault.campaigns.first_order import score_flips

        # sums of integers have no gradients; those of the network itself tell as much
        if added is not None:
            added.remove()
        try:
            on = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
            return score_flips(model, lambda i: split.inputs(order[i : i + 1]).to(on), count, sites)
        finally:
            if added is not None:
                integer_arithmetic(model)

    labels = _labels_of(split, order)
    rounded = rounds is not None
    return Subject(engine, slow, labels, identity, not rounded, _told(rounds), sparse, score, by_engine=rounded)


def _exported(model: "nn.Module", example: "Tensor", arithmetic: Arithmetic) -> tuple[ModelProto | None, str | None]:
    """The network's graph, and why it is not exact to the bit in every engine; None and why it cannot be exported."""
    from hwfault.graph.export.of_network import export

    try:
        graph = export(model, example, arithmetic=arithmetic)
    except HwfaultError as error:
        return None, str(error)
    return graph, why_not_exact(graph)


def _told(rounds: str | None) -> str:
    """Whether all engines agree, and why, in words."""
    if rounds is None:
        return "no sum is rounded, so that every engine, batch and number of threads gives the same answers"
    return f"sums are rounded ({rounds}), so that one engine, its version and batch belong to the answers"


def _of_graph(study: Study) -> Subject:
    from hwfault.graph.run.graph_input import GraphInputs
    from hwfault.graph.run.samples import read_samples
    from hwfault.graph.run.session import load_model

    assert study.graph is not None
    assert study.data is not None
    graph = load_model(study.graph)
    wanted = GraphInputs.of(graph)
    samples = read_samples(study.data, wanted, study.samples.first)
    if study.engine == "torch":
        raise HwfaultError("engine: torch runs networks; expected auto, onnxruntime or sparse for a graph")
    size = wanted.batch_size(study.batch_size, len(samples.inputs), study.batch_size)
    return subject_of_graph(graph, samples, size)


def subject_of_graph(graph: ModelProto, samples: "GraphSamples", batch_size: int) -> Subject:
    """A graph and its samples, run by onnxruntime in batches of a size; raises HwfaultError for several outputs."""
    from hwfault.campaigns.engines.onnxruntime_engine import OnnxruntimeEngine
    from hwfault.graph.run.graph_input import GraphInputs, InputArrays

    wanted, labels = GraphInputs.of(graph), samples.labels
    inputs = InputArrays.of(samples.inputs, wanted.names)
    seen = sha256()
    inputs.update_digest(seen)
    seen.update(b"" if labels is None else labels.tobytes())
    identity = {
        "graph": sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
        "samples": len(inputs),
        "samples digest": seen.hexdigest(),
    }
    rounds = why_not_exact(graph)
    # a graph of a fixed batch takes no batch of the samples that faults still reach
    whole = wanted.batch is not None
    engine = OnnxruntimeEngine(graph, inputs, batch_size, exact=rounds is None and not whole)

    def sparse() -> tuple[SparseFlips | None, str | None]:
        if not is_integer(graph):
            return None, "the graph does not say that it computes in integer arithmetic (hwfault export --arithmetic)"
        if len(wanted.each) > 1:
            return None, f"the graph has the inputs {wanted.names}, and single flips are carried from one"
        return make_sparse(graph, inputs.only, engine.golden())

    rounded = rounds is not None
    return Subject(engine, None, labels, identity, not rounded, _told(rounds), sparse, _no_gradients, by_engine=rounded)


def _no_gradients(_sites: Sequence[Site]) -> str:
    return "a graph has no gradients to score flips by; give the network it was exported from"
