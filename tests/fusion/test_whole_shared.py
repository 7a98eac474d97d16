"""A quantizer that has the scale of another one, whose parts are not below its proxy."""

import copy

import pytest
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.quant import Uint8ActPerTensorFloat
from torch import nn

import hwfault as hf
from hwfault.fusion.whole import WholeQuantizer
from hwfault.train.networks.quantizers import SameGrid
from tests.helpers.fusion.changes import (
    another_scaling,
    evaluate,
    narrow_range_of_scale,
    parametrize_scale,
    rebuild,
    reload,
    replace_scale,
    reshape_scale,
    scale_as_buffer,
    switch_off,
    unsigned_range_of_scale,
    write_scale,
    write_width,
)
from tests.helpers.fusion.whole import X, act, by_brevitas, parts_of, proxy_of, quantize, same


def made():
    leader = act()
    return leader, SameGrid(leader, 4)


@pytest.mark.parametrize(
    "change",
    [
        *(write_width, narrow_range_of_scale, unsigned_range_of_scale, another_scaling, switch_off, evaluate),
        *(rebuild, reload, write_scale, reshape_scale, replace_scale, scale_as_buffer, parametrize_scale),
    ],
    ids=lambda c: c.__name__,
)
def test_the_leader_changes(change):
    leader, follower = made()
    with hf.fused(nn.Sequential(leader, follower)):
        assert same(quantize(follower, X), by_brevitas(follower, X))
        assert WholeQuantizer.of(proxy_of(follower)).why is None
        change(leader)
        if change is rebuild:
            write_scale(leader)
        for _ in range(2):
            assert same(quantize(follower, X), by_brevitas(follower, X))


def test_the_parts_of_the_leader_are_replaced():
    for name in ("scaling_impl", "msb_clamp_bit_width_impl", "int_scaling_impl"):
        leader, follower = made()
        with hf.fused(nn.Sequential(leader, follower)):
            quantize(follower, X)
            other = copy.deepcopy(parts_of(leader).get_submodule(name))
            setattr(parts_of(leader), name, other)
            {"scaling_impl": write_scale, "msb_clamp_bit_width_impl": write_width}.get(name, narrow_range_of_scale)(
                leader
            )
            assert same(quantize(follower, X), by_brevitas(follower, X))


def test_a_hook_on_a_part_of_the_leader():
    for name in ("scaling_impl", "scaling_impl.restrict_clamp_scaling", "msb_clamp_bit_width_impl"):
        leader, follower = made()
        seen = []
        with hf.fused(nn.Sequential(leader, follower)):
            quantize(follower, X)
            parts_of(leader).get_submodule(name).register_forward_hook(lambda *_, seen=seen: seen.append(1))
            quantize(follower, X)
        assert seen == [1]


def test_the_follower_follows_another():
    leader, follower = made()
    other = act(max_val=1.0, min_val=-1.0)
    with hf.fused(nn.Sequential(leader, follower, other)):
        quantize(follower, X)
        parts_of(follower).scaling_impl._leader = (other,)
        assert same(quantize(follower, X), by_brevitas(follower, X))


def test_a_leader_that_learns_from_statistics():
    leader = act(Uint8ActPerTensorFloat.let(collect_stats_steps=2))
    follower, plain = SameGrid(leader, 4), copy.deepcopy(leader)
    twin = SameGrid(plain, 4)
    with hf.fused(nn.Sequential(leader, follower)):
        for _ in range(5):
            assert same(leader(X), plain(X))
            assert same(quantize(follower, X), quantize(twin, X))
    assert ZeroZeroPoint is type(parts_of(follower).zero_point_impl)
