"""A first forward without an example: whether it puts the samples of a struck site elsewhere than along axis 0."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.network.sites import sites
from tests.helpers.injection.networks import build
from tests.helpers.network.moving import FLIPS, MOVES, UNSAID, Does, assigned, in_parts, trained


@pytest.mark.parametrize("name", ["frames", "tokens first", "time and batch", "heads"])
def test_a_first_forward_without_an_example_is_watched(name):
    function, _ = MOVES[name]
    model = trained(Does(function), torch.randn(16, 4, 6))
    with inject(model, FLIPS, seed=1), pytest.raises(PlanError, match=r"'b.act_quant'.*give an example"):
        model(torch.randn(4, 4, 6))  # as many samples as tokens, so that shapes tell nothing of these
    with inject(model, FLIPS, seed=1, example=torch.randn(4, 4, 6)):
        model(torch.randn(4, 4, 6))


SAID = {
    "an equation": lambda q, x: torch.einsum("bhqd->bqhd", q(x)),
    "scores of heads": lambda q, x: torch.einsum("bhqd,bhkd->bhqk", q(x), q(x)),
    "dots": lambda q, x: torch.einsum("...ij,jk->...ik", q(x), torch.ones(4, 4)),
    "sorted within a sample": lambda q, x: q(x).sort().values,
    "the largest of a sample": lambda q, x: torch.topk(q(x), 4, dim=1).values,
    "picked": lambda q, x: q(x)[:, [2, 0]][torch.arange(len(x))],
    "gathered within a sample": lambda q, x: q(x).gather(1, q(x).argsort(1)),
    "one of many": lambda q, x: torch.zeros(4, 4).scatter(1, q(x).flatten(1).argmax(1, keepdim=True) % 4, 1.0),
    "a table": lambda q, x: torch.randn(64, 3)[q(x).flatten(1).argmax(1)],
    "token by token": lambda q, x: assigned(torch.zeros(4, 4, 4, 4), (slice(None), 2), q(x)[:, 1]),
    "token by token, zero first": lambda q, x: assigned(q(x).clone(), (slice(None), 0), 0.0),
    "into parts": lambda q, x: in_parts(torch.zeros(4, 4, 4, 4).transpose(0, 1), q(x).transpose(0, 1)).transpose(0, 1),
    "a part in place": lambda q, x: added(q(x).clone(), q(x)),
    "products": lambda q, x: (q(x) @ torch.ones(4, 3)).flatten(1) @ torch.ones(48, 2),
    "products of heads": lambda q, x: torch.matmul(q(x), q(x).mT) @ q(x),
    "a vector": lambda q, x: q(x) @ torch.ones(4),
    "a vector before": lambda q, x: torch.ones(4) @ q(x),
    "in batches": lambda q, x: torch.bmm(q(x).flatten(2), torch.ones(4, 16, 2)),
    "written elsewhere": lambda q, x: torch.index_select(q(x), 1, torch.tensor([2, 0, 3, 1]), out=torch.zeros(x.shape)),
    "there and back in place": lambda q, x: q(x).clone().transpose_(0, 1).transpose_(0, 1),
}


def added(whole, x):
    whole[:, 1:].add_(x[:, :3])
    return whole


@pytest.mark.parametrize("name", UNSAID)
def test_functions_that_put_samples_elsewhere_ask_for_an_example(name):
    model, x = trained(Does(UNSAID[name]), torch.randn(16, 4, 4, 4)[:4]), torch.randn(4, 4, 4, 4)
    with inject(model, FLIPS, seed=1), pytest.raises(PlanError, match=r"'b.act_quant'.*give an example"):
        model(x)


@pytest.mark.parametrize("name", SAID)
def test_functions_that_keep_samples_in_front_do_not(name):
    model, x = trained(Does(SAID[name]), torch.randn(4, 4, 4, 4)), torch.randn(4, 4, 4, 4)
    with inject(model, FLIPS, seed=1):
        model(x)


@pytest.mark.parametrize("name", ["cnn", "mlp", "twice", "binary"])
def test_ordinary_networks_need_no_example(name):
    from tests.helpers.injection.networks import batch

    model = build(name)
    with inject(model, FLIPS, seed=1), torch.no_grad():
        first = model(batch(4))
        hooks = len(model._forward_hooks)
        model(batch(4))
    assert hooks == 1
    assert all(site.batch is None for site in sites(model, batch(2)))
    with inject(model, FLIPS, seed=1, example=batch(2)), torch.no_grad():
        assert torch.equal(model(batch(4)), first)


def test_heads_behind_axis_0_need_no_example():
    def function(q, x):
        heads = q(x).reshape(len(x), 4, 3, 2, 1).permute(2, 0, 3, 1, 4)
        return nn.functional.scaled_dot_product_attention(*heads.unbind(0)).transpose(1, 2).flatten(2)

    model = trained(Does(function), torch.randn(16, 4, 6))
    with inject(model, FLIPS, seed=1), torch.no_grad():
        model(torch.randn(4, 4, 6))


def test_a_copy_made_before_the_first_forward_is_not_watched():
    model = trained(Does(MOVES["frames"][0]), torch.randn(16, 4, 6))
    with inject(model, FLIPS, seed=1):
        copied = deepcopy(model)
    copied(torch.randn(4, 4, 6))
    assert not copied._forward_hooks
    assert not copied._forward_pre_hooks
