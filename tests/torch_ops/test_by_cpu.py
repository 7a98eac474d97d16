"""Devices without Triton: words found and struck on the CPU, which here stands in for the device as well."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.torch_ops import array_op, by_cpu, cuda_ops, map_op, ops, protection_op
from tests.injection.networks import NETWORKS, batch, build
from tests.injection.oracle import same_bits
from tests.injection.stand_in import IMPLEMENTATIONS, as_on_a_device, with_triton
from tests.stream.cases import Draw
from tests.stream.test_late import late
from tests.torch_ops import test_map_op, test_protection_op
from tests.torch_ops.test_ops import DTYPES, PROGRAMS, arguments, on_grid


@pytest.fixture(autouse=True)
def _without_triton():
    with with_triton(False):
        yield


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name, dtype):
    args = arguments(name, dtype=dtype)
    x, *draw, bits, signed, _, reads_stored = args
    expected = ops.inject(*args)
    assert same_bits(cuda_ops.inject(*args), expected)
    assert not torch.equal(x, expected)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    given = (gradient, x if reads_stored else None, *draw, bits, signed)
    zeroed = cuda_ops.zero_faulty(*given)
    assert same_bits(zeroed, ops.zero_faulty(*given))
    assert (zeroed == 0).any()


@pytest.mark.parametrize("representation", [0, 1, 2])
def test_representations_and_strange_values(representation):
    x = on_grid((3, 5, 40))
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.1] = float("nan")
    x[0, 0, :3] = torch.tensor([float("inf"), -0.0, 1e30])
    for name in ("asymmetric", "random"):
        args = (*arguments(name, x=x), representation)
        assert same_bits(cuda_ops.inject(*args), ops.inject(*args))


def test_late_bits():
    """They read the words before theirs, of which some are struck, too."""
    changed = 0
    for part in range(20):
        draw = Draw(part)
        x, samples, seed, _, *rest = arguments("bits", x=on_grid((3, 12, 60), seed=part))
        faults = [*late(draw.site(), 0.2, 11, 5, 2, 12, 60), *late(draw.site(), 0.1, 4, 5, 2, 12, 60)]
        given = (x, samples, seed, torch.tensor(faults), *rest[:4], False, True)
        expected = ops.inject(*given)
        assert same_bits(cuda_ops.inject(*given), expected)
        zeros = (torch.ones_like(x), x, samples, seed, given[3], *rest[:4])
        assert same_bits(cuda_ops.zero_faulty(*zeros), ops.zero_faulty(*zeros))
        changed += int((expected != x).sum())
    assert changed > 1000


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0), (4,), (2, 1, 3, 1)])
def test_shapes(shape):
    x = on_grid(shape)
    args = arguments("asymmetric", x=x) if shape else (x, torch.tensor([4]), *arguments("asymmetric")[2:])
    assert same_bits(cuda_ops.inject(*args), ops.inject(*args))


def test_what_does_not_lie_in_order_comes_out_in_order():
    args = arguments("asymmetric", x=on_grid((4, 40, 5)).transpose(1, 2))
    after = cuda_ops.inject(*args)
    assert after.is_contiguous()
    assert same_bits(after, ops.inject(*args))


@pytest.mark.parametrize("threshold", [0, test_map_op.HALF, 2**32])
@pytest.mark.parametrize("kinds", test_map_op.KINDS)
def test_fault_maps(kinds, threshold):
    args = test_map_op.arguments(kinds, threshold=threshold)
    expected = map_op.fault_map(*args)
    assert same_bits(cuda_ops.fault_map(*args), expected)
    given = test_map_op.gradient_arguments(args, torch.ones_like(args[0]))
    zeroed = cuda_ops.zero_map(*given)
    assert same_bits(zeroed, map_op.zero_map(*given))
    assert ((zeroed == 0).any() and (expected != args[0]).any()) == (threshold > 0)


@pytest.mark.parametrize("source", test_protection_op.SOURCES)
def test_protected_memories(source):
    args = test_protection_op.arguments(source)
    for found, expected in zip(IMPLEMENTATIONS["protected"](*args), protection_op.protected(*args), strict=True):
        assert torch.equal(found, expected)
    given = (torch.ones_like(args[0]), *args[:-1])
    assert torch.equal(IMPLEMENTATIONS["zero_protected"](*given), protection_op.zero_protected(*given))


def test_arrays_of_processing_elements():
    x, w = torch.arange(12.0).reshape(3, 4), torch.arange(8.0).reshape(2, 4)
    acc = x @ w.T
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros((0, 8), dtype=torch.int64)
    given = (acc, x, w, *nothing, [], 1, [6, 0, 1, 0], False)
    after = IMPLEMENTATIONS["accumulate"](*given)
    assert torch.equal(after, array_op.accumulate(*given))
    assert not torch.equal(after, acc)


FAULTS = [
    BitFlips(p01=0.02, p10=0.05),
    WordFaults(probability=0.02, sites={"kind": "weight"}),
    Clusters(probability=0.02, sizes=[0.5, 0.5]),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_the_same(name):
    found = []
    for device in (False, True):
        model = build(name).train()
        with inject(model, FAULTS, seed=3):
            if device:
                with as_on_a_device(triton=False) as ran:
                    outs = [step(model, i) for i in range(2)]
                assert {"inject", "zero_faulty"} <= set(ran)
            else:
                outs = [step(model, i) for i in range(2)]
        found.append([*outs, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(map(torch.equal, *found))


def step(model, i):
    out = model(batch(seed=i))
    out.square().sum().backward()
    return out.detach()


def test_arguments_that_do_not_fit():
    x, *rest = arguments()
    with pytest.raises(PlanError, match=r"values of type torch.int32, expected one of torch.float32"):
        cuda_ops.inject(x.int(), *rest)
    with pytest.raises(PlanError, match=r"3 sample numbers for a tensor of shape \(2, 5, 40\)"):
        cuda_ops.inject(x[:2], *rest)
    with pytest.raises(PlanError, match=r"a scale of shape \(5, 40\)"):
        cuda_ops.inject(x, *rest[:3], torch.ones(5, 40), *rest[4:])


def test_captures_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with FakeTensorMode():
        x = torch.empty(2, 3, device="cuda")
    for run in (lambda: by_cpu.struck(None, None, x, x, False, (), ()), lambda: by_cpu.entirely(None)(x)):
        with pytest.raises(PlanError, match="cannot be captured in a CUDA graph: protected memories, arrays"):
            run()


def test_every_operator_is_there_for_devices():
    for name in IMPLEMENTATIONS:
        for key in ("CUDA", "XPU", "MPS"):
            assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"hwfault::{name}", key), (name, key)


def test_what_comes_back_is_on_the_device():
    """As compilers see it."""

    def moved(args):
        return [torch.empty(a.shape, dtype=a.dtype, device="cuda") if isinstance(a, torch.Tensor) else a for a in args]

    with FakeTensorMode():
        assert ops.inject(*moved(arguments())).device.type == "cuda"
        protected = protection_op.protected(*moved(test_protection_op.arguments()))
        assert {t.device.type for t in protected} == {"cuda"}
