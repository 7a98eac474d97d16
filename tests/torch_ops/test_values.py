"""Every value at every site is what the reference says, to the bit, and what the network computes with."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hwfault.codes import CodeFormat
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import FAULTS, Seen, faulty, same_bits, spy


def planned(model, faults):
    return resolve(sites(model, batch()), faults)


@cache
def known(name):
    """The sites of a network, which finding takes more time than all else here."""
    return sites(build(name), batch())


def check(plan, seen, seed, samples):
    """Every call of every planned site is what the oracle says; answers how many words were struck."""
    assert {call.name for call in seen} == set(plan.names)
    struck = 0
    for call in seen:
        assert same_bits(call.after, faulty(plan, call, seed, samples)), call.name
        struck += int((call.after != call.before).sum())
    return struck


@pytest.mark.every(15)
@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_values_at_every_site(name, faults):
    model, seen, plain, struck = build(name), Seen(), {}, {}
    try:
        plan = resolve(known(name), FAULTS[faults])
    except Exception:  # a selector that this network has no site for
        everywhere = [f.model_copy(update={"sites": BitFlips(probability=0).sites}) for f in FAULTS[faults]]
        plan = resolve(known(name), everywhere)
    remove_before = spy(model, plain)
    with inject(model, plan, seed=11, observe=seen), torch.no_grad():
        remove_after = spy(model, struck)
        model(batch())
        remove_after()
    remove_before()
    assert check(plan, seen, 11, range(4)) > 0
    for site in plan.names:
        calls = seen.of(site)
        before, after = (runs_of(plan.at(site).site, found) for found in (plain, struck))
        assert all(same_bits(call.before, value) for call, value in zip(calls, before, strict=True))
        assert all(same_bits(call.after, value) for call, value in zip(calls, after, strict=True))


def runs_of(site, found):
    """The values of a site among those of its quantizer: a parameter's in every run, an activation's in its own."""
    first, _, run = site.name.partition("#")
    return [found[first][int(run or 0)]] if site.batched else found[first]


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_values_in_training(name):
    model, seen = build(name).train(), Seen()
    plan = planned(model, [BitFlips(p01=0.05, p10=0.02)])
    with inject(model, plan, seed=2**64 - 1, observe=seen):
        model(batch())
    check(plan, seen, 2**64 - 1, range(4))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, 2**64 - 1])
def test_every_bit_of_the_seed_counts(seed):
    model, seen = build("cnn"), Seen()
    plan = planned(model, [BitFlips(probability=0.05)])
    with inject(model, plan, seed=seed, observe=seen):
        model(batch())
    check(plan, seen, seed, range(4))


def test_the_layers_compute_with_the_faulty_values():
    model, seen, sums = build("per_channel"), Seen(), {}
    for i in (1, 3, 5):
        model[i].register_forward_hook(lambda _m, args, out, i=i: sums.update({i: getattr(out, "value", out)}))
    with inject(model, [BitFlips(probability=0.05)], seed=3, observe=seen), torch.no_grad():
        out = model(batch())
    at = seen.after
    assert torch.equal(sums[1], functional.conv2d(at["0.act_quant"], at["1.weight_quant"], at["1.bias_quant"]))
    assert torch.equal(sums[3], functional.conv_transpose2d(at["2.act_quant"], at["3.weight_quant"]))
    assert torch.equal(sums[5], functional.linear(sums[3].flatten(1), at["5.weight_quant"]))
    assert torch.equal(out, sums[5])


def test_a_tensor_that_two_layers_read_has_one_set_of_faults():
    model, seen, read = build("residual"), Seen(), {}
    for name in ("left", "right"):
        getattr(model, name).register_forward_pre_hook(lambda _m, args, name=name: read.update({name: args[0].value}))
    with inject(model, [BitFlips(probability=0.05, sites="stem.*")], seed=3, observe=seen):
        model(batch())
    assert len(seen) == 1
    assert torch.equal(read["left"], read["right"])
    assert torch.equal(read["left"], seen[0].after)
    assert not torch.equal(seen[0].before, seen[0].after)


def test_a_module_that_runs_twice_has_one_weight_and_two_activations():
    model, seen = build("twice"), Seen()
    plan = planned(model, [BitFlips(probability=0.1)])
    with inject(model, plan, seed=3, observe=seen):
        model(batch())
    check(plan, seen, 3, range(4))
    first, second = seen.of("again.weight_quant")
    assert torch.equal(first.after, second.after)
    fmt = CodeFormat(4, signed=False)
    names = ("relu.act_quant", "relu.act_quant#1")
    (a, b), (c, d) = (call.codes(fmt) for name in names for call in seen.of(name))
    # symmetric flips do not depend on what is stored
    assert (a ^ b).any()
    assert (c ^ d).any()
    assert not np.array_equal(a ^ b, c ^ d)


def test_layers_that_share_a_quantizer_both_have_their_faults():
    model, seen = build("shared"), Seen()
    plan = planned(model, [WordFaults(probability=0.2, effect="msb")])
    with inject(model, plan, seed=3, observe=seen):
        model(batch())
    check(plan, seen, 3, range(4))
    names = ("2.weight_quant", "4.weight_quant")
    (one,), (other,) = ([call.codes(CodeFormat(4, signed=True)) for call in seen.of(name)] for name in names)
    assert (one[0] != one[1]).any()
    assert (other[0] != other[1]).any()
    assert not np.array_equal(one[0] ^ one[1], other[0] ^ other[1])


def test_integers_of_the_quant_tensor_stay_in_their_range():
    model, ints = build("biased"), {}
    for i in (0, 2):
        model[i].register_forward_hook(lambda _m, _a, out, i=i: ints.update({i: out.int(float_datatype=False)}))
    seen = Seen()
    with inject(model, [WordFaults(probability=0.5, effect="msb")], seed=3, observe=seen), torch.no_grad():
        model(batch())
    assert (int(ints[0].min()), int(ints[0].max())) >= (-128, -128)
    assert int(ints[0].max()) <= 127
    assert int(ints[2].min()) >= 0
    assert int(ints[2].max()) <= 7
    codes = seen.of("2.act_quant")[0].codes(CodeFormat(3, signed=False))[1]
    assert np.array_equal(ints[2].numpy(), codes.astype(ints[2].numpy().dtype))


def test_everything_but_the_values_of_a_quant_tensor_stays():
    model, outs = build("biased"), []
    model[0].register_forward_hook(lambda _m, _a, out: outs.append(out))
    model(batch())
    with inject(model, [BitFlips(probability=0.05)], seed=3):
        model(batch())
    clean, struck = outs
    assert type(clean) is type(struck)
    assert not torch.equal(clean.value, struck.value)
    for key in ("scale", "zero_point", "bit_width", "signed_t", "training_t"):
        assert torch.equal(getattr(clean, key), getattr(struck, key)), key
    assert clean.value.shape == struck.value.shape


def test_scales_and_clean_values_are_those_of_the_clean_network():
    clean, model, plain, seen = build("biased"), build("biased"), {}, Seen()
    remove = spy(clean, plain)
    clean(batch())
    with inject(model, [BitFlips(probability=0.05)], seed=3, observe=seen):
        model(batch())
    remove()
    for name in ("0.act_quant", "1.weight_quant", "1.bias_quant", "4.weight_quant", "4.bias_quant"):
        assert same_bits(seen.of(name)[0].before, plain[name][0])
    # what comes after faulty sums is another thing
    assert not torch.equal(seen.of("2.act_quant")[0].before, plain["2.act_quant"][0])


def test_a_rate_of_zero_changes_no_bit():
    model = build("biased")
    clean = model(batch())
    with inject(model, [BitFlips(probability=0.0), WordFaults(probability=0.0)], seed=3):
        assert same_bits(model(batch()), clean)


def test_a_rate_of_one_strikes_every_cell():
    model, seen = build("cnn"), Seen()
    plan = planned(model, [WordFaults(probability=1.0, effect="full")])
    with inject(model, plan, seed=3, observe=seen):
        model(batch())
    check(plan, seen, 3, range(4))
    for call in seen:
        site = plan.at(call.name).site
        before, after = call.codes(CodeFormat(site.bit_width, site.signed))
        assert ((before ^ after) == (1 << site.bit_width) - 1).all()


def test_inputs_that_are_not_contiguous():
    model, seen = build("cnn"), Seen()
    plan = planned(model, [BitFlips(p01=0.05, p10=0.02)])
    x = batch().to(memory_format=torch.channels_last)
    with inject(model, plan, seed=3, observe=seen), torch.no_grad():
        model(x)
    check(plan, seen, 3, range(4))


def test_no_gradient_and_inference_mode():
    model = build("cnn")
    with inject(model, [BitFlips(probability=0.05)], seed=3) as injection:
        out = model(batch())
        for mode in (torch.no_grad, torch.inference_mode):
            injection.first_sample = 0
            with mode():
                assert same_bits(model(batch()), out)


def test_values_under_autocast():
    model, seen = build("cnn"), Seen()
    plan = planned(model, [BitFlips(p01=0.05, p10=0.02)])
    with inject(model, plan, seed=3, observe=seen), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(batch())
    for call in seen:
        assert (call.after != call.before).any()
        call.before, call.scale = call.before.float(), call.scale.float()
        expected = faulty(plan, call, 3, range(4))
        assert same_bits(call.after, expected.to(call.after.dtype)), call.name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_types(dtype):
    model, seen = build("power_of_two").to(dtype), Seen()
    plan = resolve(sites(model, batch().to(dtype)), [BitFlips(p01=0.05, p10=0.02)])
    with inject(model, plan, seed=3, observe=seen), torch.no_grad():
        assert model(batch().to(dtype)).dtype == dtype
    for call in seen:
        assert call.after.dtype == dtype
        call.before, call.scale, call.zero_point = (t.float() for t in (call.before, call.scale, call.zero_point))
        assert torch.equal(call.after.float(), faulty(plan, call, 3, range(4)))


def test_a_network_that_is_one_quantizer():
    from brevitas import nn as qnn

    model, seen = qnn.QuantIdentity().eval(), Seen()
    with inject(nn.Sequential(model), [BitFlips(probability=0.05)], seed=1, observe=seen):
        model(batch())
    with inject(model, [BitFlips(probability=0.05)], seed=1, observe=seen):
        model(batch())
    assert [call.name for call in seen] == ["0.act_quant", "act_quant"]
    assert not torch.equal(seen[0].after, seen[1].after)  # the name is what tells sites apart


@pytest.mark.parametrize(
    ("effect", "becomes"),
    [
        ("full", {-8: 7, -1: 0, 0: -1, 7: -8}),
        ("msb", {-8: 0, -1: 7, 0: -8, 7: -1}),
        ("lsb", {-8: -7, -1: -2, 0: 1, 7: 6}),
        ("random", {}),
    ],
)
@torch.no_grad()
def test_signed_integers_stay_in_range_and_always_change(effect, becomes):
    """All integers of 4 bits, each struck: hardware that holds -8 in four cells reads 7 when all flip, never -16."""
    from brevitas import nn as qnn

    model = nn.Sequential(qnn.QuantIdentity(bit_width=4)).eval()
    scale, ints = model[0].act_quant.scale(), torch.arange(-8, 8).repeat(100, 1)
    assert torch.equal(torch.round(model(ints * scale) / scale), ints.float())
    with inject(model, [WordFaults(probability=1.0, effect=effect)], seed=1):
        found = torch.round(model(ints * scale) / scale).to(torch.int64)
    assert (found != ints).all()
    assert (found.min(), found.max()) == (-8, 7)
    for before, after in becomes.items():
        assert (found[ints == before] == after).all()
    if effect == "random":
        assert all(len(found[ints == before].unique()) == 15 for before in range(-8, 8))
