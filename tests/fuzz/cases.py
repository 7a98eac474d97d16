"""One case by its number: a graph or a call that is hostile, and what must not come of it."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwfault.errors import HwfaultError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.read.sites import sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import load_model, run, session
from hwfault.stream.native import onnxruntime_library
from tests.fuzz.calls import CALLS, Rng
from tests.fuzz.graphs import GRAPHS, KINDS
from tests.fuzz.mutate import hostile

_MOST = 1 << 14  # values of an input


def run_case(seed: int, number: int, folder: Path) -> str:
    """Runs a case and says what came of it; what it is made of lies in the folder while it runs.

    Two of five cases are calls of the C functions, two are graphs in onnxruntime alone, one is a graph in hwfault's own
    functions, from which only HwfaultError may come.
    """
    rng = Rng(f"{seed} {number}")
    way = number % 5
    if way < 2:
        name = rng.choice(list(CALLS))
        (folder / "case.json").write_text(json.dumps({"seed": seed, "number": number, "call": name}))
        rng.wild = rng.random() < 0.5
        return CALLS[name](rng)
    name = rng.choice(list(GRAPHS))
    (folder / "case.json").write_text(json.dumps({"seed": seed, "number": number, "graph": name}))
    content = hostile(GRAPHS[name](), rng)
    (folder / "case.onnx").write_bytes(content)
    return _in_hwfault(folder / "case.onnx", rng) if way == 4 else _in_onnxruntime(content, rng)


def plain_session(content: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session as any host makes it; every tensor has memory of its own, whose ends a sanitizer knows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.register_custom_ops_library(onnxruntime_library())
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _in_onnxruntime(content: bytes, rng: random.Random) -> str:
    try:
        made = plain_session(content, rng.choice((1, 1, 1, 2)))
        made.run(None, feeds(made, rng))
    except Exception:  # onnxruntime's own classes have no common one
        return "refused"
    return "ran"


def _in_hwfault(path: Path, rng: random.Random) -> str:
    refused = 0
    for step in (_sites, _plan, _run):
        try:
            step(path, rng)
        except HwfaultError:
            refused += 1
    return "refused" if refused == 3 else "ran"


def _sites(path: Path, _rng: random.Random) -> None:
    sites(load_model(path))


def _plan(path: Path, _rng: random.Random) -> None:
    model = load_model(path)
    fault_nodes(model)
    plan_of(model)


def _run(path: Path, rng: random.Random) -> None:
    made = session(path, threads=1)
    run(made, {k: v for k, v in feeds(made, rng).items() if not k.startswith("hwfault_")}, seed=1)


def feeds(made: onnxruntime.InferenceSession, rng: random.Random) -> dict[str, NDArray[Any]]:
    """An array for each input, some of shapes that do not fit."""
    values = np.random.default_rng(rng.getrandbits(32))
    return {entry.name: _array(entry, values, rng) for entry in made.get_inputs()}


def _array(entry: Any, values: np.random.Generator, rng: random.Random) -> NDArray[Any]:
    shape = [d if isinstance(d, int) and d >= 0 else rng.choice((0, 1, 2, 3)) for d in entry.shape or []]
    if rng.random() < 0.1 and shape:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 17))
    if np.prod([max(d, 1) for d in shape], dtype=np.float64) > _MOST:
        shape = [min(d, 3) for d in shape][:8]
    kind = KINDS.get(entry.type, np.float32)
    if kind == np.int64 and rng.random() < 0.7:  # numbers of samples, which are below 2^32
        return values.integers(0, 1 << 31, shape, np.int64)
    if np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        return values.integers(limits.min, limits.max, shape, kind, endpoint=True)
    array = np.asarray(values.normal(0, 3, shape), kind)
    if array.size and rng.random() < 0.2:
        array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -np.inf, 1e38, 0.0))
    return array
