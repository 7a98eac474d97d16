"""Attaching leaves no trace, whatever happened in between."""

import copy
import io
from itertools import permutations

import pytest
import torch
from torch import nn

from hwfault.errors import GraphError, HwfaultError, ModelError, PlanError
from hwfault.injection.attach import Injection, inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import Seen, faulty, same_bits
from tests.helpers.injection.snapshot import snapshot

FLIPS = [BitFlips(probability=0.05)]

# Brevitas' zero points call state_dict the old way
pytestmark = pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")


@pytest.mark.parametrize("name", NETWORKS)
def test_leaving_restores_everything(name):
    model = build(name)
    model(batch())
    before, state, clean = snapshot(model), copy.deepcopy(model.state_dict()), model(batch())
    with inject(model, FLIPS, seed=1):
        assert attached(model)
        struck = model(batch())
        inside = model.state_dict()
        assert list(inside) == list(state)
        assert all(same_bits(inside[key], state[key]) for key in state)
    assert not attached(model)
    assert snapshot(model) == before
    assert not torch.equal(struck, clean)
    assert same_bits(model(batch()), clean)


def test_attaching_alone_changes_nothing_but_hooks():
    model = build("biased")
    before = snapshot(model)
    injection = inject(model, FLIPS, seed=1)
    during = snapshot(model)
    for name, module in during.items():
        assert module | {"hooks": None} == before[name] | {"hooks": None}
    injection.remove()
    assert snapshot(model) == before


def test_removing_twice_and_after_the_block():
    model = build("cnn")
    before = snapshot(model)
    with inject(model, FLIPS, seed=1) as injection:
        injection.remove()
        assert not attached(model)
        injection.remove()
    injection.remove()
    assert snapshot(model) == before


def test_without_a_block():
    model = build("cnn")
    before, clean = snapshot(model), model(batch())
    injection = inject(model, FLIPS, seed=1)
    assert isinstance(injection, Injection)
    assert not torch.equal(model(batch()), clean)
    injection.remove()
    assert snapshot(model) == before


def test_an_exception_in_the_block():
    model = build("cnn")
    before = snapshot(model)

    def block():
        with inject(model, FLIPS, seed=1):
            model(batch())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()
    assert snapshot(model) == before


def test_an_exception_in_the_forward_and_in_the_observer():
    model = build("cnn")
    before, clean = snapshot(model), model(batch())

    def broken(*_args):
        raise ZeroDivisionError

    with inject(model, FLIPS, seed=1) as injection:
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 3, 6, 6))
        injection.first_sample = 0
        struck = model(batch())
    with pytest.raises(ZeroDivisionError), inject(model, FLIPS, seed=1, observe=broken):
        model(batch())
    assert snapshot(model) == before
    assert same_bits(model(batch()), clean)
    with inject(model, FLIPS, seed=1):
        assert same_bits(model(batch()), struck)


def test_an_exception_while_attaching_leaves_no_hook():
    model = build("cnn")
    before = snapshot(model)
    for wrong in ({"seed": -1}, {"seed": 1, "gradient": "none"}):
        with pytest.raises(HwfaultError):
            inject(model, FLIPS, **wrong)
    with pytest.raises(ModelError):
        inject(model, [BitFlips(probability=0.1, sites="nowhere")], seed=1)
    assert snapshot(model) == before


def test_the_users_own_hooks_stay_and_run():
    model, ran = build("cnn"), []
    handles = [
        model.register_forward_pre_hook(lambda *_: ran.append("pre")),
        model[0].act_quant.register_forward_hook(lambda *_: ran.append("hook")),
    ]
    before = snapshot(model)
    with inject(model, FLIPS, seed=1):
        later = model[0].act_quant.register_forward_hook(lambda *_: ran.append("later"))
        model(batch())
    assert ran == ["pre", "hook", "later"]
    model(batch())
    assert ran[3:] == ["pre", "hook", "later"]
    later.remove()
    assert snapshot(model) == before
    for handle in handles:
        handle.remove()


def test_used_again_it_does_the_same():
    model, outs = build("cnn"), []
    for _ in range(3):
        with inject(model, FLIPS, seed=1):
            outs.append(model(batch()))
    assert same_bits(outs[0], outs[1])
    assert same_bits(outs[0], outs[2])


def test_two_injections_compose_in_the_order_of_attaching():
    model, first, second = build("cnn"), Seen(), Seen()
    one, two = (resolve(sites(model), f) for f in ([WordFaults(probability=0.1)], [BitFlips(p01=0.1, p10=0.02)]))
    with inject(model, one, seed=1, observe=first), inject(model, two, seed=2, observe=second):
        model(batch())
    assert len(first) == len(second) == 4
    for a, b in zip(first, second, strict=True):
        assert same_bits(a.after, faulty(one, a, 1, range(4)))
        assert same_bits(b.after, faulty(two, b, 2, range(4)))
        assert same_bits(a.after, b.before)


