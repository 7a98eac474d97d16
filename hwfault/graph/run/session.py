"""Running graphs in onnxruntime, with hwfault's ops."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnxruntime  # which hwfault/__init__ told to report nothing to its makers
from numpy.typing import ArrayLike, NDArray
from onnx import AttributeProto, ModelProto

from hwfault.errors import GraphError, HwfaultError, NativeLibraryError, expect_kind
from hwfault.graph import ops
from hwfault.graph.edit.fast import FOR_SEED, only_to_run
from hwfault.graph.edit.upgrade import upgrade
from hwfault.graph.ops import DOMAIN, OLD_DOMAINS, QUANT_DOMAIN
from hwfault.graph.read.external import check_files, check_in_memory, graphs
from hwfault.graph.read.functions import find_endless
from hwfault.graph.read.marked import with_marks
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED, drawn_inputs
from hwfault.graph.read.struck import check_kept, fault_nodes
from hwfault.graph.read.versions import check_version
from hwfault.graph.run.row_numbers import Numbers, Seeds, check_samples, check_seeds
from hwfault.inputs import check_regular, refuse_bundle
from hwfault.stream.check import check_number, check_seed, signed64
from hwfault.stream.native import onnxruntime_library

Optimization = Literal["none", "basic", "extended", "all"]

# for those who imported onnxruntime before hwfault, where its environment variable comes too late
onnxruntime.disable_telemetry_events()

_LOG = logging.getLogger("hwfault")
_LARGEST_GRAPH = 1 << 31
_MOST_NODES = 1 << 20
"""The most nodes that a graph may have once its functions are written out, as onnxruntime does it."""
_ATTRIBUTE_TYPES = [AttributeProto.AttributeType.Value(name) for name in ("INT", "FLOAT", "STRING", "INTS", "FLOATS")]
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class _Given(NamedTuple):
    """A graph and, if some of its tensors lie in other files, its own file."""

    graph: ModelProto
    external: Path | None


def load_model(path: Path | str) -> ModelProto:
    """The graph in an ONNX file of less than 2 GiB, with the tensors in files of its folder; raises GraphError."""
    return _with_tensors(*_read_model(Path(path)))


def load_stored(path: Path | str) -> ModelProto | None:
    """The graph in an ONNX file as that has it, without the tensors that lie in others; None if none does."""
    given = _read_model(Path(path))
    return None if given.external is None else onnx.load(given.external, load_external_data=False)


def _with_tensors(model: ModelProto, path: Path | None) -> ModelProto:
    if path is not None:
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # what onnx itself refuses, such as symbolic links
            raise GraphError(f"{path}: its tensors in other files cannot be read ({error})") from None
    return model


def _read_model(path: Path) -> _Given:
    """The graph in a file, without the tensors that lie in other files."""
    refuse_bundle(path, "a graph (.onnx)")
    try:
        size = check_regular(path)
        if size >= _LARGEST_GRAPH:
            raise GraphError(f"{path}: {size} bytes, expected an ONNX file below 2 GiB (the most that protobuf holds)")
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise GraphError(f"{path}: cannot be read ({error.strerror or error}); expected an ONNX file") from None
    except HwfaultError:
        raise
    except Exception as error:  # protobuf's DecodeError
        raise GraphError(f"{path}: not an ONNX file ({error}); expected a graph as the export writes it") from None
    _check_text(path, model)
    if not model.ir_version or not model.graph.node:
        raise GraphError(f"{path}: not an ONNX file (no graph in it); expected a graph as the export writes it")
    return _Given(with_marks(model), path if check_files(path, model) else None)


def _check_text(path: Path, model: ModelProto) -> None:
    """Raises GraphError for names and metadata that are no UTF-8: protobuf hands them out as bytes, or not at all."""
    try:
        wrong = next((text for text in _texts(model) if not isinstance(text, str)), None)
    except UnicodeDecodeError as error:
        wrong = error.object
    if wrong is not None:
        raise GraphError(f"{path}: not an ONNX file (it holds the text {wrong!r}, which is no UTF-8)")


def _texts(model: ModelProto) -> Iterator[object]:
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)
    for graph in graphs(model.graph):
        for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            yield named.name
        for info in (*graph.input, *graph.output, *graph.value_info):
            yield from (extent.dim_param for extent in info.type.tensor_type.shape.dim)
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (text for entry in node.metadata_props for text in (entry.key, entry.value))
            yield from (text for attribute in node.attribute for text in (attribute.name, attribute.ref_attr_name))


def session(
    model: ModelProto | Path | str,
    *,
    threads: int | None = None,
    graph_optimization: Optimization = "all",
    spin: bool = True,
    fast: bool = False,
    seed: int | None = None,
) -> onnxruntime.InferenceSession:
    """An onnxruntime session (CPU) for a graph or an ONNX file, with the ops of QONNX and of hwfault registered.

    One session serves all seeds, samples and batch sizes: see `run`. Ops that onnxruntime cannot run as they stand are
    written anew (`hwfault.graph.edit.upgrade`), and the log `hwfault` says which. Tensors in other files are read if
    these lie in the folder of the graph's file. `threads` is the size of its pool (None: onnxruntime's choice); faults
    do not depend on it. `spin=False` lets idle threads sleep, which is faster where another engine works in turn with
    this one. `fast` computes quantizers of constants beforehand and folds BatchNormalization, which changes the order
    of rounding behind it but no fault (`hwfault.graph.edit.fast`); the session then serves one seed only if that is
    given here, and is the faster for it. The inputs of the faults are called `hwfault_seed` and
    `hwfault_first_sample`, also if qonnx's cleanup renamed them in the file.
    Raises GraphError for a graph that onnxruntime refuses, and names the op if nobody registered it; also for one that
    lost fault nodes of the plan that it carries, or says a version of the fault stream that is not known here.
    """
    options = _options(threads, graph_optimization, spin)
    if seed is not None and not fast:
        raise GraphError(f"the session is to be for seed {seed} only, which takes fast=True; expected both or none")
    expect_kind(model, (ModelProto, str, Path), "the graph", "an ONNX ModelProto (as export returns), or a file's path")
    given = _in_memory(with_marks(model)) if isinstance(model, ModelProto) else _read_model(Path(model))
    _check_attributes(given.graph)
    check_kept(given.graph)
    check_version(given.graph)
    graph = _make_runnable(given.graph)
    if fast:
        whole = _with_tensors(graph, given.external)
        graph = only_to_run(whole, run_without_inputs, None if seed is None else check_seed(seed))
    return _load(graph, given, options)


def _make_runnable(model: ModelProto) -> ModelProto:
    """The graph as onnxruntime can run it; the graph itself where that is so already."""
    if why := find_endless(model, _MOST_NODES):
        raise GraphError(f"the graph cannot be run: {why}; expected functions that can be written out")
    graph, notes = upgrade(model)
    for note in notes:
        _LOG.warning("the graph was upgraded to run in onnxruntime: %s", note)
    return _with_canonical_inputs(graph)


def _load(graph: ModelProto, given: _Given, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session of a graph, which may be the given one; raises GraphError for one that onnxruntime refuses."""
    try:
        options.register_custom_ops_library(onnxruntime_library())
        if given.external is not None and graph is given.graph:
            content: str | bytes = str(given.external)  # onnxruntime reads the files itself, whatever their size
        else:
            content = _with_tensors(graph, given.external).SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (GraphError, NativeLibraryError):
        raise
    except Exception as error:
        raise GraphError(
            f"onnxruntime {onnxruntime.__version__} cannot load the graph: {_reason(graph, error)}"
        ) from None


