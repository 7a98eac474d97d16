"""Control of an attached plan: parts of it, sites switched off, held faults, and numbers shared out over ranks."""

import gc

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from hwfault.errors import HwfaultError, PlanError
from hwfault.injection import ready
from hwfault.injection.attach import inject
from hwfault.laws.models import AccumulatorFormat, BitFlips, LateBits, MapFaults, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.fault_map import FaultMap
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import Seen, faulty, same_bits
from tests.helpers.injection.snapshot import snapshot

FAULTS = [WordFaults(probability=0.1, sites="*act*"), BitFlips(probability=0.05, sites="*weight*")]
ACTS, WEIGHTS = ["0.act_quant", "3.act_quant"], ["1.weight_quant", "5.weight_quant"]
ADDED = [AccumulatorFormat(width=10), LateBits(probability=0.2, bits=3), BitFlips(probability=0.02)]


def clean(name, x):
    return build(name)(x)


def struck_sites(seen):
    return [call.name for call in seen]


def plans(model, *factors):
    found = sites(model)
    return [resolve(found, FAULTS, factors=each) for each in factors]


@torch.no_grad()
def test_a_plan_of_fewer_sites_takes_the_first_ones_place():
    model, seen = build("cnn"), Seen()
    whole, acts, nothing = plans(model, (1, 1), (1, 0), (0, 0))
    with inject(model, whole, seed=3, observe=seen) as injection:
        struck = model(batch())
        assert sorted(struck_sites(seen)) == sorted(ACTS + WEIGHTS)
        for plan in (acts, nothing, whole, acts):
            seen.clear()
            injection.plan, injection.first_sample = plan, 0
            out = model(batch())
            assert set(struck_sites(seen)) == set(plan.names)
            assert all(same_bits(call.after, faulty(plan, call, 3, range(4))) for call in seen)
            assert injection.first_sample == 4
            assert same_bits(out, clean("cnn", batch())) == (plan is nothing)
            assert same_bits(out, struck) == (plan is whole)


def test_switching_between_plans_makes_nothing_ready_twice(monkeypatch):
    made, real = [], ready.Strike
    monkeypatch.setattr(ready, "Strike", lambda *args: made.append(args) or real(*args))
    model = build("cnn")
    whole, acts = plans(model, (1, 1), (1, 0))
    with inject(model, whole, seed=3) as injection:
        for _ in range(5):
            injection.plan = acts
            injection.plan = whole
        assert len(made) == 6
        for i in range(100):  # what was not used for long is let go
            injection.plan = resolve(sites(model), FAULTS, factors=(1, (i + 1) / 200))
        assert len(injection._prepared) <= 32


@torch.no_grad()
@pytest.mark.parametrize("name", ["cnn", "per_channel", "residual", "twice"])
def test_switched_off_it_is_the_clean_network(name):
    model, seen, faults = build(name), Seen(), [BitFlips(probability=0.05)]
    with inject(model, faults, seed=3, observe=seen) as injection:
        first = model(batch())
        injection.enabled = False
        seen.clear()
        assert not injection.enabled
        assert same_bits(model(batch()), clean(name, batch()))
        assert seen == []
        injection.enabled = True
        assert injection.first_sample == 8  # numbers run on, so that switching off changes no later fault
        injection.first_sample = 0
        assert same_bits(model(batch()), first)


@torch.no_grad()
def test_single_sites_can_be_switched_off():
    model, seen = build("cnn"), Seen()
    with inject(model, FAULTS, seed=3, observe=seen) as injection:
        injection.disable("*weight*")
        model(batch())
        assert struck_sites(seen) == ACTS
        seen.clear()
        injection.disable("0.*")
        model(batch())
        assert struck_sites(seen) == ["3.act_quant"]
        assert injection.first_sample == 8  # although the first site tells nothing any more
        seen.clear()
        injection.enable("1.*")
        injection.plan = resolve(sites(model), FAULTS)  # another plan leaves them as they are
        model(batch())
        assert sorted(struck_sites(seen)) == ["1.weight_quant", "3.act_quant"]
        seen.clear()
        injection.enable()
        model(batch())
        assert sorted(struck_sites(seen)) == sorted(ACTS + WEIGHTS)


@pytest.mark.parametrize("glob", ["x", "0.act_qaunt", "", "*bias*"])
def test_sites_to_switch_off_must_be_there(glob):
    with inject(build("cnn"), FAULTS, seed=3) as injection:
        for act in (injection.disable, injection.enable):
            with pytest.raises(PlanError, match=f"no attached site matches '{glob}'".replace("*", r"\*")):
                act(glob)


