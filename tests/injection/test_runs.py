"""Quantizers and layers that run several times in a forward: each run of an activation is a tensor of its own."""

from hashlib import blake2b

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwfault.codes import CodeFormat
from hwfault.errors import ModelError, PlanError
from hwfault.injection.attach import inject
from hwfault.injection.statistics import Statistics
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.selectors import Select
from hwfault.stream.reference import hits
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import Seen, same_bits

FLIPS = [BitFlips(probability=0.1)]


class Again(nn.Module):
    """A quantizer that runs as often as it is told, on the same values."""

    def __init__(self, runs=2):
        super().__init__()
        self.q, self.runs = qnn.QuantIdentity(bit_width=8), runs

    def forward(self, x):
        return torch.stack([self.q(x) for _ in range(self.runs)])


def again(runs=2):
    model = Again(runs)
    model(torch.linspace(-1, 1, 60).reshape(4, 15))
    return model.eval()


def values(rows=4):
    return torch.linspace(-1, 1, 15 * rows).reshape(rows, 15)


def struck_codes(seen, name):
    return [call.codes(CodeFormat(8, True)) for call in seen.of(name)]


def number(key):
    return int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), "little")


def test_the_runs_are_sites_and_their_keys_are_the_specifications():
    """Known answers: BLAKE2b-4 of NAME#R#K, little endian, worked out with b2sum."""
    model = again(3)
    listed = sites(model, values())
    assert [(s.name, s.runs, s.shape) for s in listed] == [
        ("q.act_quant", 3, (15,)),
        ("q.act_quant#1", 3, (15,)),
        ("q.act_quant#2", 3, (15,)),
    ]
    plan = resolve(listed, [BitFlips(probability=0.1), WordFaults(probability=0.1)])
    found = {entry.site.name: [p.site_number for p in entry.processes] for entry in plan.sites}
    assert found == {
        name: [number(f"{name}#{k}") for k in range(2)] for name in ("q.act_quant", "q.act_quant#1", "q.act_quant#2")
    }
    assert found["q.act_quant#1"] == [0x8546E09B, 0x11BCD68E]
    assert FaultPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("example", [False, True])
def test_each_run_has_the_faults_of_its_own_key(example):
    """The words that an oracle of the stream alone names, in two forwards one after the other."""
    model, seen, x = again(3), Seen(), values()
    faults = resolve(sites(model, x), FLIPS) if example else FLIPS
    with torch.no_grad(), inject(model, faults, seed=9, observe=seen):
        model(x)
        model(x)
    for name in ("q.act_quant", "q.act_quant#1", "q.act_quant#2"):
        calls = struck_codes(seen, name)
        assert len(calls) == 2
        for forward, (before, after) in enumerate(calls):
            for row in range(4):
                draw = {"seed": 9, "site": number(f"{name}#0"), "sample": 4 * forward + row, "words": 15}
                expected = np.zeros(15, np.uint32)
                for plane in range(8):
                    expected[hits(**draw, plane=plane, probability=0.1)[0]] |= 1 << plane
                assert np.array_equal(before[row] ^ after[row], expected), (name, forward, row)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**64 - 1))
def test_batches_forwards_and_runs_do_not_depend_on_each_other(sizes, seed):
    """All samples at once are the samples in any batches, run by run, with and without an example."""
    model, x = again(2), values(sum(sizes))
    plan = resolve(sites(model, x[:1]), FLIPS)
    with torch.no_grad():
        with inject(model, plan, seed=seed):
            whole = model(x)
        for faults in (plan, FLIPS):
            with inject(model, faults, seed=seed):
                parts = [model(part) for part in torch.split(x, sizes)]
            assert same_bits(torch.cat(parts, 1), whole)


