"""Every flip of every bias of small networks is what Brevitas computes with the same cell faulty."""

import numpy as np
import pytest
import torch
from brevitas.quant import Int8BiasPerTensorFloatInternalScaling
from torch import nn

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.campaigns.engines.sparse_flips import SparseFlips
from hwfault.campaigns.sparse import SparseEngine, all_flips, census, describe, flips_of
from hwfault.campaigns.study.space import fault_space
from hwfault.errors import HwfaultError, PlanError
from hwfault.network.sites import sites
from hwfault.program.selectors import Select
from hwfault.stream.native.network import GoldenRun, addend_flips
from tests.campaigns.sparse.small import act, linear, small
from tests.campaigns.sparse.test_brevitas import struck_outputs
from tests.campaigns.sparse.test_errors import AFFINE, NETWORK, parsed

BIASED = ("Residual", "biased", "Mixer")


def check(name, count):
    """Compares a random choice of flips of all biases, in all images."""
    network, images = small(name, images=4)
    known = sites(network, images)
    engine = SparseEngine(network, images)
    biases = [site.name for site in known if site.kind == "bias"]
    assert list(engine.description.biases) == biases
    flips = all_flips(engine.description, biases)
    assert len(flips) == fault_space(known, [Select(kind="bias")]).size
    flips = flips[np.sort(np.random.default_rng(0).permutation(len(flips))[:count])]
    with integer_arithmetic(network), torch.no_grad():
        golden = network(images).numpy()
        expected = np.array([struck_outputs(network, images, known, flips.cell(i)) for i in range(len(flips))])
    found = np.repeat(golden[None], len(flips), axis=0)
    for part in engine.survivors(flips):
        found[part.flip, part.image] = part.outputs
    assert np.array_equal(found, expected)
    assert (found != golden).any()
    counted = census(engine.description, images, flips=flips)
    assert np.array_equal(counted.changed(), expected.argmax(2) != golden.argmax(1))
    assert np.array_equal(counted.died.sum(1), np.all(expected == golden, axis=2).sum(1))
    ones = np.arange(len(flips))
    assert np.array_equal(engine.run(flips, ones % 4), expected[ones, ones % 4])


@pytest.mark.parametrize("name", BIASED[1:])
def test_some_flips(name):
    check(name, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", BIASED)
def test_all_flips(name):
    check(name, None)


def test_biases_are_carried_by_the_engine_of_campaigns():
    network, images = small("biased", images=2)
    made = SparseFlips(network, images.numpy())
    space = fault_space(sites(network, images), [Select(kind="bias")])
    assert made.why_not(space) is None
    assert made.cost(space) > space.size


def test_flips_that_there_are_not():
    network, images = small("biased", images=2)
    described = SparseEngine(network, images).description
    with pytest.raises(PlanError, match="names the word 3, expected 0 to 2"):
        flips_of(described, "1.bias_quant", [3], [0])
    with pytest.raises(PlanError, match="names the bit 8, expected 0 to 7"):
        flips_of(described, "1.bias_quant", [0], [8])


class Twice(nn.Module):
    """One linear layer, with its bias, that runs twice."""

    def __init__(self):
        super().__init__()
        kind = Int8BiasPerTensorFloatInternalScaling
        self.entry, self.fc, self.relu = act(), linear(4, 4, bias=True, bias_quant=kind), act()

    def forward(self, x):
        return self.fc(self.relu(self.fc(self.entry(x))))


def test_a_bias_that_two_layers_add():
    torch.manual_seed(0)
    described = describe(Twice(), torch.randn(4, 4))
    assert not described.biases
    with pytest.raises(PlanError, match=r"flips of 'fc.bias_quant'.*not the addend of one layer alone, but of 2"):
        flips_of(described, "fc.bias_quant", [0], [0])


def test_addends_that_the_library_refuses():
    run = GoldenRun(parsed(NETWORK + AFFINE), np.zeros((1, 4), np.float32), 2, 2)
    for node, channel, addend, said in [
        (0, 0, 1.0, "has no weights"),
        (2, 0, 1.0, "expected 0 to 1"),
        (1, 2, 1.0, "the channel is 2, expected 0 to 1"),
        (1, -1, 1.0, "the channel is -1"),
        (1, 0, np.inf, "no finite number"),
    ]:
        with pytest.raises(HwfaultError, match=said):
            run.strike_all(addend_flips(node, np.array([channel]), np.array([addend], np.float32)))
    with pytest.raises(HwfaultError, match="an addend for each channel"):
        addend_flips(1, np.array([0]), np.zeros(2, np.float32))


FAR = addend_flips(1, np.array([1]), np.array([-1e4], np.float32))
MOVE = [4, 1, 2, 2, 1, *(0, 1), 0]
"""Hands both outputs of `NETWORK` on."""


def run_before_another_layer(steps):
    """A layer of one output that reads the two of `NETWORK`, some steps and a move behind."""
    plan = [*NETWORK, *steps, *MOVE, *(1, 1, 3, 1, 1, 1, 2, 8, 8, 0), *AFFINE]
    plan[2] = 4
    network = parsed(plan, weights=np.array([*range(-4, 4), 2, 3], np.int16))
    return GoldenRun(network, np.full((1, 4), 3, np.float32), 4, 1)


def test_an_addend_in_front_of_another_layer():
    run = run_before_another_layer([3, *(0, 0, 2, 0, 0, 0), *(2, 0, 0, -8, 7, 0), *(7, 0, 0, 0, 0, 0)])
    assert run.outputs.tolist() == [[0.5 * (2 * -8 + 3 * 7) + 0.25]]
    assert run.strike_all(FAR, survivors=True).outputs.tolist() == [[0.5 * (2 * -8 + 3 * -8) + 0.25]]


def test_a_layer_behind_reads_no_larger_integers_than_its_sums_have_room_for():
    run = run_before_another_layer([2, *(0, 0, 2, 0, 0, 0), *(7, 0, 0, 0, 0, 0)])
    with pytest.raises(HwfaultError, match="larger integers than its sums have room for"):
        run.strike_all(FAR)