def test_the_same_symmetric_faults_twice_cancel():
    model = build("cnn")
    model(batch())
    clean = model(batch())
    with inject(model, FLIPS, seed=1), inject(model, FLIPS, seed=1):
        assert torch.equal(model(batch()), clean)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_injections_leave_in_any_order(order):
    model = build("cnn")
    before, seen = snapshot(model), Seen()
    injections = [inject(model, FLIPS, seed=seed, observe=seen) for seed in range(3)]
    for left, i in enumerate(order, 1):
        injections[i].remove()
        seen.clear()
        model(batch())
        assert len(seen) == 4 * (3 - left)
        assert attached(model) == (left < 3)
    assert snapshot(model) == before


def test_torchs_random_numbers_are_not_touched():
    model = build("cnn")
    state = torch.get_rng_state()
    with inject(model, FLIPS, seed=1):
        model(batch())
    assert torch.equal(torch.get_rng_state(), state)


def test_wrapped_models_are_the_users_own_inside():
    model = build("cnn")
    with inject(model, FLIPS, seed=1):
        struck = model(batch())
    parallel = nn.DataParallel(model)
    with inject(parallel, FLIPS, seed=1):
        assert attached(model)
        assert attached(parallel)
        assert same_bits(parallel(batch()), struck)
    assert not attached(model)


def test_attached_sees_injections_on_a_part():
    model = build("cnn")
    with inject(model[0], FLIPS, seed=1):
        assert attached(model)
        assert not attached(model[1])
    assert not attached(model)


def test_a_copy_made_inside_the_block_keeps_working():
    model = build("cnn")
    clean = model(batch())
    with inject(model, FLIPS, seed=1) as injection:
        struck = model(batch())
        twin = copy.deepcopy(model)
        injection.first_sample = 0
        assert same_bits(model(batch()), struck)
    assert same_bits(model(batch()), clean)
    assert twin.state_dict().keys() == model.state_dict().keys()


def test_a_state_dict_saved_inside_the_block_is_clean():
    model, other = build("biased"), build("biased", seed=1)
    file = io.BytesIO()
    with inject(model, FLIPS, seed=1):
        struck = model(batch())
        torch.save(model.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
    assert same_bits(other(batch()), model(batch()))
    assert not torch.equal(other(batch()), struck)


def test_loading_a_state_dict_inside_the_block():
    model, other = build("biased"), build("biased", seed=1)
    with inject(model, FLIPS, seed=1) as injection, inject(other, FLIPS, seed=1):
        model(batch())
        model.load_state_dict(other.state_dict())
        injection.first_sample = 0
        assert same_bits(model(batch()), other(batch()))


def test_only_the_planned_sites_are_struck():
    model, seen = build("biased"), Seen()
    chosen = [BitFlips(probability=0.2, sites=["4.*", {"kind": "bias"}])]
    with inject(model, chosen, seed=1, observe=seen):
        model(batch())
    assert [call.name for call in seen] == ["1.bias_quant", "4.weight_quant", "4.bias_quant"]


def test_faults_instead_of_a_plan():
    model = build("cnn")
    faults = (BitFlips(probability=0.05), Clusters(probability=0.01, sites={"layer": "QuantConv*"}))
    with inject(model, faults, seed=1) as injection:
        struck = model(batch())
        assert injection.plan == resolve(sites(model), faults)
    with inject(model, injection.plan, seed=1):
        assert same_bits(model(batch()), struck)
    with inject(model, FaultPlan.from_json(injection.plan.to_json()), seed=1):
        assert same_bits(model(batch()), struck)


def test_no_faults_at_all():
    model = build("cnn")
    clean = model(batch())
    with inject(model, [], seed=1):
        assert same_bits(model(batch()), clean)


def test_another_plan_takes_the_first_ones_place():
    model, seen = build("cnn"), Seen()
    with inject(model, [BitFlips(probability=0.01)], seed=1, observe=seen) as injection:
        for rate in (0.02, 0.0, 0.3):
            injection.plan = resolve(sites(model), [BitFlips(probability=rate)])
            injection.first_sample = 0
            seen.clear()
            model(batch())
            assert all(same_bits(call.after, faulty(injection.plan, call, 1, range(4))) for call in seen)
            assert any((call.after != call.before).any() for call in seen) == (rate > 0)


def test_a_plan_for_other_sites_is_refused_and_the_old_one_stays():
    model = build("cnn")
    found = sites(model)
    with inject(model, [BitFlips(probability=0.05, sites=["0.*", "3.*"])], seed=1) as injection:
        struck, plan = model(batch()), injection.plan
        more = resolve(found, [BitFlips(probability=0.05)])
        with pytest.raises(PlanError, match=r"strikes 2 sites that the attached one does not, '1.weight_quant' among"):
            injection.plan = more
        wider = resolve([s.model_copy(update={"bit_width": 7}) for s in found], FLIPS)
        with pytest.raises(PlanError, match="bit width"):
            injection.plan = wider
        assert injection.plan is plan
        injection.first_sample = 0
        assert same_bits(model(batch()), struck)


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"name": "0.act_qaunt"}, r"'0\.act_qaunt', which the network does not have: did you mean '0\.act_quant'"),
        ({"bit_width": 4}, r"\(4, True, True\), but the network has \(8, True, True\)"),
        ({"signed": False}, r"\(8, False, True\), but the network has \(8, True, True\)"),
        ({"kind": "weight"}, r"\(8, True, False\), but the network has \(8, True, True\)"),
    ],
)
def test_a_plan_for_another_network(site, words):
    model = build("cnn")
    before = snapshot(model)
    own = {"name": "0.act_quant", "kind": "activation", "bit_width": 8, "signed": True}
    plan = resolve([Site(**own | site)], FLIPS)
    with pytest.raises(PlanError, match=words):
        inject(model, plan, seed=1)
    assert snapshot(model) == before


