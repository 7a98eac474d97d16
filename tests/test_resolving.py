"""Faults resolved against a network, which is asked for its sites with an example of its inputs."""

import pytest
import torch
from brevitas import nn as qnn
from torch import nn

import hwfault
from hwfault.errors import PlanError
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.program.batch_axes import BatchAxis

FLIPS = [BitFlips(probability=0.1)]


def test_a_network_tells_its_sites_itself():
    model = nn.Sequential(qnn.QuantIdentity(bit_width=4), nn.Flatten(0, 1), qnn.QuantIdentity(bit_width=4))
    model(torch.randn(8, 4, 6))
    x = torch.randn(4, 2, 6)
    for example, axis in ((None, 0), (x, 0), (x, 1)):
        listed = sites(model.eval(), example, axis)
        assert hwfault.resolve(model, FLIPS, example=example, batch_axis=axis) == hwfault.resolve(listed, FLIPS)
    first, second = hwfault.resolve(model, FLIPS, example=x, batch_axis=1).sites
    assert (first.site.batch, second.site.batch) == (BatchAxis(axis=1), BatchAxis(inner=1, rows=4))
    rest = {"device": 3, "factors": [0.5]}
    assert hwfault.resolve(model, FLIPS, **rest) == hwfault.resolve(sites(model), FLIPS, **rest)


@pytest.mark.parametrize("given", [{"example": torch.ones(2, 4)}, {"batch_axis": 1}])
def test_an_example_beside_sites_is_refused(given):
    with pytest.raises(PlanError, match=r"resolve was given sites, and an example or batch_axis beside them"):
        hwfault.resolve(sites(nn.Sequential(qnn.QuantIdentity())), FLIPS, **given)