@pytest.mark.parametrize("how", ["zero", "disabled", "enabled", "plan"])
def test_sites_without_faults_cost_no_copy(how):
    """What layers are given there is the very tensor that the quantizer made, and its gradient flows as ever."""
    model, made, given = build("power_of_two").train(), [], []
    twin = build("power_of_two").train()
    rate = 0.0 if how == "zero" else 0.1
    plan = resolve(sites(model), [BitFlips(probability=rate)])
    model[0].act_quant.register_forward_hook(lambda _m, _a, out: made.append(getattr(out, "value", out)))
    with inject(model, plan, seed=3) as injection:
        model[0].act_quant.register_forward_hook(lambda _m, _a, out: given.append(getattr(out, "value", out)))
        if how == "disabled":
            injection.disable()
        injection.enabled = how != "enabled"
        if how == "plan":
            injection.plan = resolve(sites(model), [BitFlips(probability=rate)], factors=[0])
        model(batch()).square().sum().backward()
    assert given[-1] is made[-1]
    twin(batch()).square().sum().backward()
    for (key, p), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (other.grad is None), key
        assert p.grad is None or torch.equal(p.grad, other.grad), key


def test_observers_see_planned_sites_without_faults_too():
    model, seen = build("cnn"), Seen()
    with inject(model, [BitFlips(probability=0)], seed=3, observe=seen), torch.no_grad():
        model(batch())
    assert sorted(struck_sites(seen)) == sorted(ACTS + WEIGHTS)
    assert all(same_bits(call.before, call.after) for call in seen)


def added(model, *factors):
    found = sites(model, batch())
    faults = [fault.model_copy(update={"sites": AccumulatorFormat().sites}) for fault in ADDED]
    return [resolve(found, faults, factors=each) for each in factors]


@pytest.mark.every(2)
@torch.no_grad()
@pytest.mark.parametrize("name", ["biased", "mlp"])
def test_accumulators_that_drop_out_compute_as_the_clean_layer(name):
    model, x = build(name), batch()
    whole, one, nothing = added(model, (1, 1, 1), (0, 0, 1), (0, 0, 0))
    assert any(entry.site.kind == "accumulator" for entry in whole.sites)
    before = snapshot(model)
    with inject(model, whole, seed=3) as injection:
        struck = model(x)
        assert not torch.equal(struck, clean(name, x))
        injection.plan = nothing
        assert same_bits(model(x), clean(name, x))
        injection.plan, injection.enabled = whole, False
        assert same_bits(model(x), clean(name, x))
        injection.enabled = True
        injection.disable("*accumulator")
        assert same_bits(model(x), clean(name, x))
        injection.enable("*accumulator")
        injection.first_sample = 0
        assert same_bits(model(x), struck)
        injection.plan, injection.first_sample = one, 0
        only = model(x)
    with inject(build(name), one, seed=3) as other:
        assert same_bits(other._model(x), only)
    assert {k: v["hooks"] for k, v in snapshot(model).items()} == {k: v["hooks"] for k, v in before.items()}


@torch.no_grad()
def test_of_two_injections_on_an_accumulator_one_may_be_off():
    model, x = build("biased"), batch()
    (whole,) = added(model, (1, 1, 1))
    with inject(model, whole, seed=3):
        one = model(x)
    with inject(model, whole, seed=3), inject(model, whole, seed=4) as second:
        second.enabled = False
        assert same_bits(model(x), one)


@torch.no_grad()
def test_held_faults_are_at_the_same_words_of_every_sample_and_batch():
    model, seen = build("cnn"), Seen()
    masks = [WordFaults(probability=0.2, effect="msb")]
    with inject(model, masks, seed=3, observe=seen) as injection:
        assert injection.hold is None
        injection.hold = 5
        assert injection.hold == 5
        for i in range(2):
            model(batch(4, seed=i))
        calls = [seen.of(name) for name in ACTS]
        for first, second in calls:
            struck = first.before != first.after
            assert struck.any()
            assert (struck == struck[0]).all()
            assert torch.equal(struck, second.before != second.after)
            assert same_bits(first.after, faulty(injection.plan, first, 3, [5] * 4))
        seen.clear()
        injection.hold = 6
        model(batch(4))
        other = seen.of(ACTS[0])[0]
        assert not torch.equal(other.before != other.after, calls[0][0].before != calls[0][0].after)
        seen.clear()
        injection.hold = None
        assert injection.first_sample == 12  # numbers ran on meanwhile
        model(batch(4))
        assert same_bits(seen[0].after, faulty(injection.plan, seen[0], 3, range(12, 16)))


def test_held_faults_of_parameters_in_training():
    model, seen = build("cnn").train(), Seen()
    with inject(model, [WordFaults(probability=0.2, effect="msb")], seed=3, observe=seen) as injection:
        injection.hold = 5
        for i in range(3):
            model(batch(4, seed=i)).sum().backward()
        calls = seen.of("1.weight_quant")
        assert all(same_bits(call.after, calls[0].after) for call in calls)
        assert same_bits(calls[0].after, faulty(injection.plan, calls[0], 3, [], step=5))
        assert injection.clock.steps == 3


