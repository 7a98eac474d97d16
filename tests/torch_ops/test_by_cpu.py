"""Devices without Triton: words found and struck on the CPU, which here stands in for the device as well."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.stream.mechanism import STREAM
from hwfault.stream.sampled_map import SampledMap
from hwfault.stream.tables import SAMPLED
from hwfault.torch_ops import by_cpu, on_devices
from hwfault.torch_ops.strike_op import strike, zero
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import same_bits
from tests.helpers.injection.stand_in import as_on_a_device, with_triton
from tests.helpers.stream.cases import Draw
from tests.helpers.torch_ops import operators
from tests.stream.test_late import late
from tests.torch_ops import test_map_op, test_protection_op
from tests.torch_ops.test_ops import DTYPES, PROGRAMS, arguments, on_grid


@pytest.fixture(autouse=True)
def _without_triton():
    with with_triton(False):
        yield


def struck_alike(arguments):
    """What the implementation for devices makes of values, which is what that on the CPU does, counts included."""
    found, expected = on_devices.strike(*arguments), strike(*arguments)
    assert same_bits(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    return found[0]


def zeroed_alike(arguments):
    found = on_devices.zero(*arguments)
    assert same_bits(found, zero(*arguments))
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name, dtype):
    args = arguments(name, dtype=dtype)
    x, *draw, bits, signed, _, reads_stored = args
    assert not torch.equal(x, struck_alike(operators.stream(*args)))
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    given = (gradient, x if reads_stored else None, *draw, bits, signed)
    assert (zeroed_alike(operators.stream_zero(*given)) == 0).any()


@pytest.mark.parametrize("representation", [0, 1, 2])
def test_representations_and_strange_values(representation):
    x = on_grid((3, 5, 40))
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.1] = float("nan")
    x[0, 0, :3] = torch.tensor([float("inf"), -0.0, 1e30])
    for name in ("asymmetric", "random"):
        struck_alike(operators.stream(*arguments(name, x=x), representation))


def test_late_bits():
    """They read the words before theirs, of which some are struck, too."""
    changed = 0
    for part in range(20):
        draw = Draw(part)
        x, samples, seed, _, *rest = arguments("bits", x=on_grid((3, 12, 60), seed=part))
        faults = [*late(draw.site(), 0.2, 11, 5, 2, 12, 60), *late(draw.site(), 0.1, 4, 5, 2, 12, 60)]
        given = (samples, seed, torch.tensor(faults), *rest[:4])
        after = struck_alike(operators.stream(x, *given, False, True))
        zeroed_alike(operators.stream_zero(torch.ones_like(x), x, *given))
        changed += int((after != x).sum())
    assert changed > 1000


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0), (4,), (2, 1, 3, 1)])
def test_shapes(shape):
    x = on_grid(shape)
    args = arguments("asymmetric", x=x) if shape else (x, torch.tensor([4]), *arguments("asymmetric")[2:])
    struck_alike(operators.stream(*args))


def test_what_does_not_lie_in_order_comes_out_in_order():
    args = arguments("asymmetric", x=on_grid((4, 40, 5)).transpose(1, 2))
    assert struck_alike(operators.stream(*args)).is_contiguous()


def test_maps_whose_rows_name_their_samples():
    """Of which a row's number is far beyond the words of a tensor."""
    x = on_grid((4, 6, 10))
    numbers = [5, 2**32 - 1, 5, 0]
    cells = np.array([(5, 0, 1, 0), (5, 59, 3, 2), (6, 7, 0, 0), (2**32 - 1, 8, 2, 1), (2**32 - 1, 9, 2, 0)])
    rows = SampledMap.from_cells(60, 4, *cells.T)
    _, _, seed, _, _, *grid = test_map_op.arguments("mixed", x=x, threshold=SAMPLED)
    masks = torch.from_numpy(np.stack([rows.and_mask, rows.xor_mask]).view(np.int32))
    args = (x, torch.tensor(numbers), seed, torch.from_numpy(rows.key), masks, *grid)
    after = struck_alike(operators.rows(*args))
    changed = (after != x).reshape(4, -1).sum(1)
    assert changed[0] == changed[2] > 0
    assert changed[1] > 0
    assert changed[3] == 0
    zeroed_alike(operators.rows_zero(*test_map_op.gradient_arguments(args, torch.ones_like(x))))


@pytest.mark.parametrize("threshold", [0, test_map_op.HALF, 2**32])
@pytest.mark.parametrize("kinds", test_map_op.KINDS)
def test_fault_maps(kinds, threshold):
    args = test_map_op.arguments(kinds, threshold=threshold)
    after = struck_alike(operators.rows(*args))
    given = test_map_op.gradient_arguments(args, torch.ones_like(args[0]))
    zeroed = zeroed_alike(operators.rows_zero(*given))
    assert ((zeroed == 0).any() and (after != args[0]).any()) == (threshold > 0)


@pytest.mark.parametrize("source", test_protection_op.SOURCES)
def test_protected_memories(source):
    args = test_protection_op.arguments(source)
    struck_alike(operators.memory(*args))
    zeroed_alike(operators.memory_zero(torch.ones_like(args[0]), *args[:-1]))


def test_arrays_of_processing_elements():
    x, w = torch.arange(12.0).reshape(3, 4), torch.arange(8.0).reshape(2, 4)
    acc = x @ w.T
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros((0, 8), dtype=torch.int64)
    given = (acc, x, w, *nothing, [], 1, [6, 0, 1, 0], False)
    assert not torch.equal(struck_alike(operators.sums(*given)), acc)
    changed = torch.tensor([[True, False], [False, False], [True, True]])
    assert torch.equal(zeroed_alike((acc, changed, [], [], "array")), acc.masked_fill(changed, 0))


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
                assert {"strike stream", "zero stream"} <= set(ran)
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
        on_devices.strike(*operators.stream(x.int(), *rest))
    with pytest.raises(PlanError, match=r"3 sample numbers for a tensor of shape \(2, 5, 40\)"):
        on_devices.strike(*operators.stream(x[:2], *rest))
    with pytest.raises(PlanError, match=r"a scale of shape \(5, 40\)"):
        on_devices.strike(*operators.stream(x, *rest[:3], torch.ones(5, 40), *rest[4:]))


def test_captures_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with FakeTensorMode():
        x = torch.empty(2, 3, device="cuda")
    struck = lambda: by_cpu.strike_by_cpu(STREAM, (), x)  # noqa: E731
    for run in (struck, lambda: by_cpu.zero_by_cpu(STREAM, (), x, None), lambda: by_cpu.entirely(None, x)):
        with pytest.raises(PlanError, match="cannot be captured in a CUDA graph: protected memories, arrays"):
            run()


def test_every_operator_is_there_for_devices():
    for name in ("strike", "zero"):
        for key in ("CUDA", "XPU", "MPS"):
            assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"hwfault::{name}", key), (name, key)


def test_what_comes_back_is_on_the_device():
    """As compilers see it."""

    def moved(argument):
        if isinstance(argument, list | tuple):
            return [moved(one) for one in argument]
        is_tensor = isinstance(argument, torch.Tensor)
        return torch.empty(argument.shape, dtype=argument.dtype, device="cuda") if is_tensor else argument

    for arguments_here in (operators.stream(*arguments()), operators.memory(*test_protection_op.arguments())):
        with FakeTensorMode():
            assert {t.device.type for t in strike(*moved(arguments_here))} == {"cuda"}
