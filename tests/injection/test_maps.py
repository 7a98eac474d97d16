"""Permanent and intermittent faults in PyTorch: the operators on their own, and maps attached to networks."""

import copy
from functools import cache

import numpy as np
import pytest
import torch

from hwfault.codes import CodeFormat, decode, encode
from hwfault.errors import HwfaultError, ModelError, PlanError
from hwfault.graph.run.strike import strike_codes
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, MapFaults, ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import MapProcess
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.tables import site_number
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import Seen, same_bits
from tests.helpers.injection.snapshot import snapshot

REFRESHES = ("inference", "batch", "epoch", "power_cycle")
HALF = 2**31
SRAM = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})

# Brevitas' zero points call state_dict the old way
pytestmark = pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")


def rows_of(kinds, words=200, bits=4, share=0.2, seed=0):
    """A map of random cells."""
    rng = np.random.default_rng(seed)
    word, bit = np.nonzero(rng.random((words, bits)) < share)
    return FaultMap.from_cells(words, bits, word, bit, rng.choice(kinds, word.size))


def saved(folder, words, bits, cells, name="device.safetensors"):
    """A device's map of (word, bit, kind)."""
    path = folder / name
    FaultMap.from_cells(words, bits, *zip(*cells, strict=True)).save(path)
    return str(path)


@cache
def found(name):
    return tuple(site for site in sites(build(name), batch()) if site.kind != "accumulator")


def of_kind(name, *kinds):
    return [site for site in found(name) if site.kind in kinds]


@pytest.mark.parametrize("name", NETWORKS)
def test_permanent_faults_leave_the_network_as_it_was(name):
    model = build(name)
    model(batch())
    before, state, clean = snapshot(model), copy.deepcopy(model.state_dict()), model(batch())
    with inject(model, [SRAM.model_copy(update={"share": 1.0})], seed=1):
        struck = model(batch())
        assert all(same_bits(value, state[key]) for key, value in model.state_dict().items())
    assert snapshot(model) == before
    assert same_bits(model(batch()), clean)
    assert not torch.equal(struck, clean)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_site_has_the_faults_of_its_map(name):
    """Whatever kind of tensor it is: mixed steps, permanent and intermittent, against NumPy."""
    model, seen = build(name), Seen()
    with inject(model, mixed(name), seed=7, observe=seen) as injection:
        injection.first_sample = 11
        model(batch())
        plan = injection.plan
    assert {call.name for call in seen} == set(plan.names)
    for call in seen:
        assert same_bits(call.after, by_steps(plan, call, 7, range(11, 15))), call.name


def mixed(name, chosen=REFRESHES):
    """A plan of stuck cells on the weights, flips everywhere, and then cells that come and go at every site."""
    plan = resolve(found(name), [SRAM, BitFlips(probability=0.02)])
    k, entries = len(plan.faults), {entry.site.name: entry for entry in plan.sites}
    for i, site in enumerate(found(name)):
        rows = rows_of(tuple(Kind), site.words, site.bit_width, 0.1, seed=i)
        numbers = {"threshold": HALF, "refresh": chosen[i % len(chosen)], "site_number": site_number(site.name, k)}
        entry = entries[site.name]
        processes = (*entry.processes, MapProcess(fault=k, map=rows, **numbers))
        entries[site.name] = entry.model_copy(update={"processes": processes})
    return plan.model_copy(update={"sites": tuple(entries.values())})


def by_steps(plan, call, seed, samples):
    """What NumPy makes of a site's values, one step after the other, each rounding to float32."""
    site, values = plan.at(call.name).site, call.before.numpy()
    on = (call.scale.numpy(), call.zero_point.numpy())
    for step in plan.steps(call.name):
        fmt = CodeFormat(site.bit_width, site.signed, step.representation)
        codes = encode(values, *on, fmt)
        numbers = np.array(samples)
        rows = codes.reshape(len(samples) if site.batched else 1, -1)
        after = strike_codes(step, rows, seed, numbers, site.batched).reshape(codes.shape)
        values = np.where(after == codes, values, decode(after, *on, fmt))
    return torch.from_numpy(values)


def test_the_kinds_of_refresh(tmp_path):
    """inference: each sample; batch: each batch; epoch: when it is set; power cycle: never under one seed."""
    model = build("cnn")
    site = of_kind("cnn", "activation")[0]
    every = [(w, 0, 0) for w in range(site.words)]
    path = saved(tmp_path, site.words, site.bit_width, every)
    x = batch(1).repeat(3, 1, 1, 1)

    def masks(refresh):
        seen = Seen()
        fault = MapFaults(file=path, sites=[Select(name=site.name)], p_active=0.5, refresh=refresh)
        plan = resolve(found("cnn"), [fault])
        with inject(model, plan, seed=1, observe=seen) as injection:
            model(x)
            model(x)
            injection.clock.epoch = 4
            model(x)
            injection.seed = 2
            model(x)
        return [[tuple((call.after != call.before)[i].flatten().tolist()) for i in range(3)] for call in seen]

    first, second, third, other = masks("inference")
    assert len({*first, *second, *third, *other}) == 12
    runs = masks("batch")
    assert [len(set(run)) for run in runs] == [1] * 4
    assert len({run[0] for run in runs}) == 4
    first, second, third, other = masks("epoch")
    assert first == second
    assert first != third
    assert len(set(third)) == 1
    first, second, third, other = masks("power_cycle")
    assert first == second == third
    assert first != other


