"""The operators as CUDA devices run them, by Triton's interpreter on CPU tensors: the same bits as the CPU's."""

import gc
import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.helpers.stream.triton_here import OLDEST

pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.stream.cuda import launch
from hwfault.torch_ops import on_devices
from hwfault.torch_ops.strike_op import strike, zero
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import same_bits
from tests.helpers.injection.stand_in import as_on_a_device, with_triton
from tests.helpers.stream.triton_calls import INTERPRETED, fast_or
from tests.helpers.torch_ops import operators
from tests.slowly import slow
from tests.torch_ops import test_map_op
from tests.torch_ops.test_ops import DTYPES, PROGRAMS, arguments, on_grid

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="on a GPU the tensors must be there; make bench-gpu compares")
FAULTS = [BitFlips(p01=0.01, p10=0.03), WordFaults(probability=0.01, sites={"kind": "weight"})]


@pytest.fixture(autouse=True, scope="module")
def _fast():
    with fast_or(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(launch.STRIKE, "WIDE", 1024)
        patch.setitem(launch.MAP, "LANES", 1024)
        yield


def assert_strikes_alike(arguments):
    """On the device as on the CPU."""
    assert same_bits(on_devices.strike(*arguments)[0], strike(*arguments)[0])


def assert_zeros_alike(arguments):
    assert same_bits(on_devices.zero(*arguments), zero(*arguments))


@pytest.mark.every(7)
@pytest.mark.parametrize(("name", "dtype"), list(zip(PROGRAMS, itertools.cycle(DTYPES), strict=False)))
def test_values_and_gradients(name, dtype):
    args = arguments(name, x=on_grid((1, 5, 40), dtype=dtype), dtype=dtype)
    x, *draw, bits, signed, _, reads_stored = args
    given = (torch.ones_like(x), x if reads_stored else None, *draw, bits, signed)
    with with_triton(True):
        for more in ((), (2,)):
            assert_strikes_alike(operators.stream(*args, *more))
            assert_zeros_alike(operators.stream_zero(*given, *more))


@pytest.mark.parametrize("kinds", test_map_op.KINDS)
def test_fault_maps(kinds):
    args = test_map_op.arguments(kinds, threshold=test_map_op.HALF)
    given = test_map_op.gradient_arguments(args, torch.ones_like(args[0]))
    with with_triton(True):
        assert_strikes_alike(operators.rows(*args))
        assert_zeros_alike(operators.rows_zero(*given))


def test_values_that_are_no_floating_numbers():
    x, *rest = arguments()
    with (
        with_triton(True),
        pytest.raises(PlanError, match=r"values of type torch.int32, expected one of torch.float32"),
    ):
        on_devices.strike(*operators.stream(x.int(), *rest))


@pytest.mark.parametrize("name", ["asymmetric", "random"])
def test_autograd_through_the_operator(name):
    """x is kept for the backward pass where what is stored decides, and only there."""
    found = []
    for device in (False, True):
        x, *rest = arguments(name, x=on_grid((2, 5, 40)).requires_grad_())
        if device:
            with as_on_a_device(triton=True) as ran:
                operators.inject(x, *rest).square().sum().backward()
            assert ran == ["strike stream", "zero stream"]
        else:
            operators.inject(x, *rest).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)
    assert (found[0] == 0).any()


def step(model, i, run=None):
    out = (run or model)(batch(1, seed=i))
    out.square().sum().backward()
    return out.detach()


def results(model, outs):
    return [*outs, *(p.grad for p in model.parameters() if p.grad is not None)]


def trained(name="cnn", *, recomputed=False, autocast=False):
    """Outputs and gradients of two steps."""
    model = build(name).train()
    run = (lambda x: checkpoint(model, x, use_reentrant=False)) if recomputed else model
    with inject(model, FAULTS, seed=3), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return results(model, [step(model, i, run) for i in range(2)])


