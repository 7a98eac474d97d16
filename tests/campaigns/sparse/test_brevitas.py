"""Every flip of small networks is what Brevitas computes with the same cell faulty, in integer arithmetic."""

import numpy as np
import pytest
import torch

from hwfault import inject
from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.campaigns.sparse import SparseEngine, census
from hwfault.laws.cells import CellFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.campaigns.sparse.small import NETWORKS, small

FEW = 2


def struck_outputs(network, images, known, flip):
    """The outputs of the network itself, under the fault `cells`."""
    plan = resolve(known, [CellFaults(cells=(flip,))])
    with torch.no_grad(), inject(network, plan, seed=0):
        return network(images).numpy()


def edited_outputs(network, images, flip):
    """The same with the weight's value written anew where its quantizer gives it."""
    quantizer = network.get_submodule(flip["site"])

    def edit(_module, _args, output):
        value, bits = output.value.clone(), int(output.bit_width)
        where = np.unravel_index(flip["word"], value.shape)
        scale = torch.broadcast_to(output.scale, value.shape)[where]
        zero_point = int(output.zero_point)
        integer = int(torch.round(value[where] / scale + zero_point))
        if bits == 1:
            after = -integer
        else:
            after = integer ^ 1 << flip["bit"]  # a negative number's bits are in Python those of two's complement
            if output.signed and flip["bit"] == bits - 1:  # the sign bit is worth less than nothing
                after = integer - (1 << bits - 1) if integer >= 0 else integer + (1 << bits - 1)
        value[where] = (after - zero_point) * scale
        return output._replace(value=value)

    handle = quantizer.register_forward_hook(edit)
    with torch.no_grad():
        outputs = network(images).numpy()
    handle.remove()
    return outputs


def check(name, count):
    """Compares a random choice of flips, a few of which are struck by `cells` too."""
    network, images = small(name)
    engine = SparseEngine(network, images)
    found, known = census(engine.description, images), sites(network)
    assert found.flips.names == tuple(site.name for site in known if site.kind == "weight")
    assert 0 < found.rate < 1
    chosen = np.random.default_rng(0).permutation(len(found.flips))[:count]
    with integer_arithmetic(network) as arithmetic, torch.no_grad():
        golden = network(images).numpy()
        assert not arithmetic.left
        expected = np.array([edited_outputs(network, images, found.flips.cell(i)) for i in chosen])
        for i in range(FEW):
            assert np.array_equal(struck_outputs(network, images, known, found.flips.cell(chosen[i])), expected[i])
    assert np.array_equal(found.golden, golden)
    assert np.array_equal(found.changed(chosen), expected.argmax(2) != golden.argmax(1))
    assert np.array_equal(found.died[chosen].sum(1), np.all(expected == golden, axis=2).sum(1))

    every = np.tile(np.arange(len(images)), len(chosen))
    outputs = engine.run(found.flips[chosen.repeat(len(images))], every)
    assert np.array_equal(outputs.reshape(expected.shape), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_some_flips(name):
    check(name, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_all_flips(name):
    check(name, None)
