"""What the sparse engine refuses: each time one sentence that says what, and why."""

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat
from torch import nn

from hwfault.campaigns.sparse import SparseEngine, all_flips, census, describe, flips_of
from hwfault.errors import GraphError, HwfaultError, PlanError
from hwfault.graph.export.of_network import export
from hwfault.stream.native.network import GoldenRun, ParsedNetwork, ValueFormat, value_flips, weight_flips
from hwfault.train.networks import build
from tests.campaigns.sparse.small import Chain, act, linear

DIGITS = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def described():
    return describe(build("digits_cnn", seed=0, bits=2), DIGITS)


class Tied(nn.Module):
    """One linear layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.entry, self.fc, self.relu = act(), linear(4, 4), act()

    def forward(self, x):
        return self.fc(self.relu(self.fc(self.entry(x))))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Chain(qnn.QuantLinear(4, 3, bias=False, weight_quant=Int8WeightPerTensorFloat)), "known grid"),
        (Chain(act(), linear(4, 4), act(), nn.Linear(4, 3)), "'3'.*Gemm is rounded in each engine's way"),
        (Chain(act(), linear(4, 4), nn.Sigmoid(), act()), "'2'.*Sigmoid is rounded in each engine's way"),
        (
            Chain(act(), linear(4, 4), nn.LeakyReLU(), act()),
            r"'2' \(LeakyRelu\): the sparse engine has no such operation",
        ),
    ],
)
def test_layers_that_cannot_be_carried(network, said):
    torch.manual_seed(0)
    with pytest.raises(GraphError, match=said):
        describe(network, torch.randn(4, 4))


class Products(nn.Module):
    """Products of values with values, as attention has them."""

    def __init__(self):
        super().__init__()
        self.entry, self.fc, self.act = act(), linear(4, 4), act(4, Int8ActPerTensorFloat)

    def forward(self, x):
        x = self.act(self.fc(self.entry(x)))
        return x @ x.transpose(1, 2)


def test_products_of_values_with_values():
    torch.manual_seed(0)
    with pytest.raises(GraphError, match=r"cannot carry.*MatMul"):
        describe(Products(), torch.randn(4, 2, 4))


def test_a_graph_in_float():
    graph = export(build("digits_cnn", seed=0), DIGITS)
    with pytest.raises(GraphError, match="arithmetic='integer'"):
        describe(graph, DIGITS)


def test_no_network():
    with pytest.raises(HwfaultError, match="the network is 3"):
        describe(3, DIGITS)


def test_weights_that_are_read_twice():
    torch.manual_seed(0)
    found = describe(Tied(), torch.randn(4, 4))
    assert not found.sites
    with pytest.raises(PlanError, match=r"'fc.weight_quant'.*the layers that read it are 2"):
        all_flips(found)
    with pytest.raises(PlanError, match="the layers that read it are 2"):
        all_flips(found, ["fc.weight_quant"])


def test_sites_that_there_are_not(described):
    with pytest.raises(
        PlanError, match=r"'classifier' is no site of weights, biases or.*; did you mean 'classifier.weight_quant'"
    ):
        census(described, DIGITS, ["classifier"])


@pytest.mark.parametrize(
    ("word", "bit", "said"),
    [
        (2560, 0, "names the word 2560, expected 0 to 2559"),
        (0, 2, "names the bit 2, expected 0 to 1"),
        (-1, 0, "word -1"),
    ],
)
def test_words_and_bits_that_there_are_not(described, word, bit, said):
    with pytest.raises(PlanError, match=said):
        flips_of(described, "classifier.weight_quant", [word], [bit])


def test_images_that_do_not_fit(described):
    with pytest.raises(HwfaultError, match=r"\(1, 8, 9\), expected \(1, 8, 8\)"):
        census(described, np.zeros((2, 1, 8, 9)))
    with pytest.raises(HwfaultError, match="with an image or more"):
        census(described, np.zeros((0, 1, 8, 8)))
    with pytest.raises(HwfaultError, match="no finite numbers"):
        census(described, np.full((2, 1, 8, 8), np.nan))


def test_what_does_not_go_together(described):
    flips = all_flips(described)
    with pytest.raises(HwfaultError, match="one of the two"):
        census(described, DIGITS, ["classifier.weight_quant"], flips=flips)
    with pytest.raises(HwfaultError, match="expected one truth value a run"):
        census(described, DIGITS, flips=flips[:64], criterion=lambda *_: True)
    engine = SparseEngine(described, DIGITS)
    with pytest.raises(HwfaultError, match="the number of one for each"):
        engine.run(flips[:3], [0, 1])
    with pytest.raises(HwfaultError, match="from 0 to 9"):
        engine.run(flips[:3], [0, 1, 10])


NETWORK = [1, 4, 2, *(0, 1, 0, 4, 1, 2, *(2, 0, 0, -8, 7, 0), *(7, 0, 0, 0, 0, 0)), *(1, 1, 1, 2, 1, 1, 4, 8, 0, 0)]
"""Four inputs, quantized to four bits; a linear layer of two outputs, whose steps are to come."""
AFFINE = [1, *(0, 0, 2, 0, 0, 0)]
CONSTANTS = np.array([1, 0, 0.5, 0.25], np.float32)
WEIGHTS = np.arange(-4, 4, dtype=np.int16)


def parsed(plan, constants=CONSTANTS, weights=WEIGHTS):
    return ParsedNetwork(np.array(plan, np.int64), np.array(constants, np.float32), np.array(weights, np.int16))


def replaced(at, number):
    plan = NETWORK + AFFINE
    return [*plan[:at], number, *plan[at + 1 :]]


def test_a_plan_that_is_right():
    run = GoldenRun(parsed(NETWORK + AFFINE), np.array([[1, 2, 3, 40.4]], np.float32), 2, 2)
    assert run.outputs.tolist() == [[0.5 * (-4 - 6 - 6 - 7) + 0.25, 0.5 * (0 + 2 + 6 + 21) + 0.25]]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ([], "ends where the version"),
        (replaced(0, 2), "version.* is 2, expected 1 to 1"),
        (replaced(1, 0), "the size of the input is 0"),
        (replaced(2, 3), "ends where the kind of a node"),
        (replaced(2, 1), "numbers are left"),
        (replaced(3, 9), "the kind of a node is 9"),
        (replaced(5, 7), "the input of a node is 7"),
        (replaced(6, 5), "a node of 5 values reads 4"),
        (replaced(6, 1 << 40), "the channels of a node"),
        (replaced(11, 9), "where a step's constants begin is 9"),
        (replaced(11, 4), "constants end behind"),
        (replaced(11, 1), "a scale of the network is not above 0"),
        (replaced(13, 1 << 20), "may be larger than 16383"),
        (replaced(16, 8), "has numbers for each channel is 8"),
        (replaced(15, 6), "values that are no integers"),
        (replaced(26, 3), "the groups of a layer is 3"),
        (replaced(27, 5), "expected those of its channels and lengths"),
        (replaced(28, 3), "a weight is -4, beyond the largest"),
        (replaced(29, 1), "weights end behind"),
        (replaced(30, 9), "the number of spatial axes is 9"),
        ([*NETWORK, 0], "does not begin with an affine step"),
        (NETWORK + AFFINE[:-1], "ends where the rounding"),
    ],
)
def test_plans_that_are_wrong(plan, said):
    with pytest.raises(HwfaultError, match=said):
        parsed(plan)


def test_constants_that_are_no_numbers():
    with pytest.raises(HwfaultError, match="no finite number"):
        parsed(NETWORK + AFFINE, [1, 0, np.inf, 0])


def test_flips_that_the_library_refuses():
    run = GoldenRun(parsed(NETWORK + AFFINE), np.zeros((1, 4), np.float32), 2, 2)
    one = np.ones(1, np.int64)
    for node, word, change, said in [
        (0, 0, 1, "has no weights"),
        (5, 0, 1, "expected 0 to 1"),
        (1, 8, 1, "expected 0 to 7"),
        (1, 7, 9, "beyond the largest"),
    ]:
        with pytest.raises(HwfaultError, match=said):
            run.strike_all(weight_flips(node, word * one, change * one.astype(np.int32)))
    with pytest.raises(HwfaultError, match="the number of an image is 1"):
        run.strike(weight_flips(1, 0 * one, one.astype(np.int32)), one)


def test_flipped_values_that_the_library_refuses():
    run = GoldenRun(parsed(NETWORK + AFFINE), np.zeros((1, 4), np.float32), 2, 2)
    one, form = np.ones(1, np.int64), ValueFormat(np.ones(1), 1, np.zeros(1), 1, 4, True)
    for node, step, word, bit, form_of, said in [
        (5, 0, 0, 0, form, "expected 0 to 1"),
        (0, 9, 0, 0, form, "the step is 9"),
        (1, 0, 0, 0, form, "gives no codes"),
        (0, 0, 4, 0, form, "expected 0 to 3"),
        (0, 0, 0, 4, form, "expected 0 to 3"),
        (0, 0, 0, 0, form._replace(bit_width=15), "expected at most 14"),
        (0, 0, 0, 0, form._replace(bit_width=33), "expected 1 to 32"),
    ]:
        with pytest.raises(HwfaultError, match=said):
            run.strike_all(value_flips(node, step, form_of, word * one, bit * one.astype(np.int32)))