def test_parameters_under_inference_have_the_batchs_first_sample(tmp_path):
    model, seen = build("cnn"), Seen()
    site = of_kind("cnn", "weight")[0]
    every = [(w, b, 0) for w in range(site.words) for b in range(site.bit_width)]
    path = saved(tmp_path, site.words, site.bit_width, every)
    plan = resolve(found("cnn"), [MapFaults(file=path, sites=[Select(name=site.name)], p_active=0.5)])
    (step,) = plan.steps(site.name)
    with inject(model, plan, seed=1, observe=seen) as injection:
        for n in (3, 2):
            model(batch(n))
        injection.samples = torch.tensor([70, 5])
        model(batch(2))
        injection.samples = None
        injection.first_sample = 2**32 - 1
        model(batch(1))
    for call, period in zip(seen, (0, 3, 70, 2**32 - 1), strict=True):
        fmt = CodeFormat(site.bit_width, site.signed)
        before, after = call.codes(fmt)
        np.testing.assert_array_equal(after.ravel(), step.active(1, period).apply(before.ravel()))


def test_a_batch_without_samples():
    model = build("cnn")
    with inject(model, mixed("cnn"), seed=1) as injection:
        assert len(model(batch(0))) == 0
        injection.samples = torch.zeros(0).long()
        assert len(model(batch(0))) == 0


def test_a_batch_of_64_is_64_batches_of_one():
    model, x = build("power_of_two"), batch(64)
    plan = mixed("power_of_two", ["inference"])
    plan = plan.model_copy(update={"sites": tuple(entry for entry in plan.sites if entry.site.batched)})
    with inject(model, plan, seed=3) as injection:
        together = model(x)
        for i in range(64):
            injection.first_sample = i
            assert same_bits(model(x[i : i + 1])[0], together[i])
    assert len(torch.unique(together - model(x), dim=0)) > 32


def test_training_under_permanent_faults():
    """Weights move where they are healthy, and stand still where a stuck cell changed them."""
    model, seen = build("cnn").train(), Seen()
    plan = resolve(found("cnn"), [SRAM])
    with inject(model, plan, seed=1, observe=seen):
        model(batch()).square().sum().backward()
    call = seen.of("5.weight_quant")[0]
    gradient = model[5].weight.grad
    changed = call.after != call.before
    assert changed.any()
    assert (gradient[changed] == 0).all()
    assert (gradient[~changed] != 0).any()


def test_devices():
    """A device has its faults under every seed; without a number it is the seed's."""
    model = build("cnn")

    def outputs(**numbers):
        with inject(model, [SRAM], **numbers) as injection:
            assert injection.plan.device == numbers.get("device", numbers["seed"])
            return model(batch())

    assert same_bits(outputs(seed=1), outputs(seed=2, device=1))
    assert same_bits(outputs(seed=2**64 - 1), outputs(seed=0, device=2**64 - 1))
    assert not torch.equal(outputs(seed=1), outputs(seed=2))
    with pytest.raises(HwfaultError, match="the seed is -1"):
        inject(model, [SRAM], seed=1, device=-1)


def test_a_devices_faults_stay_when_the_seed_is_set():
    model = build("cnn")
    with inject(model, [SRAM], seed=1) as injection:
        one = model(batch())
        injection.seed, injection.first_sample = 2, 0
        assert same_bits(model(batch()), one)


def test_a_map_of_another_size(tmp_path):
    """Resolved for this network but then used where the tensor has other words."""
    model, site = build("cnn"), of_kind("cnn", "weight")[0]
    wrong = site.model_copy(update={"shape": (3, *site.shape[1:])})
    rows = rows_of(tuple(Kind), wrong.words, site.bit_width)
    plan = resolve([wrong], [SRAM])
    with (
        inject(model, plan, seed=1),
        pytest.raises(PlanError, match=rf"the fault map of '{site.name}' has {rows.words} words"),
    ):
        model(batch())


def test_activations_need_a_known_shape():
    with pytest.raises(PlanError, match=r"the shape of the site '0\.act_quant' is not known"):
        inject(build("cnn"), [SRAM.model_copy(update={"sites": (Select(kind="activation"),)})], seed=1)


def test_a_map_that_is_too_small_names_both_sizes(tmp_path):
    path = saved(tmp_path, 5, 4, [(1, 1, 1)])
    with pytest.raises(ModelError, match=r"5 words|20 cells"):
        inject(build("cnn"), [MapFaults(file=path)], seed=1)


def test_a_plan_survives_its_json():
    model, plan = build("cnn"), mixed("cnn")
    read = FaultPlan.from_json(plan.to_json())
    assert read == plan
    outs = []
    for which in (plan, read):
        with inject(model, which, seed=5):
            outs.append(model(batch()))
    assert same_bits(*outs)


@pytest.mark.filterwarnings("ignore")  # dynamo warns about itself and about Brevitas
def test_compiled_networks_have_the_same_faults():
    plan = mixed("compiled_soon")
    model = build("compiled_soon")
    with torch.no_grad(), inject(model, plan, seed=3):
        plain = model(batch())
    with torch.no_grad(), inject(model, plan, seed=3):
        assert same_bits(torch.compile(model, backend="aot_eager")(batch()), plain)
    torch._dynamo.reset()