@pytest.mark.parametrize("name", ["compiled_soon", slow("cnn")])
@pytest.mark.parametrize(("recomputed", "autocast"), [slow(False, True), (True, False)], ids=["autocast", "recomputed"])
def test_networks_train_the_same(name, recomputed, autocast):
    """Under autocast, and with all recomputed in the backward pass, which must see the same faults."""
    expected = trained(name, autocast=autocast)
    with as_on_a_device(triton=True) as ran:
        found = trained(name, recomputed=recomputed, autocast=autocast)
    assert all(map(torch.equal, found, expected))
    assert ran.count("strike stream") >= (4 if name == "cnn" else 2) * (1 + recomputed)


@pytest.mark.filterwarnings("ignore")  # dynamo warns about itself and about Brevitas
def test_compiled_networks_are_one_graph():
    torch._dynamo.reset()
    model, twin = build("compiled_soon"), build("compiled_soon")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    try:
        with torch.no_grad(), inject(model, FAULTS, seed=3), inject(twin, FAULTS, seed=3):
            for i in range(2):
                with as_on_a_device(triton=True) as ran:
                    out = compiled(batch(1, seed=i))
                assert ran
                assert same_bits(out, twin(batch(1, seed=i)))
    finally:
        torch._dynamo.reset()


def _rank(rank, place, results_of_ranks):
    """One of two ranks that train a step together, by the device's operators or by the CPU's."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    found = []
    for device in (False, True):
        model = build("cnn").train()
        parallel = nn.parallel.DistributedDataParallel(model)
        with inject(parallel, FAULTS, seed=3) as injection:
            injection.clock.rank, injection.clock.world = rank, 2
            if device:
                with fast_or(), as_on_a_device(triton=True):
                    outs = [step(parallel, 0)]
            else:
                outs = [step(parallel, 0)]
        found.append([t.tolist() for t in results(model, outs)])
    results_of_ranks.put((rank, found))
    torch.distributed.barrier()
    del parallel, injection, model, outs
    gc.collect()  # a reducer that outlives the group may wait for its threads for ever
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    ranks = [context.Process(target=_rank, args=(rank, tmp_path / "meet", queue)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    (_, first), (_, second) = sorted(queue.get() for _ in ranks)
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert first[0][0] != second[0][0]  # faults of their own
    assert first[0][1:] == second[0][1:]  # gradients of all


@pytest.mark.parametrize(
    ("triton", "capability", "message"),
    [
        (None, (9, 0), "Triton is not installed, so that the faults of values on cuda:7 are drawn on the CPU"),
        ("3.2.0", (9, 0), r"Triton 3.2.0 is too old \(hwfault takes 3.6 or newer\)"),
        ("3.7.1+git", (7, 5), "the GPU is too old for Triton"),
        ("3.6.0", (8, 0), None),
    ],
)
def test_where_triton_is_used(monkeypatch, triton, capability, message):
    def installed(name):
        if triton is None:
            raise on_devices.PackageNotFoundError(name)
        return triton

    monkeypatch.setattr(on_devices, "version", installed)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    on_devices.has_triton.cache_clear()
    try:
        if message:
            with pytest.warns(UserWarning, match=message):
                assert not on_devices.has_triton(torch.device("cuda", 7))
        assert on_devices.has_triton(torch.device("cuda", 7)) == (message is None)  # and says it once
    finally:
        on_devices.has_triton.cache_clear()


def test_other_devices_have_no_kernels():
    on_devices.has_triton.cache_clear()
    with pytest.warns(UserWarning, match="kernels for NVIDIA GPUs only, so that the faults of values on xpu:0"):
        assert not on_devices.has_triton(torch.device("xpu", 0))
    on_devices.has_triton.cache_clear()


def test_importing_takes_no_triton():
    code = "import sys; sys.modules['triton'] = None; import hwfault.injection.attach; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert "hwfault.torch_ops.on_devices" in run.stdout.split(), run.stderr[-2000:]
    assert "hwfault.stream.cuda" not in run.stdout.split()
