"""Struck convolutions on blocked channels are those of any other session, to the bit, and are blocked at all."""

import numpy as np
import onnxruntime
import pytest
import torch
from brevitas import nn as qnn

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.run import blocked
from hwfault.graph.run.blocked import session_of_struck
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train.networks import build
from tests.helpers.graph.networks import ACTS, ALL, WEIGHTS, Chain, batch, plan, signed
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import clean, faulted


def made_blocked(graph, monkeypatch):
    """The session, and the nodes that it has."""
    seen = []

    def noted(model, **options):
        seen.append(model)
        return session(model, **options)

    monkeypatch.setattr(blocked, "session", noted)
    made = session_of_struck(graph, threads=1)
    return made, [(node.domain, node.op_type) for node in seen[-1].graph.node]


@pytest.mark.parametrize("name", ALL)
def test_every_network(name):
    x = batch(name, 5).numpy()
    plain, quick = session(faulted(name), threads=1), session_of_struck(faulted(name), threads=2)
    for seed in (0, 2**64 - 1):
        expected = run(plain, x, seed=seed, first_sample=3)
        assert_same(run(quick, x, seed=seed, first_sample=3)[0], expected[0], seed)


def of_convolutions(*shapes):
    """Convolutions of (inputs, outputs, kernel) one behind the other, and a linear layer."""
    layers = [signed()]
    for inputs, outputs, kernel in shapes:
        layers += [qnn.QuantConv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **WEIGHTS)]
        layers += [qnn.QuantReLU(**ACTS)]
    return Chain(*layers).eval()


SHAPES = {
    "few inputs, then in blocks": [(2, 16, 3), (16, 32, 3)],
    "outputs that fill no block": [(2, 20, 3), (20, 9, 3)],
    "one position": [(2, 16, 1), (16, 16, 1)],
}


@pytest.mark.parametrize("what", SHAPES)
def test_ways_in_which_channels_come_in_blocks(what, monkeypatch):
    network, x = of_convolutions(*SHAPES[what]), batch("residual", 3)
    given = resolve(sites(network), [BitFlips(probability=0.02, sites={"kind": "weight"})])
    graph = insert_faults(export(network, x), given)
    quick, nodes = made_blocked(graph, monkeypatch)
    plain = session(graph, threads=1)
    for seed in range(3):
        assert_same(run(quick, x.numpy(), seed=seed)[0], run(plain, x.numpy(), seed=seed)[0], seed)
    if "avx" in " ".join(flags()):
        assert ("com.microsoft.nchwc", "Conv") in nodes


def flags():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line for line in file if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return []


def test_weights_that_tell_no_order_are_left_alone(monkeypatch):
    """Zeros lie in blocks as they do elsewhere, but where each goes is not known."""
    network, x = of_convolutions((2, 16, 3), (16, 16, 3)), batch("residual", 3)
    for layer in network:
        if isinstance(layer, qnn.QuantConv2d):
            layer.weight.data.zero_()
    given = resolve(sites(network), [BitFlips(probability=0.02, sites={"kind": "weight"})])
    graph = insert_faults(export(network, x), given)
    quick, nodes = made_blocked(graph, monkeypatch)
    assert ("com.microsoft.nchwc", "Conv") not in nodes
    assert_same(run(quick, x.numpy(), seed=1)[0], run(session(graph, threads=1), x.numpy(), seed=1)[0])


def test_where_onnxruntime_writes_nothing_down(monkeypatch):
    def fails(*_given, **_options):
        raise RuntimeError("no")

    x = batch("residual").numpy()
    (expected,) = run(session(faulted("residual"), threads=1), x, seed=2)
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", fails)
        assert blocked._optimize(clean("residual")) is None
    monkeypatch.setattr(blocked, "_optimize", lambda model: None)
    assert_same(run(session_of_struck(faulted("residual")), x, seed=2)[0], expected)


def test_a_graph_whose_weights_are_not_struck():
    activations = [entry.site for entry in plan("residual").sites if entry.site.batched]
    given = resolve(activations, [BitFlips(probability=0.01)])
    graph = insert_faults(clean("residual"), given)
    x = batch("residual").numpy()
    assert_same(run(session_of_struck(graph), x, seed=2)[0], run(session(graph), x, seed=2)[0])


@pytest.mark.slow
def test_a_residual_network():
    network = build("resnet20", seed=0, scale="power_of_two").eval()
    x = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    given = resolve(sites(network), [BitFlips(probability=1e-3)])
    graph = insert_faults(export(network, torch.from_numpy(x)), given)
    assert_same(run(session_of_struck(graph), x, seed=3)[0], run(session(graph, fast=True), x, seed=3)[0])
