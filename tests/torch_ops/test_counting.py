"""Counters, and the numbers that begin with one: what they hold, whoever counts them, and which are refused."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import HwfaultError
from hwfault.torch_ops.counting import advance, count_from
from hwfault.torch_ops.extension import without_extension
from hwfault.torch_ops.held import TOO_FAR

LAST = 2**32 - 1
WAYS = {"as installed": nullcontext, "torch's operators": without_extension}
EACH = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@EACH
def test_a_counter_is_read_and_advanced(way):
    counter = torch.tensor(5)
    with way():
        before = advance(counter, 3)
        assert (before.item(), counter.item()) == (5, 8)
        assert advance(counter, 0).item() == counter.item() == 8
    assert (before.item(), before.shape, before.dtype) == (5, (), torch.int64)
    assert counter.data_ptr() != before.data_ptr()


@EACH
@given(first=st.integers(0, LAST), n=st.integers(0, 9), world=st.integers(1, 5), rank=st.integers(0, 4))
def test_numbers(way, first, n, world, rank):
    expected = [(first + i) * world + rank % world for i in range(n)]
    with way():
        if expected and expected[-1] > LAST:
            with pytest.raises(HwfaultError, match=f"up to {expected[-1]}, "):
                count_from(torch.tensor(first), n, TOO_FAR, world=world, rank=rank % world)
            return
        numbers = count_from(torch.tensor(first), n, TOO_FAR, world=world, rank=rank % world)
    assert numbers.tolist() == expected
    assert numbers.dtype == torch.int64


@EACH
def test_what_is_kept_is_kept_in_inference_mode_too(way):
    first = torch.tensor(7)
    with way(), torch.inference_mode():
        assert count_from(first, 2, TOO_FAR).is_inference()
        kept = count_from(first, 1, TOO_FAR, kept=True)
        assert not kept.is_inference()
        assert advance(first, 2).item() == 7
    assert (kept.tolist(), first.item()) == ([7], 9)


@EACH
def test_whoever_follows_operators_sees_those_of_torch(way):
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    counter = torch.tensor(1)
    with way(), Watch():
        advance(counter, 2)
    assert any("add_" in name for name in seen)
    assert counter.item() == 3
