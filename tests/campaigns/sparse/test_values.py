"""Every flip of activations of small networks is what Brevitas computes with the same cell faulty."""

import numpy as np
import pytest
import torch

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.campaigns.engines.sparse_flips import SparseFlips
from hwfault.campaigns.sparse import SparseEngine, census
from hwfault.campaigns.sparse.flips import Flips, all_flips, flips_of
from hwfault.campaigns.study.space import fault_space
from hwfault.errors import PlanError
from hwfault.network.sites import sites
from hwfault.program.selectors import Select
from tests.campaigns.sparse.small import NETWORKS, small
from tests.campaigns.sparse.test_brevitas import struck_outputs
from tests.slowly import slow

SOME = 6


def check(name, count):
    """Compares a random choice of flips of all activations, in all images."""
    network, images = small(name)
    known = sites(network, images)
    engine = SparseEngine(network, images)
    of_values = [site.name for site in known if site.batched and site.kind != "accumulator"]
    assert set(engine.description.values) == set(of_values)
    flips = all_flips(engine.description, of_values)
    chosen = flips[np.sort(np.random.default_rng(0).permutation(len(flips))[:count])]
    with integer_arithmetic(network), torch.no_grad():
        golden = network(images).numpy()
        expected = [struck_outputs(network, images, known, chosen.cell(i)) for i in range(len(chosen))]
    found = np.repeat(golden[None], len(chosen), axis=0)
    for part in engine.survivors(chosen):
        found[part.flip, part.image] = part.outputs
    assert np.array_equal(found, np.array(expected))
    assert (found != golden).any()
    every = np.tile(np.arange(len(images)), len(chosen))
    outputs = engine.run(chosen[np.arange(len(chosen)).repeat(len(images))], every)
    assert np.array_equal(outputs.reshape(found.shape), found)
    counted = census(engine.description, images, flips=chosen)
    assert np.array_equal(counted.died.sum(1), np.all(found == golden, axis=2).sum(1))
    assert np.array_equal(counted.changed(), found.argmax(2) != golden.argmax(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_some_flips(name):
    check(name, SOME)


@pytest.mark.parametrize("name", [slow(name) for name in NETWORKS])
def test_all_flips(name):
    check(name, None)


def test_flips_that_there_are_not():
    network, images = small("shifted", images=2)
    described = SparseEngine(network, images).description
    name, site = next(iter(described.values.items()))
    for word, bit, said in [
        (site.words, 0, f"the word {site.words}, expected 0 to {site.words - 1}"),
        (0, site.format.bit_width, f"the bit {site.format.bit_width}"),
    ]:
        with pytest.raises(PlanError, match=said):
            flips_of(described, name, [word], [bit])
    wrong = Flips(("nowhere",), np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int32))
    with pytest.raises(PlanError, match="'nowhere' is no site of weights, biases or activations"):
        list(SparseEngine(described, images).survivors(wrong))


def test_activations_are_carried_and_sums_are_not():
    network, images = small("Residual", images=2)
    made, known = SparseFlips(network, images.numpy()), sites(network, images)
    space = fault_space(known, [Select(kind="activation"), Select(kind="weight")])
    assert made.why_not(space) is None
    assert made.cost(space) > space.size
    sums = made.why_not(fault_space(known, [Select(kind="accumulator")]))
    assert sums is not None
    assert "is no site of weights, biases or activations" in sums
