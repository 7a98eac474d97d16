"""What a study is about: a trained network with its data, or a graph with an .npz file; and the engine that runs it."""

from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.engines.engine import Engine
from hwfault.campaigns.study.records import Study
from hwfault.errors import FileError, HwfaultError
from hwfault.train.loading import RunOptions, split_of

_LARGEST_DATA = 4 << 30


class Subject(NamedTuple):
    """Network or graph with its samples: the engine that runs it, the labels (n,) or None, and what it is.

    `exact` says that every engine, batch and thread count gives the same outputs to the bit; `note` says why.
    """

    engine: Engine
    labels: NDArray[np.int64] | None
    identity: dict[str, Any]
    exact: bool
    note: str


def load_subject(study: Study, trusted: RunOptions) -> Subject:
    """Loads what a study names; raises FileError or HwfaultError for what cannot be loaded or run."""
    if study.graph is not None:
        return _of_graph(study)
    return _of_network(study, trusted)


def _of_network(study: Study, trusted: RunOptions) -> Subject:
    import torch

    from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
    from hwfault.campaigns.engines.onnxruntime_engine import OnnxruntimeEngine
    from hwfault.campaigns.engines.torch_engine import TorchEngine
    from hwfault.campaigns.samples import digest
    from hwfault.campaigns.store import network_digest
    from hwfault.graph.export.of_network import export

    assert study.network is not None
    model, config, data = trusted.load(Path(study.network))
    before = network_digest(model)
    if study.arithmetic == "integer":
        integer_arithmetic(model)
    split = split_of(study.samples.split, data, config)
    count = len(split) if study.samples.first is None else min(study.samples.first, len(split))
    if not count:
        raise HwfaultError("the split holds no samples, expected at least one")
    order = torch.arange(count)
    identity = {
        "network": before,
        "class": trusted.network or config.network,
        "samples": count,
        "samples digest": digest(split, order),
    }
    engine: Engine = TorchEngine(model, split, order, study.batch_size)
    if study.engine == "onnxruntime":
        if study.arithmetic == "integer":
            raise HwfaultError("arithmetic: integer is PyTorch's; expected engine: torch, or auto")
        inputs = split.inputs(order).cpu()
        engine = OnnxruntimeEngine(export(model, inputs[:1]), inputs.numpy(), study.batch_size)
    labels = split.labels[order.to(split.labels.device)].cpu().numpy()
    exact = study.arithmetic == "integer"
    note = "sums are integers" if exact else "sums are floating point: one engine, its version and batch belong to it"
    return Subject(engine, labels, identity, exact, note)


def _of_graph(study: Study) -> Subject:
    from hwfault.campaigns.engines.onnxruntime_engine import OnnxruntimeEngine
    from hwfault.graph.run.session import load_model
    from hwfault.npz import read_arrays

    assert study.graph is not None
    assert study.data is not None
    arrays = read_arrays(study.data, ("x", "y"), _LARGEST_DATA)
    if "x" not in arrays:
        raise FileError(f"{study.data}: holds no array 'x', expected x (inputs) and, to tell right answers, y (labels)")
    count = len(arrays["x"]) if study.samples.first is None else min(study.samples.first, len(arrays["x"]))
    inputs = arrays["x"][:count]
    if not count:
        raise FileError(f"{study.data}: x holds no samples, expected at least one")
    labels = _labels(study.data, arrays.get("y"), count)
    graph = load_model(study.graph)
    seen = sha256(np.ascontiguousarray(inputs).tobytes())
    seen.update(b"" if labels is None else labels.tobytes())
    identity = {
        "graph": sha256(graph.SerializeToString(deterministic=True)).hexdigest(),
        "samples": count,
        "samples digest": seen.hexdigest(),
    }
    engine = OnnxruntimeEngine(graph, inputs, study.batch_size)
    return Subject(engine, labels, identity, False, "sums are onnxruntime's: its version and batch belong to it")


def _labels(path: str, found: NDArray[Any] | None, count: int) -> NDArray[np.int64] | None:
    """The labels of the first so many samples; raises FileError for what are none."""
    if found is None:
        return None
    if found.dtype.kind not in "iuf" or found.ndim != 1 or len(found) < count:
        raise FileError(f"{path}: y is {found.dtype} of shape {found.shape}, expected integers ({count},)")
    chosen = found[:count]
    if found.dtype.kind == "f" and not np.array_equal(chosen, np.round(chosen)):
        wrong = int(np.flatnonzero(chosen != np.round(chosen))[0])
        raise FileError(f"{path}: the label of sample {wrong} is {chosen[wrong]}, expected a class's number")
    return chosen.astype(np.int64)