def run_without_inputs(part: ModelProto) -> list[NDArray[Any]]:
    """The outputs of a graph without inputs."""
    return run(session(part), {})


def _in_memory(model: ModelProto) -> _Given:
    check_in_memory(model)
    return _Given(model, None)


def _check_attributes(model: ModelProto) -> None:
    """Raises GraphError for attributes of a type that no op has, which the library cannot see."""
    for node in (node for graph in graphs(model.graph) for node in graph.node):
        known = node.domain in (QUANT_DOMAIN, DOMAIN, *OLD_DOMAINS)
        for attribute in node.attribute if known else ():
            if attribute.type not in _ATTRIBUTE_TYPES:
                raise GraphError(
                    f"the attribute {attribute.name!r} of the node {node.name!r} ({node.op_type}) is no number, text "
                    "or list of numbers, and no op of its domain has another"
                )


def _options(threads: int | None, graph_optimization: Optimization, spin: bool) -> onnxruntime.SessionOptions:
    if threads is not None and threads < 1:
        raise GraphError(f"threads is {threads}, expected at least 1, or None for onnxruntime's choice")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is logged as an error is raised as well
    options.graph_optimization_level = _level(graph_optimization)
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    # else onnxruntime makes uint8 of int8 on x86, but not where faults strike, where its layers then stay float
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    return options


