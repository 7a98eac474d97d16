"""What autograd keeps: sample numbers, and a reference to the input where the outcome depends on it; nothing else."""

import gc
import weakref

import pytest
import torch

from hwfault.injection.attach import inject
from tests.benchmarks.network import kept_for_backward, peak
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import FAULTS
from tests.helpers.torch_ops import operators
from tests.torch_ops.test_ops import PROGRAMS, arguments, on_grid

NEVER_READS = ["bits", "random", "lsb", "msb", "full", "clusters", "rows"]


def kept(run):
    """The tensors that autograd packs while `run` runs."""
    packed = []

    def pack(tensor):
        packed.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = run()
    return packed, out


@pytest.mark.parametrize("name", NEVER_READS)
def test_the_operator_keeps_no_values(name):
    x = on_grid((8, 500)).requires_grad_()
    args = arguments(name, x=x)
    packed, _ = kept(lambda: operators.inject(*args))
    assert {t.data_ptr() for t in packed} <= {t.data_ptr() for t in args[1:6]}


@pytest.mark.parametrize("name", ["asymmetric", "stuck"])
def test_the_operator_keeps_a_reference_to_its_input_where_the_outcome_depends_on_it(name):
    x = on_grid((8, 500)).requires_grad_()
    args = arguments(name, x=x)
    packed, out = kept(lambda: operators.inject(*args))
    big = [t for t in packed if t.numel() > 100 and t.data_ptr() not in {a.data_ptr() for a in args[1:6]}]
    assert [t.data_ptr() for t in big] == [x.data_ptr()]
    assert out.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("name", PROGRAMS)
def test_straight_through_keeps_nothing(name):
    packed, _ = kept(lambda: operators.inject(*arguments(name, x=on_grid().requires_grad_(), straight_through=True)))
    assert packed == []


def test_strided_inputs_are_not_copied_to_be_kept():
    x = on_grid((6, 8, 50)).requires_grad_()
    args = arguments("asymmetric", x=x.transpose(0, 1))
    packed, _ = kept(lambda: operators.inject(*args))
    assert x.data_ptr() in {t.data_ptr() for t in packed}
    assert not [t for t in packed if t.numel() == x.numel() and t.data_ptr() != x.data_ptr()]


def test_the_input_is_let_go_unless_it_is_needed():
    for name, needed in (("bits", False), ("asymmetric", True)):
        x = on_grid().requires_grad_() * 1
        out = operators.inject(*arguments(name, x=x))
        reference = weakref.ref(x.untyped_storage())
        del x
        gc.collect()
        assert (reference() is not None) == needed, name
        del out


def storages(model, x):
    """Bytes of the distinct storages that autograd keeps of a forward in training, floating ones and others apart."""
    model.train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    packed, _ = kept(lambda: model(x))
    found = {t.untyped_storage().data_ptr(): t for t in packed if t.untyped_storage().data_ptr() not in own}
    sizes = {True: [], False: []}
    for t in found.values():
        sizes[t.is_floating_point()].append(t.untyped_storage().nbytes())
    return sizes[True], sizes[False]


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_no_value_more_than_without_faults(name, gradient):
    model, x = build(name), batch(64)
    storages(model, x)  # Brevitas' scales may still be made in the first forward
    clean, other = storages(model, x)
    with inject(model, [f for key in ("bits", "msb") for f in FAULTS[key]], seed=1, gradient=gradient) as injection:
        struck, numbers = storages(model, x)
        programs = sum(8 * len(injection.plan.program(name)) for name in injection.plan.names)
    calls = 2 * len(injection.plan.names)  # no network runs a site more often
    if gradient == "straight_through":
        assert (sum(struck), sum(numbers)) == (sum(clean), sum(other))
    # a scale and a zero point for each site
    assert 0 <= sum(struck) - sum(clean) <= 8 * calls
    # the programs, which are there anyway, the seed, the step, and the numbers of the samples
    assert sum(numbers) - sum(other) <= programs + 8 * calls + 8 * 64
    assert sum(storages(model, x)[0]) == sum(clean)


def test_what_is_kept_does_not_grow_with_the_words():
    surplus = []
    for size in (16, 512):
        model, x = build("cnn"), batch(size)
        clean = sum(map(sum, storages(model, x)))
        with inject(model, FAULTS["bits"], seed=1):
            surplus.append(sum(map(sum, storages(model, x))) - clean)
    assert surplus[1] - surplus[0] == 8 * (512 - 16)  # a number of 8 bytes for each sample, which has 136 words


def test_directed_errors_keep_references_to_values_and_no_copies():
    model, x, before = build("cnn"), batch(64), []
    clean, _ = storages(model, x)
    for proxy in (model[0].act_quant, model[1].weight_quant, model[3].act_quant, model[5].weight_quant):
        proxy.register_forward_hook(lambda _m, _a, out: before.append(out.value))
    with inject(model, FAULTS["asymmetric"], seed=1):
        packed, _ = kept(lambda: model(x))
        struck, _ = storages(model, x)
    pointers = {t.data_ptr() for t in packed}
    assert len(before) == 8
    assert all(value.data_ptr() in pointers for value in before[:4])
    assert sum(struck) - sum(clean) <= sum(4 * value.numel() + 8 for value in before[:4])


def test_the_benchmark_sees_the_same():
    model, x = build("cnn"), batch(64)
    kept_for_backward(model, x)
    clean = kept_for_backward(model, x)
    with inject(model, FAULTS["bits"], seed=1, gradient="straight_through"):
        assert abs(kept_for_backward(model, x) - clean) <= 64  # scalars come and go while it looks


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
def test_a_step_needs_no_memory_more_than_without_faults(gradient):
    """But for the numbers of the samples, and a few of each site: a mask, or values that are kept, would show."""
    surplus = []
    for size in (64, 512):
        model, x = build("residual").train(), batch(size)

        def step(model=model, x=x):
            model(x).square().sum().backward()

        step()
        clean = peak(step)
        with inject(model, FAULTS["bits"], seed=1, gradient=gradient):
            step()
            surplus.append(peak(step) - clean)
    # the samples' numbers; a mask of one byte a value would have 72 at the first site alone
    assert surplus[1] - surplus[0] <= 2 * 8 * (512 - 64)
    assert surplus[0] < 4096


def test_graphs_that_are_dropped_leave_nothing_behind():
    x = on_grid().requires_grad_()
    base = x * 1
    out = operators.inject(*arguments("asymmetric", x=base))
    reference = weakref.ref(base.untyped_storage())
    del base, out
    gc.collect()
    assert reference() is None