def test_runs_of_other_shapes():
    class Shrinking(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = qnn.QuantIdentity(bit_width=8)

        def forward(self, x):
            return self.q(self.q(x)[:, ::2])

    model, x, seen = Shrinking().eval(), values(), Seen()
    listed = sites(model, x)
    assert [(s.name, s.shape) for s in listed] == [("q.act_quant", (15,)), ("q.act_quant#1", (8,))]
    with torch.no_grad(), inject(model, resolve(listed, FLIPS), seed=1, observe=seen):
        model(x)
    assert [call.before.shape for call in seen] == [(4, 15), (4, 8)]


@pytest.mark.parametrize(
    ("where", "runs"),
    [
        ("q.act_quant", [0]),
        ("q.act_quant#1", [1]),
        ("q*", [0, 1, 2]),
        ("*.act_quant", [0, 1, 2]),
        ("*#2", [2]),
        ({"kind": "activation"}, [0, 1, 2]),
        ({"layer": "QuantIdentity"}, [0, 1, 2]),
        ({"index": 0}, [0, 1, 2]),
        ({"index": -1}, [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("example", [False, True])
def test_what_selectors_mean(where, runs, example):
    model, x = again(3), values()
    faults = [WordFaults(probability=1, effect="msb", sites=where)]
    clean = model(x)
    if not example and isinstance(where, str) and "#" in where:
        with pytest.raises(ModelError, match="no site matches"):
            inject(model, faults, seed=1)
        return
    faults = resolve(sites(model, x), faults) if example else faults
    with torch.no_grad(), inject(model, faults, seed=1):
        struck = [run for run, (a, b) in enumerate(zip(model(x), clean, strict=True)) if not torch.equal(a, b)]
    assert struck == runs


def test_an_index_means_the_same_with_an_example():
    """All runs of a quantizer have one place, so that a plan without an example strikes the same quantizers."""
    model = nn.Sequential(again(3), qnn.QuantIdentity(bit_width=4)).eval()
    for index, name in ((0, "0.q.act_quant"), (1, "1.act_quant"), (-1, "1.act_quant")):
        for listed in (sites(model), sites(model, values())):
            plan = resolve(listed, [BitFlips(probability=0.1, sites={"index": index})])
            assert {found.partition("#")[0] for found in plan.names} == {name}
    with pytest.raises(ModelError, match="number 2 of 2 sites"):
        resolve(sites(model, values()), [BitFlips(probability=0.1, sites={"index": 2})])


def test_a_second_run_without_an_example():
    model, x = again(2), values()
    plan = resolve(sites(model), FLIPS)
    with (
        torch.no_grad(),
        inject(model, plan, seed=1),
        pytest.raises(PlanError, match=r"'q.act_quant' runs a second time .* example"),
    ):
        model(x)


def test_a_run_that_the_example_did_not_have():
    model, x = again(2), values()
    plan = resolve(sites(model, x), FLIPS)
    once = resolve(sites(Again(1).eval(), x), FLIPS)
    model.runs = 3
    for faults, text in ((plan, "at least 3 times .* but twice"), (once, "at least 2 times .* but once")):
        with torch.no_grad(), inject(model, faults, seed=1), pytest.raises(PlanError, match=text):
            model(x)


def test_a_part_of_the_model_that_is_called_on_its_own():
    model, x = again(1), values()
    with torch.no_grad(), inject(model, FLIPS, seed=1):
        model.q(x)
        model(x)
        model.q(x)
    with inject(model, resolve(sites(model, x), FLIPS), seed=1):
        model.q(x)
        with pytest.raises(PlanError, match="call that, not parts of it"):
            model.q(x)


def test_memories_whose_addresses_a_further_run_moves_ask_for_an_example():
    model, x = nn.Sequential(again(2), qnn.QuantIdentity(bit_width=4)).eval(), values()
    model(x)
    model[0].q(x)

    def stand_in(sites, faults, device=0, **rest):
        plan = resolve(sites, faults, device=device, **rest)
        more = tuple(BitFlips(probability=0.1 / len(sites)) for _ in faults)
        return resolve(sites, more) if len(sites) > 2 else plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwfault.injection.found.resolve", stand_in)
        with torch.no_grad(), inject(model, FLIPS, seed=1) as injection:
            before = injection.plan
            with pytest.raises(PlanError, match=r"example=example"):
                model(x)
            assert injection.plan is before


def test_runs_are_switched_one_by_one():
    model, x = again(3), values()
    with torch.no_grad(), inject(model, resolve(sites(model, x), FLIPS), seed=1) as injection:
        clean = model(x)
        every = injection.plan
        injection.disable("q.act_quant#1")
        injection.first_sample = 0
        second = model(x)
        assert [torch.equal(a, b) for a, b in zip(second, clean, strict=True)] == [True, False, True]
        injection.enable("q*")
        injection.first_sample = 0
        assert torch.equal(model(x), clean)
        injection.plan = resolve(sites(model, x), [BitFlips(probability=0.1, sites="q.act_quant#2")])
        injection.first_sample = 0
        third = model(x)
        assert [torch.equal(a, b) for a, b in zip(third, clean, strict=True)] == [False, False, True]
        injection.plan = every


def test_what_was_switched_off_holds_for_runs_that_are_found_later():
    model, x = again(2), values()
    clean = model(x)
    with torch.no_grad(), inject(model, FLIPS, seed=1) as injection:
        injection.disable("*act_quant")
        assert torch.equal(model(x), clean)
        injection.enable("q.act_quant#1")
        assert not torch.equal(model(x)[1], clean[1])
        assert injection.plan.names == ("q.act_quant", "q.act_quant#1")


def test_statistics_know_runs():
    model, x = again(3), values()
    for faults, of in ((FLIPS, sites(model)), (resolve(sites(model, x), FLIPS), sites(model, x))):
        statistics = Statistics(of)
        with torch.no_grad(), inject(model, faults, seed=1, observe=statistics):
            for _ in range(3):
                model(x)
        read = {record.site: record for record in statistics.read()}
        assert list(read) == ["q.act_quant", "q.act_quant#1", "q.act_quant#2"]
        assert all(record.words == 180 for record in read.values())
        assert len({record.flips for record in read.values()}) == 3


def test_the_runs_are_independent():
    """Words that two runs have in common: as many as chance allows."""
    model, x = again(2), torch.zeros(200, 50)
    with torch.no_grad(), inject(model, [WordFaults(probability=0.1)], seed=5):
        one, other = model(x)
    both = int(((one != 0) & (other != 0)).sum())
    assert abs(both - 100) < 50  # 10,000 words at 0.01


def test_probes_with_scalars_are_no_runs():
    class Probing(Again):
        def forward(self, x):
            self.q.act_quant(torch.tensor(1.0))
            return super().forward(x)

    model, x = Probing(2).eval(), values()
    assert [site.name for site in sites(model, x)] == ["q.act_quant", "q.act_quant#1"]
    seen = Seen()
    with torch.no_grad(), inject(model, resolve(sites(model, x), FLIPS), seed=1, observe=seen):
        model(x)
    assert [call.name for call in seen] == ["q.act_quant", "q.act_quant#1"]


def test_a_path_with_the_mark_of_runs():
    model = nn.Sequential()
    model.add_module("a#1", qnn.QuantIdentity())
    with pytest.raises(PlanError, match=r"'a#1.act_quant' holds '#'.*rename"):
        sites(model)


def test_accumulators_of_each_run():
    model, x, seen = build("twice"), batch(), Seen()
    listed = sites(model, x)
    sums = {site.name: site for site in listed if site.kind == "accumulator"}
    assert sums["again.accumulator"].source == "relu.act_quant"
    assert sums["again.accumulator#1"].source == "relu.act_quant#1"
    plan = resolve(listed, [WordFaults(probability=0.5, sites="*.accumulator")])
    assert plan.names == ("again.accumulator", "again.accumulator#1")
    clean = model(x)
    with torch.no_grad(), inject(model, plan, seed=1, observe=seen):
        both = model(x)
    assert [call.name for call in seen] == list(plan.names)
    struck = [call.before != call.after for call in seen]
    assert all(part.any() for part in struck)
    assert not torch.equal(*struck)
    only = resolve(listed, [WordFaults(probability=0.5, sites="again.accumulator#1")])
    with torch.no_grad(), inject(model, only, seed=1):
        last = model(x)
    assert not same_bits(last, clean)
    assert not same_bits(last, both)


def test_accumulators_of_a_layer_that_runs_on_inputs_of_two_quantizers():
    """Each run has a width and a source of its own; before runs were sites it had none at all."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
            self.b = qnn.QuantIdentity(bit_width=3, return_quant_tensor=True)
            self.layer = qnn.QuantLinear(15, 15, bias=False, weight_bit_width=4)

        def forward(self, x):
            return self.layer(self.a(x)) + self.layer(self.b(x))

    model, x, seen = Two().eval(), values(), Seen()
    listed = [site for site in sites(model, x) if site.kind == "accumulator"]
    assert [(s.source, s.bit_width) for s in listed] == [("a.act_quant", 15), ("b.act_quant", 10)]
    flips = [BitFlips(probability=(0.0,) * 7 + (1.0,) + (0.0,) * (site.bit_width - 8)) for site in listed]
    faults = [
        flip.model_copy(update={"sites": (Select(name=site.name),)}) for flip, site in zip(flips, listed, strict=True)
    ]
    with torch.no_grad(), inject(model, resolve(sites(model, x), faults), seed=1, observe=seen):
        model(x)
    for call in seen:
        assert ((call.after - call.before).abs() == 128).all()
