"""Samples that do not lie along axis 0: where they lie is found, and what is struck depends on the sample alone."""

import re

import pytest
import torch
from brevitas import nn as qnn
from brevitas.graph.quantize import layerwise_quantize
from torch import nn

from hwfault.errors import HwfaultError, PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import AccumulatorFormat, BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis
from tests.helpers.injection.networks import Chain
from tests.helpers.injection.oracle import Seen, faulty, same_bits
from tests.helpers.network.moving import FLIPS, MOVES, Does, quant, trained


@pytest.mark.parametrize("name", MOVES)
def test_where_the_samples_lie_is_found_and_a_batch_equals_its_samples(name):
    function, expected = MOVES[name]
    model = trained(Does(function), torch.randn(16, 4, 6))
    x = torch.full((4, 4, 6), 0.3)
    listed = sites(model, torch.randn(2, 4, 6))
    assert listed.obstacles == {}
    site = next(site for site in listed if site.name == "b.act_quant")
    assert site.batch == expected
    assert site.words == 30 if name == "a token of its own" else 24
    plan, whole, single = resolve(listed, FLIPS), Seen(), Seen()
    with torch.no_grad():
        with inject(model, plan, seed=1, observe=whole):
            model(x)
        with inject(model, plan, seed=1, observe=single):
            for i in range(4):
                model(x[i : i + 1])
    for call in whole:
        assert same_bits(call.after, faulty(plan, call, 1, range(4)))
        for i, own in enumerate(single.of(call.name)):
            assert same_bits(own.after, faulty(plan, own, 1, [i]))
    assert (whole[1].before != whole[1].after).any()


def test_heads_of_images_do_not_share_faults():
    model = trained(Does(MOVES["frames"][0]), torch.randn(16, 4, 6))
    x, seen = torch.full((8, 4, 50), 0.3), Seen()
    with torch.no_grad(), inject(model, FLIPS, seed=1, observe=seen, example=x):
        model(x)
    struck = (seen[1].before != seen[1].after).reshape(32, 50)
    some = [row for row in struck.tolist() if any(row)]
    assert len(some) > 20
    assert len({tuple(row) for row in some}) == len(some)


class Encoder(nn.Module):
    """A small ViT: patches, a class token, one block of attention, a head; in brackets of nn.MultiheadAttention."""

    def __init__(self, attention, batch_first):
        super().__init__()
        self.embed, self.token = nn.Linear(16, 12), nn.Parameter(torch.randn(1, 1, 12))
        self.attention, self.batch_first = attention, batch_first
        self.first, self.second, self.head = nn.LayerNorm(12), nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x):
        patches = x.unfold(1, 4, 4).unfold(2, 4, 4).reshape(len(x), 4, 16)
        x = torch.cat([self.token.expand(len(x), 1, 12), self.embed(patches)], 1)
        x = x if self.batch_first else x.transpose(0, 1)
        y = self.first(x)
        x = x + self.attention(y, y, y)[0]
        x = x + self.second(x).relu()
        return self.head(x[:, 0] if self.batch_first else x[0])


def vit(how, batch_first):
    torch.manual_seed(0)
    if how == "layerwise":
        model = layerwise_quantize(Encoder(nn.MultiheadAttention(12, 3, batch_first=batch_first), batch_first).eval())
    else:
        model = Encoder(qnn.QuantMultiheadAttention(12, 3, batch_first=batch_first, packed_in_proj=True), batch_first)
    return trained(model, torch.randn(16, 8, 8))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("how", ["layerwise", "by hand"])