def test_the_seed_can_be_set():
    model = build("cnn")
    with inject(model, FLIPS, seed=5):
        five = model(batch())
    with inject(model, FLIPS, seed=1) as injection:
        assert not torch.equal(model(batch()), five)
        injection.seed, injection.first_sample = 5, 0
        assert injection.seed == 5
        assert same_bits(model(batch()), five)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", None, True])
def test_seeds_that_are_none(seed):
    model = build("cnn")
    with pytest.raises(HwfaultError, match=r"the seed is .*expected an integer from 0 to 2\^64 - 1"):
        inject(model, FLIPS, seed=seed)
    with inject(model, FLIPS, seed=2**64 - 1) as injection:
        with pytest.raises(HwfaultError, match="the seed is"):
            injection.seed = seed
        assert injection.seed == 2**64 - 1


@pytest.mark.parametrize("gradient", ["", "straight", None, "Zero"])
def test_gradient_rules_that_are_none(gradient):
    with pytest.raises(HwfaultError, match=r"expected 'zero' or 'straight_through'"):
        inject(build("cnn"), FLIPS, seed=1, gradient=gradient)


def test_a_process_wider_than_the_word():
    model = build("cnn")
    with pytest.raises(ModelError, match=r"fault 0 at site '1\.weight_quant': the mask 0x10 does not fit words of 4"):
        inject(model, [WordFaults(probability=0.1, effect=16)], seed=1)
    with pytest.raises(ModelError, match="8 probabilities were given for words of 4 bits"):
        inject(model, [BitFlips(probability=[0.1] * 8)], seed=1)


def test_a_selector_without_a_site():
    with pytest.raises(ModelError, match=r"no site matches the selector '0\.act_qaunt': did you mean '0\.act_quant'"):
        inject(build("cnn"), [BitFlips(probability=0.1, sites="0.act_qaunt")], seed=1)


def test_brevitas_own_export_of_an_injected_model_is_refused():
    from brevitas.export import export_qonnx

    model = build("cnn")
    before = snapshot(model)
    with (
        inject(model, FLIPS, seed=1),
        pytest.raises(GraphError, match=r"leave the .* block .*export\(model, example, plan=plan\)"),
    ):
        export_qonnx(model, args=batch(), dynamo=False)
    assert not attached(model)
    after = snapshot(model)  # Brevitas leaves its export handlers behind
    assert all(after[name]["hooks"] == module["hooks"] for name, module in before.items())


def test_quantizers_switched_off_while_attached_are_left_alone():
    model, seen = build("binary"), Seen()
    with inject(model, FLIPS, seed=1, observe=seen):
        for proxy in (model[0].act_quant, model[1].weight_quant):
            proxy.disable_quant = True  # as Brevitas' calibration does
        model(batch())
        assert [call.name for call in seen] == [site.name for site in sites(model)]
    assert {"0.act_quant", "1.weight_quant"}.isdisjoint(call.name for call in seen)
    assert len(seen) == 4


def test_asking_a_quantizer_for_its_scale_is_no_forward():
    model, seen = build("cnn"), Seen()
    scale = model[0].act_quant.scale()
    with inject(model, FLIPS, seed=1, observe=seen) as injection:
        model(batch())
        seen.clear()
        assert torch.equal(model[0].act_quant.scale(), scale)  # Brevitas runs the quantizer on a scalar
        assert seen == []
        assert injection.first_sample == 4
