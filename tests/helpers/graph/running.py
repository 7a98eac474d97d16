"""The exported graphs of the networks, made once, and the engines that run them."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model
from torch import Tensor, nn

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.run.session import run, session
from hwfault.injection.attach import inject
from hwfault.stream.check import signed64
from tests.helpers.graph.networks import batch, network, plan


def copied(graph: ModelProto) -> ModelProto:
    """A copy to be changed."""
    out = ModelProto()
    out.CopyFrom(graph)
    return out


@cache
def clean(name: str) -> ModelProto:
    """The graph of a network; copy it before changing it."""
    return export(network(name), batch(name))


@cache
def faulted(name: str) -> ModelProto:
    """The same with its plan inside."""
    return insert_faults(clean(name), plan(name))


@cache
def clean_session(name: str):
    return session(clean(name), threads=1)


@cache
def faulted_session(name: str):
    return session(faulted(name), threads=1)


@torch.no_grad()
def by_pytorch(model: nn.Module, x: Tensor) -> NDArray:
    """The network's output."""
    out = model(x)
    return getattr(out, "value", out).numpy()


def by_pytorch_faulted(name: str, x: Tensor, seed: int, first_sample: int = 0) -> NDArray:
    """The network's output under its plan."""
    with inject(network(name), plan(name), seed=seed) as injection:
        injection.first_sample = first_sample
        return by_pytorch(network(name), x)


def tidied(graph: ModelProto, batch_size: int | None) -> ModelProto:
    """A graph after qonnx's cleanup, for one size of the batch or (None) for any."""
    return cleanup_model(ModelWrapper(copied(graph)), override_inpsize=batch_size).model


def by_qonnx(graph: ModelProto, x: Tensor, *numbers: int) -> NDArray:
    """What qonnx's executor answers on a graph that was tidied for the batch; `numbers` are seed and first sample."""
    names = [info.name for info in graph.graph.input]
    feeds = [x.numpy(), *(np.array(signed64(number)) for number in numbers)]
    (out,) = execute_onnx(ModelWrapper(graph), dict(zip(names, feeds, strict=True))).values()
    return out


def by_onnxruntime(graph: ModelProto, x: Tensor, **numbers: int) -> NDArray:
    """The output in onnxruntime."""
    (out,) = run(session(graph, threads=1), x.numpy(), **numbers)
    return out