def test_attention_at_once_equals_one_by_one(how, batch_first):
    model = vit(how, batch_first)
    x = torch.randn(8, 8, 8)
    listed = sites(model, x[:2])
    assert listed.obstacles == {}
    heads = {site.name: site.batch for site in listed if ".q_scaled" in site.name or ".v_quant" in site.name}
    assert set(heads.values()) == {BatchAxis(inner=3, rows=3)}
    plan, whole, ones = resolve(listed, [BitFlips(probability=0.02)]), Seen(), Seen()
    with torch.no_grad():
        with inject(model, plan, seed=3, observe=whole):
            out = model(x)
        with inject(model, plan, seed=3, observe=ones):
            apart = torch.cat([model(x[i : i + 1]) for i in range(8)])
    for call in whole:
        assert same_bits(call.after, faulty(plan, call, 3, range(8))), call.name
    assert torch.allclose(out, apart, atol=1e-5)  # matrix products add up in another order
    assert not torch.allclose(out, model(x), atol=1e-2)
    with pytest.raises(PlanError, match="give an example"), inject(model, resolve(sites(model), FLIPS), seed=3):
        model(x)


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("faults", [FLIPS, [BitFlips(p01=0.3, p10=0.01)], [WordFaults(probability=0.2)]])
@pytest.mark.parametrize("name", ["heads", "last", "T x B x heads"])
def test_gradients_are_those_of_an_explicit_model(name, faults, gradient):
    model = trained(Does(MOVES[name][0]), torch.randn(16, 4, 6))
    plan, seen = resolve([s for s in sites(model, torch.randn(2, 4, 6)) if s.name == "b.act_quant"], faults), Seen()
    x = torch.randn(5, 4, 6, requires_grad=True)
    with inject(model, plan, seed=2, gradient=gradient, observe=seen):
        out = model(x)
    weights = torch.randn_like(out)
    (ours,) = torch.autograd.grad((out * weights).sum(), x)
    (call,) = seen
    changed = ~(call.before == call.after)
    assert changed.any()
    assert same_bits(call.after, faulty(plan, call, 2, range(5)))
    passed = weights if gradient == "straight_through" else weights.masked_fill(changed, 0)
    (theirs,) = torch.autograd.grad((model(x) * passed).sum(), x)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_integers_are_marked_behind_their_embedding():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.a = nn.Embedding(11, 6), quant()

        def forward(self, tokens):
            return self.a(self.table(tokens.t())).sum(0)

    tokens = torch.randint(11, (4, 7))
    model = trained(Words(), tokens)
    (site,) = sites(model, tokens)
    assert (site.batch, site.shape) == (BatchAxis(axis=1), (7, 6))


def test_several_inputs_and_axes_of_their_own():
    def function(q, x, *, offset, mask):
        return q(x + offset.transpose(0, 1) * mask).flatten(0, 1)

    model, x, offset, mask = Does(function), torch.randn(3, 4, 6), torch.randn(4, 3, 6), torch.ones(4, 6)
    trained(model, x, offset=offset, mask=mask)
    example = {"x": x, "offset": offset, "mask": mask}

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x, offset, mask):
            return self.inner(x, offset=offset, mask=mask)

    for given in (example, tuple(example.values())):
        listed = sites(Named(), given, batch_axis=(0, 1, None))
        assert [site.batch for site in listed] == [None, BatchAxis(inner=4, rows=4)]
    with pytest.raises(PlanError, match="names 2 axes, but the example has 3 tensors"):
        sites(Named(), example, batch_axis=(0, 1))
    with pytest.raises(PlanError, match="does not have 3 samples along axis 0"):
        sites(Named(), example, batch_axis=(0, 0, None))
    with pytest.raises(PlanError, match="none with samples along axis 3"):
        sites(Named(), example, batch_axis=3)


def test_batches_along_another_axis_are_counted_there():
    model = trained(Chain(quant(), nn.ReLU(), quant()), torch.randn(7, 4, 6))
    example, seen = torch.randn(7, 4, 6), Seen()
    plan = resolve(sites(model, example, batch_axis=1), FLIPS)
    assert {entry.site.batch for entry in plan.sites} == {BatchAxis(axis=1)}
    with torch.no_grad(), inject(model, plan, seed=1, observe=seen, batch_axis=1) as injection:
        model(example)
        assert injection.first_sample == 4
        injection.samples = torch.tensor([9, 2, 5, 7])
        model(example)
    for call, numbers in zip(seen.of("0.act_quant"), [range(4), [9, 2, 5, 7]], strict=True):
        assert same_bits(call.after, faulty(plan, call, 1, numbers))
    with (
        inject(model, plan, seed=1),
        pytest.raises(PlanError, match=r"inputs hold 7; say along which.*batch_axis=\.\.\."),
    ):
        model(example)
    with inject(model, plan, seed=1, batch_axis=1) as injection:
        injection.samples = torch.arange(7)
        with pytest.raises(HwfaultError, match="expected one number for each"):
            model(example)