def run(
    session: onnxruntime.InferenceSession,
    inputs: ArrayLike | Mapping[str, ArrayLike],
    *,
    seed: Seeds = 0,
    first_sample: int = 0,
    samples: Numbers | None = None,
    outputs: Sequence[str] | None = None,
) -> list[NDArray[Any]]:
    """The outputs (all, or those named) of one batch under the faults of `seed`.

    `inputs` is the batch, or arrays by input name where a graph has several. Element i of the batch has sample number
    `first_sample + i`, which is below 2^32. A clean graph ignores both numbers. So that many trials run in one batch,
    `seed` may be one seed for each element, (batch,), and `samples` the sample number of each in place of
    `first_sample`; an element's outputs are those that it has alone. Faults of parameters, which all elements read,
    take one seed only. Raises GraphError for inputs that the graph does not take, for sample numbers that pass
    2^32 - 1 and where a batch cannot have several seeds or its sample numbers; HwfaultError for a seed that is not 64
    bit and a sample number that is not from 0 to 2^32 - 1.
    """
    expect_kind(session, onnxruntime.InferenceSession, "the session", "what hwfault.session(graph) returned")
    only, names, own = _known(session)
    numbers = {SEED: check_seeds(seed), FIRST_SAMPLE: _sample_feed(first_sample, samples)}
    if only is not None and (numbers[SEED] != signed64(int(only))).any():
        raise GraphError(f"the session was made for the faults of seed {only}, but is to run under seed {seed}")
    feeds = {name: value for name, value in numbers.items() if name in names}
    given = inputs if isinstance(inputs, Mapping) else {own[0]: inputs} if len(own) == 1 else {}
    if set(given) != set(own):
        raise GraphError(f"the graph's inputs are {own}, given were {sorted(given) or 'one array without a name'}")
    try:
        feeds |= {name: np.asarray(value) for name, value in given.items()}
        return list(session.run(None if outputs is None else list(outputs), feeds))
    except Exception as error:
        raise GraphError(f"onnxruntime cannot run the graph on this batch: {error}") from None


def _sample_feed(first_sample: int, samples: Numbers | None) -> NDArray[np.int64]:
    """What a graph's input of sample numbers is given: the first one, or one for each element."""
    if samples is None:
        return np.array(check_number(first_sample, "first sample number"), np.int64)
    if first_sample != 0:
        raise GraphError(f"given the first sample number {first_sample} and the sample numbers; expected one of them")
    return check_samples(samples)


class _Known(NamedTuple):
    only: str | None  # the seed that it was made for
    names: list[str]  # of its inputs
    own: list[str]  # those but seed and sample number


_KNOWN: WeakKeyDictionary[onnxruntime.InferenceSession, _Known] = WeakKeyDictionary()


def _known(session: onnxruntime.InferenceSession) -> _Known:
    """What a session says of itself, asked for once: its metadata, with the plan, are long."""
    known = _KNOWN.get(session)
    if known is None:
        names = [entry.name for entry in session.get_inputs()]
        own = [name for name in names if name not in (SEED, FIRST_SAMPLE)]
        known = _KNOWN[session] = _Known(session.get_modelmeta().custom_metadata_map.get(FOR_SEED), names, own)
    return known


def _level(name: Optimization) -> Any:
    if name not in _LEVELS:
        raise GraphError(f"the graph optimization is {name!r}, expected one of {', '.join(map(repr, _LEVELS))}")
    return getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[name])


def _with_canonical_inputs(model: ModelProto) -> ModelProto:
    """The graph with the names SEED and FIRST_SAMPLE for the inputs that its fault nodes read."""
    renamed = _find_renamed(model)
    if not renamed:
        return model
    out = ModelProto()
    out.CopyFrom(model)
    for node in out.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for info in out.graph.input:
        info.name = renamed.get(info.name, info.name)
    return out


def _find_renamed(model: ModelProto) -> dict[str, str]:
    """The inputs of the fault nodes that a pass renamed, with their own names.

    Empty where nothing was renamed, or nodes are wired otherwise than hwfault does it: then they run as they stand.
    """
    inputs = {info.name for info in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    drawn = [drawn_inputs(node) for entry in fault_nodes(model) for node in entry.nodes]
    renamed = {}
    for key, own in (("seed", SEED), ("first_sample", FIRST_SAMPLE)):
        read = {names[key] for names in drawn if key in names}
        if len(read) == 1 and own not in inputs and read <= inputs:
            renamed[read.pop()] = own
    return renamed


def _reason(model: ModelProto, error: Exception) -> str:
    """What onnxruntime says; where it is that an op is unknown, the node that needs it and what is known."""
    unknown = re.search(r"([\w.\-]*):(\w+)\([-\d]+\) is not a registered function/op", str(error))
    if unknown is None:
        return str(error)
    domain, op = unknown.groups()
    node = next((node.name for node in model.graph.node if (node.domain, node.op_type) == (domain, op)), "")
    of_qonnx = ops.names(lambda row: row.native and row.home == "qonnx")
    of_hwfault = ops.names(lambda row: row.native and row.home == "hwfault")
    return (
        f"nobody registered the op {op!r} of domain {domain!r}, which the node {node!r} needs; hwfault registers "
        f"{', '.join(of_qonnx)} ({', '.join([QUANT_DOMAIN, *OLD_DOMAINS])}), {', '.join(of_hwfault)} ({DOMAIN})"
    )