@pytest.mark.parametrize("refresh", ["inference", "batch"])
def test_held_numbers_are_the_periods_of_intermittent_faults(tmp_path, refresh):
    model, seen = build("cnn"), Seen()
    FaultMap.from_cells(600, 4, range(600), [1] * 600, [0] * 600).save(tmp_path / "m.safetensors")
    fault = MapFaults(file=str(tmp_path / "m.safetensors"), p_active=0.3, refresh=refresh)
    with inject(model, [fault], seed=3, observe=seen) as injection, torch.no_grad():
        for hold in (1, 1, 2, None):
            injection.hold = hold
            model(batch(4))
    first, again, other, running = seen.of("1.weight_quant")
    assert same_bits(first.after, again.after)
    assert not torch.equal(first.after, other.after)
    assert not torch.equal(first.after, running.after)


@pytest.mark.parametrize("number", [-1, 1.5, 2**32, 2**63, "1", True])
def test_held_numbers_that_are_none(number):
    with inject(build("cnn"), FAULTS, seed=3) as injection:
        with pytest.raises(HwfaultError, match=r"number is .*, expected an integer from 0"):
            injection.hold = number
        assert injection.hold is None


@torch.no_grad()
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_that_share_out_the_data_see_its_faults(world):
    """In evaluation sample i of the data set has its faults, whichever rank has it."""
    x, faults = batch(12), [BitFlips(probability=0.05)]
    with inject(model := build("power_of_two"), faults, seed=3):  # whose sums are exact, whatever the batch
        whole = model(x)
    for rank in range(world):
        with inject(model := build("power_of_two"), faults, seed=3) as injection:
            injection.clock.rank, injection.clock.world = rank, world
            mine = x[rank::world]
            parts = [model(part) for part in (mine[:1], mine[1:])]
        assert same_bits(torch.cat(parts), whole[rank::world])


def test_ranks_see_other_faults_in_training():
    """Number n of rank r of w is n w + r, of samples and of steps."""
    for rank in range(2):
        model, seen = build("cnn").train(), Seen()
        with inject(model, FAULTS, seed=3, observe=seen) as injection:
            injection.clock.rank, injection.clock.world = rank, 2
            for i in range(3):
                model(batch(4, seed=i)).sum().backward()
            acts, weights = seen.of("3.act_quant"), seen.of("1.weight_quant")
            for i in range(3):
                numbers = [2 * n + rank for n in range(4 * i, 4 * i + 4)]
                assert same_bits(acts[i].after, faulty(injection.plan, acts[i], 3, numbers))
                assert same_bits(weights[i].after, faulty(injection.plan, weights[i], 3, [], step=2 * i + rank))


@torch.no_grad()
def test_parameters_are_the_same_on_all_ranks_in_evaluation():
    found = []
    for rank in range(2):
        model, seen = build("cnn"), Seen()
        with inject(model, FAULTS, seed=3, observe=seen) as injection:
            injection.clock.rank, injection.clock.world = rank, 2
            model(batch())
        found.append(seen.of("1.weight_quant")[0].after)
    assert same_bits(*found)


def test_paused_forwards_do_not_count():
    model, twin = build("cnn").train(), build("cnn").train()
    outs = []
    for net, pauses in ((model, True), (twin, False)):
        with inject(net, FAULTS, seed=3) as injection:
            for i in range(3):
                outs.append(net(batch(4, seed=i)).detach())
                with injection.clock.paused():
                    assert not pauses or net.eval()(batch(7)) is not None
                net.train()
            assert (injection.clock.steps, injection.clock.next_sample(True)) == (3, 12)
    assert all(same_bits(one, two) for one, two in zip(outs[:3], outs[3:], strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_with_sites_off_and_numbers_interleaved(reentrant):
    model = build("residual").train()
    grads = []
    for recompute in (False, True):
        for p in model.parameters():
            p.grad = None
        with inject(model, [BitFlips(probability=0.05)], seed=3) as injection:
            injection.clock.rank, injection.clock.world = 1, 2
            injection.disable("stem*")
            x = batch().requires_grad_()
            stem = model.stem(x)
            injection.clock.tick(model, (x,))

            def body(value, stem=stem):
                return model.left(stem._replace(value=value)).sum()

            out = checkpoint(body, stem.value, use_reentrant=reentrant) if recompute else body(stem.value)
            out.backward()
        grads.append(model.left.weight.grad.clone())
    assert torch.equal(*grads)


@torch.inference_mode()
def test_control_in_inference_mode():
    model, x = build("cnn"), batch()
    with inject(model, FAULTS, seed=3) as injection:
        first = model(x)
        injection.hold = 2
        held = model(x)
        injection.hold, injection.enabled = None, False
        assert same_bits(model(x), clean("cnn", x))
        injection.enabled, injection.first_sample = True, 0
        assert same_bits(model(x), first)
        assert not torch.equal(held, first)


@pytest.mark.every(7)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_control_leaves_no_trace(name):
    model = build(name)
    before = snapshot(model)
    with inject(model, [BitFlips(probability=0.1)], seed=3) as injection:
        injection.hold, injection.clock.world = 3, 2
        injection.disable()
        injection.enabled = False
        injection.plan = resolve(sites(model), [BitFlips(probability=0.1)], factors=[0])
    assert snapshot(model) == before
    gc.collect()