OBSTACLES = {
    "permuted": (lambda q, x: q(x).roll(1, 0), "rows of others"),
    "mixed": (lambda q, x: q(x) - q(x).mean(0), "rows of others"),
    "picked": (lambda q, x: q(x)[x.sum((1, 2)) > 0], "holds no batch|rows"),
    "no batch": (lambda q, x: q(x).mean(0), "holds no batch"),
    "two axes": (lambda q, x: q(x).flatten(1) @ q(x).flatten(1).T, "all grow"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_does_not_fit_is_an_obstacle_that_names_the_site(name):
    function, why = OBSTACLES[name]
    model = trained(Does(function), torch.randn(16, 4, 6))
    listed = sites(model, torch.randn(8, 4, 6))
    assert "b.act_quant" not in [site.name for site in listed]
    assert "'b.act_quant'" in listed.obstacles["b.act_quant"]
    assert re.search(why, listed.obstacles["b.act_quant"])
    with pytest.raises(PlanError, match="which is none here"):
        inject(model, resolve(sites(model), FLIPS), seed=1, example=torch.randn(8, 4, 6))


@pytest.mark.parametrize("size", [1, 3, 5, 8, 16])
@pytest.mark.parametrize("at_once", [1, 4, 8])
def test_a_quantizer_that_runs_once_for_some_of_the_samples_is_an_obstacle(at_once, size):
    layer = qnn.QuantLinear(6, 3, weight_bit_width=4)
    model = trained(Does(lambda q, x: torch.cat([layer(q(part)) for part in x.split(at_once)])), torch.randn(16, 6))
    model.layer = layer
    listed = sites(model, torch.randn(size, 6))
    runs = -(-size // at_once)
    # every example shows how often each runs, and two other batches that it is not always so often
    told = [name for name in listed.obstacles if "how often it runs" in listed.obstacles[name]]
    expected = [f"a.act_quant#{run}".removesuffix("#0") for run in range(runs)]
    if (at_once, runs) == (8, 1):
        assert told == []
    else:
        assert [name for name in told if name.startswith("a.")] == expected
        assert len([name for name in told if name.endswith("accumulator")]) == 1
    assert "b.act_quant" in [site.name for site in listed]


def test_an_older_plan_is_refused_where_an_axis_was_wrong():
    model = trained(Does(MOVES["frames"][0]), torch.randn(16, 4, 6))
    old = resolve(sites(model), FLIPS)
    with pytest.raises(PlanError, match=r"'b.act_quant' to lie otherwise.*resolve the faults again"):
        inject(model, old, seed=1, example=torch.randn(2, 4, 6))
    with pytest.raises(PlanError, match="give an example"), inject(model, old, seed=1):
        model(torch.randn(8, 4, 6))


def test_a_shape_that_contradicts_the_axis_is_an_error():
    model = trained(Does(lambda q, x: q(x).reshape(-1, 6)), torch.randn(16, 4, 6))
    plan = resolve(sites(model, torch.randn(2, 4, 6)), FLIPS)
    with inject(model, plan, seed=1), torch.no_grad():
        model(torch.randn(3, 4, 6))
        with pytest.raises(PlanError, match=r"'b.act_quant' have the shape \(24, 6\).*6 samples.*the inputs hold 3"):
            model(torch.randn(3, 8, 6))


def test_an_example_may_be_integers_on_their_scale():
    first = quant(return_quant_tensor=True)
    model = trained(
        Does(lambda q, x, mask: (q(x) * mask).flatten(0, 1)), first(torch.randn(16, 4, 6)), torch.ones(16, 4, 1)
    )
    x = first.eval()(torch.randn(2, 4, 6))
    listed = {site.name: site for site in sites(model, (x, torch.ones(2, 4, 1)))}
    assert listed["b.act_quant"].batch == BatchAxis(inner=4, rows=4)
    assert listed["a.act_quant"].batch is None


def test_sums_of_tokens_along_axis_0_are_those_of_each_sample():
    layer = qnn.QuantLinear(6, 5, bias=True, weight_bit_width=4)
    model = trained(Does(lambda q, x: layer(q(x).transpose(0, 1))), torch.randn(16, 4, 6))
    model.layer = layer
    x = torch.randn(3, 4, 6)
    listed = sites(model, x)
    (site,) = [site for site in listed if site.kind == "accumulator"]
    assert (site.batch, site.shape) == (BatchAxis(axis=1), (4, 5))
    faults = [
        BitFlips(probability=0.05, sites={"kind": "accumulator"}),
        AccumulatorFormat(width=8, overflow="saturate"),
    ]
    plan, whole, ones = resolve(listed, faults), Seen(), Seen()
    with torch.no_grad():
        with inject(model, plan, seed=1, observe=whole):
            out = model(x)
        with inject(model, plan, seed=1, observe=ones):
            apart = torch.cat([model(x[i : i + 1]) for i in range(3)], 1)
    assert torch.equal(out, apart)
    assert same_bits(whole[0].after, faulty(plan, whole[0], 1, range(3)))
    assert (whole[0].after != whole[0].before).any()


def test_sites_are_found_while_faults_are_attached():
    model = trained(Does(MOVES["frames"][0]), torch.randn(16, 4, 6))
    x = torch.randn(4, 4, 6)
    plan = resolve(sites(model, x), [BitFlips(probability=0.3)])
    with inject(model, plan, seed=1) as injection, torch.no_grad():
        first = model(x)
        assert sites(model, x) == [entry.site for entry in plan.sites]
        assert injection.first_sample == 4
        injection.first_sample = 0
        assert torch.equal(model(x), first)
