"""What is no number stays in memories with check bits, under maps and in the sums of arrays; so does its gradient."""

import numpy as np
import pytest
import torch

from hwfault.stream.protection import Memory
from tests.helpers.torch_ops.operators import accumulate, fault_map, protected

STRANGE = torch.tensor([float("nan"), float("inf"), -float("inf")])
ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)
NONE = torch.zeros(0, dtype=torch.int64)


def values():
    x = (torch.arange(60) % 16).float().reshape(1, 60)
    x[0, 10:13] = STRANGE
    return x.requires_grad_()


def same(one, other):
    return torch.equal(one.detach().view(torch.int32), other.detach().view(torch.int32))


@pytest.mark.parametrize("kind", ["parity", "secded", "tmr"])
def test_memories_with_check_bits(kind):
    """Every cell of all data is hit; what a memory word has of other words is struck as if it were alone."""
    memory, x = Memory(kind, 8, 4, True), values()
    program = memory.program(7, 0.3, 0.3)
    drawn = (torch.zeros(1, dtype=torch.int64),) * 2 + (torch.tensor(1), torch.tensor(program))
    table = NONE, torch.zeros(2, 0, dtype=torch.int32), NONE, torch.zeros(0, 8, dtype=torch.int64)
    out, counts = protected(x, *drawn, *table, ONE, ZERO, 4, False, 0, kind, 8, 4, True, 1 << 32, 0, False)
    assert same(out[0, 10:13], x[0, 10:13])
    changed = (out != x) & x.isfinite()
    assert changed.sum() > 10
    out.backward(torch.ones_like(out))
    assert torch.equal(x.grad == 0, changed)
    plain = torch.where(x.detach().isfinite(), x.detach(), 0.0)
    zeros, again = protected(plain, *drawn, *table, ONE, ZERO, 4, False, 0, kind, 8, 4, True, 1 << 32, 0, False)
    assert torch.equal(zeros[x.isfinite()], out[x.isfinite()]), "to its neighbours its code is 0"
    assert torch.equal(counts, again)


@pytest.mark.parametrize("stuck", [False, True])
def test_maps(stuck):
    x, word = values(), torch.arange(60)
    masks = torch.full((2, 60), -1 if not stuck else 0, dtype=torch.int32)
    masks[1] = 15
    draw = torch.zeros(1, dtype=torch.int64), torch.tensor(0)
    out = fault_map(x, *draw, word, masks, ONE, ZERO, 4, False, 0, 1 << 32, 0, False, True)
    assert same(out[0, 10:13], x[0, 10:13])
    out.backward(torch.ones_like(out))
    assert torch.equal(x.grad == 0, (out != x) & x.isfinite())
    assert (x.grad == 0).sum() > 50


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays(dtype, saturate):
    """A row of inputs that holds NaN has sums that are NaN, also where an element is stuck and others overflow."""
    rng = np.random.default_rng(1)
    x, w = (torch.from_numpy(rng.integers(-8, 8, shape).astype(np.float32)) for shape in ((3, 40), (6, 40)))
    x[1, 4] = float("nan")
    acc = (x @ w.T).to(dtype).requires_grad_()
    stuck = torch.tensor([[6, 2, 1, 0, 1, 0, 0xFFFFFFFF, 1]])
    out = accumulate(acc, x, w, NONE, stuck, [], 1, [6, saturate, 1, 0], False)
    assert out[1].isnan().all()
    assert out[[0, 2]].isfinite().all()
    assert (out[[0, 2]] != acc[[0, 2]]).any()
    out.backward(torch.ones_like(out))
    assert (acc.grad[1] == 1).all()
