"""Words that a type does not hold, and values that are no numbers: struck as integers, told as they are.

The integers of biases are taken from Brevitas' own quantizer; what a plan makes of codes from the reference.
"""

import json

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat, Int32Bias, Uint8ActPerTensorFloat
from torch import nn

from hwfault.codes import CodeFormat, integers
from hwfault.errors import PlanError
from hwfault.graph.export.of_network import export
from hwfault.injection.attach import inject
from hwfault.injection.site_statistics import SiteStatistics
from hwfault.injection.statistics import Statistics
from hwfault.laws.models import BitFlips, MapFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.notes import note_on, notes_on
from hwfault.program.processes import Site
from hwfault.proof.replay import replay
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.reference import inject_codes
from hwfault.torch_ops.codec import check_codes_known, comes_back

BIAS = "1.bias_quant"
WORDS = 500


def network(bias_quant=Int32Bias):
    torch.manual_seed(0)
    first = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True)
    model = nn.Sequential(first, qnn.QuantLinear(16, WORDS, bias=True, bias_quant=bias_quant))
    model(torch.randn(8, 16))
    return model.eval()


class Codes:
    """An observer of one site that takes codes."""

    def __init__(self, site=BIAS):
        self.site, self.seen = site, []

    def __call__(self, name, before, after, scale, zero_point, codes_before, codes_after):
        if name == self.site:
            self.seen.append([t.clone() for t in (before, after, scale, zero_point, codes_before, codes_after)])


def stuck(folder, words=WORDS, share=0.1):
    """A map of a device whose bits are stuck at 0, and its rows."""
    rng = np.random.default_rng(3)
    word, bit = np.nonzero(rng.random((words, 32)) < share)
    rows = FaultMap.from_cells(words, 32, word, bit, [Kind.STUCK_AT_0] * word.size)
    rows.save(folder / "device.safetensors")
    return MapFaults(file=str(folder / "device.safetensors"), sites=BIAS), rows


def nearest(codes, scale):
    """The float32 values of codes of 32 bits: a product of two float32 numbers."""
    q = integers(codes.astype(np.uint32), CodeFormat(32, True)).astype(np.float32)
    return q * scale.numpy().astype(np.float32)


def test_steps_of_a_wide_site_hand_on_integers(tmp_path):
    """Flips, then cells stuck at 0: what is left is what both make of the codes, to every bit of 32."""
    model, seen = network(), Codes()
    mapped, rows = stuck(tmp_path)
    faults = [BitFlips(probability=0.1, sites=BIAS), mapped]
    plan = resolve(sites(model), faults)
    assert len(plan.steps(BIAS)) == 2
    x = torch.randn(2, 16)
    with torch.no_grad(), inject(model, plan, seed=4, observe=seen):
        model(x)
    before, after, scale, _, old, new = seen.seen[0]
    assert old.dtype == new.dtype == torch.int64
    own = torch.round(model[1].bias.detach().double() / scale.double()).long() & 0xFFFFFFFF
    assert torch.equal(old, own)
    flipped = inject_codes(
        old.numpy().astype(np.uint32), program=plan.steps(BIAS)[0].program, seed=4, sample=0, bit_width=32
    )
    expected = flipped.copy()
    expected[rows.word] = (flipped[rows.word] & rows.and_mask) ^ rows.xor_mask
    np.testing.assert_array_equal(new.numpy(), expected)
    changed = new != old
    assert 0.5 < changed.double().mean() <= 1
    np.testing.assert_array_equal(after[changed].numpy(), nearest(expected, scale)[changed.numpy()])
    assert torch.equal(after[~changed], before[~changed])


@pytest.mark.parametrize("several", [False, True])
def test_gradients_are_zero_where_codes_changed_and_nowhere_else(several, tmp_path):
    model, seen = network().train(), Codes()
    model[0].eval()
    faults = [BitFlips(probability=0.01, sites=BIAS), *([stuck(tmp_path, share=0.01)[0]] if several else [])]
    with inject(model, faults, seed=4, observe=seen):
        model(torch.randn(2, 16)).sum().backward()
    changed = seen.seen[0][4] != seen.seen[0][5]
    assert 50 < changed.sum() < 400
    assert torch.equal(model[1].bias.grad == 0, changed)


def test_a_word_that_is_flipped_and_put_back_passes_its_gradient_on(tmp_path):
    """A flip of bit 0 of zeros, then that bit stuck at 0: every code is what it was."""
    word = np.arange(40)
    FaultMap.from_cells(40, 4, word, word * 0, [Kind.STUCK_AT_0] * 40).save(tmp_path / "m.safetensors")
    faults = [
        BitFlips(probability=[1.0, 0, 0, 0]),
        MapFaults(file=str(tmp_path / "m.safetensors"), sites="0.act_quant"),
    ]
    plan = resolve([Site(name="0.act_quant", kind="activation", bit_width=4, signed=False, shape=(40,))], faults)
    quantizer = qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, bit_width=4, return_quant_tensor=True)
    model = nn.Sequential(quantizer).eval()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x = (torch.arange(40) % 16).repeat(2, 1).to(dtype).requires_grad_()
        with inject(model, plan, seed=1) as injection:
            injection.clock.tick(model)
            out = injection.strike("0.act_quant", x, torch.tensor(1.0), torch.tensor(0.0))
        out.sum().backward()
        even = (torch.arange(40) % 2 == 0).repeat(2, 1)
        assert torch.equal(out.detach(), torch.where(even, x, x - 1))
        assert torch.equal(x.grad == 1, even)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_types_lose_no_fault(dtype):
    """8 and 11 bit words at .02 a bit: as many words of each plane change as are drawn, in codes and statistics."""
    bits = 8 if dtype == torch.bfloat16 else 11
    site = Site(name="0.act_quant", kind="activation", bit_width=bits, signed=False, shape=(5000,))
    plan = resolve([site], [BitFlips(probability=0.02)])
    act = qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat, bit_width=bits, return_quant_tensor=True)
    model, statistics = nn.Sequential(act).eval(), Statistics(plan)
    q = torch.randint(0, 2**bits, (2, 5000), generator=torch.Generator().manual_seed(1))
    scale = torch.tensor(0.0123)
    x = (q.float() * scale).to(dtype)
    with inject(model, plan, seed=1, observe=statistics) as injection:
        injection.clock.tick(model)
        injection.strike("0.act_quant", x, scale, torch.tensor(0.0))
    program = plan.program("0.act_quant")
    zeros = np.zeros(5000, np.uint32)
    drawn = [inject_codes(zeros, program=program, seed=1, sample=n, bit_width=bits) for n in (0, 1)]
    expected = [sum(int((row >> b & 1).sum()) for row in drawn) for b in range(bits)]
    assert list(statistics.read()[0].flips) == expected


def test_values_that_do_not_tell_their_codes_are_refused():
    """Brevitas holds integers beyond 2^24 as float32 numbers: which of their lower bits are stored nobody knows."""
    model = network()
    with torch.no_grad():
        model[1].bias[7] = 1e3
    faults = [BitFlips(probability=0.01, sites=BIAS)]
    with inject(model, faults, seed=1), pytest.raises(PlanError, match=r"the values of '1\.bias_quant' do not tell"):
        model(torch.randn(2, 16))
    with torch.no_grad():
        model[1].bias[7] = 1.0
    with inject(model, faults, seed=1):
        model(torch.randn(2, 16))


@pytest.mark.parametrize(("value", "told"), [(2**24 - 1, True), (2**24, False), (-(2**24), False), (2**24 + 2, True)])
def test_either_neighbour_may_have_the_same_value(value, told):
    """float32 numbers lie one apart below 2^24 and two apart above: there 2^24 + 1 is rounded to even, and to 2^24."""
    given = torch.tensor([float(value)]), torch.tensor(1.0), torch.tensor(0.0), CodeFormat(28, True)
    if told:
        check_codes_known("w", *given)
    else:
        with pytest.raises(PlanError, match="the values of 'w' do not tell their codes"):
            check_codes_known("w", *given)


@pytest.mark.parametrize(
    ("bits", "signed", "always"), [(22, False, True), (23, True, True), (23, False, False), (24, True, False)]
)
def test_the_widest_words_whose_values_always_tell_their_codes(bits, signed, always):
    """Without a zero point: two roundings, to a value and of the quotient, are less than half a step up to 2^22."""
    fmt = CodeFormat(bits, signed)
    rng = np.random.default_rng(1)
    q = np.unique(np.concatenate([rng.integers(fmt.low, fmt.high + 1, 2000), fmt.high - np.arange(2000), [fmt.low]]))
    q, zero, refused = torch.from_numpy(q), torch.tensor(0.0), 0
    for scale in torch.exp2(torch.linspace(-9, 3, 97)):
        x = q.float() * scale
        read = torch.round(x / scale).long()
        try:
            check_codes_known("a", x, scale, zero, fmt)
        except PlanError:
            refused += 1
            assert not torch.equal(read, q)
        else:
            assert torch.equal(read, q)
    assert (refused == 0) == always


def test_large_values_off_the_grid_tell_no_code():
    scale, zero, fmt = torch.tensor(1.0), torch.tensor(0.0), CodeFormat(24, True)
    check_codes_known("a", torch.tensor([2.0**21, 2.0**19 + 0.25]), scale, zero, fmt)
    with pytest.raises(PlanError, match="the values of 'a' do not tell their codes"):
        check_codes_known("a", torch.tensor([2.0**21 + 0.25]), scale, zero, fmt)


def test_what_comes_back():
    assert comes_back(torch.float64, 32)
    assert comes_back(torch.float32, 20)
    assert not comes_back(torch.float32, 21)
    assert not comes_back(torch.bfloat16, 4)


STRANGE = (0, 3, 17, 18)


@pytest.mark.parametrize("probability", [[0.3, 0.3, 0.3, 0.3], None], ids=["flips", "one way"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_no_number_stays_with_its_gradient(dtype, probability):
    flips = BitFlips(probability=probability) if probability else BitFlips(p01=0.3, p10=0.1)
    site = Site(name="0.act_quant", kind="activation", bit_width=4, signed=True, shape=(100,))
    act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4, return_quant_tensor=True)
    model, statistics = nn.Sequential(act).eval(), Statistics([site])
    x = (torch.arange(200).reshape(2, 100) % 16 - 8).to(dtype) * 0.5
    x[0, list(STRANGE)] = torch.tensor([float("nan"), float("inf"), -float("inf"), float("nan")], dtype=dtype)
    for observe in (None, statistics):
        given = x.clone().requires_grad_()
        with inject(model, resolve([site], [flips]), seed=2, observe=observe) as injection:
            injection.clock.tick(model)
            out = injection.strike("0.act_quant", given, torch.tensor(0.5), torch.tensor(0.0))
        out.backward(torch.ones_like(out))
        kept, was = out.detach()[0, list(STRANGE)], x[0, list(STRANGE)]
        assert torch.equal(kept.isnan(), was.isnan())
        assert torch.equal(kept[1:3], was[1:3])
        changed = (out.detach() != x) & x.isfinite()
        assert 20 < changed.sum() < 190
        assert torch.equal(given.grad == 0, changed)
        assert (given.grad[~changed] == 1).all()
    (record,) = statistics.read()
    assert (record.words, record.no_numbers, record.faulty) == (200, 4, int(changed.sum()))
    assert SiteStatistics.from_data(json.loads(json.dumps(record.to_data()))) == record


def test_five_parameters_are_still_enough():
    model, seen = network(), []
    with inject(model, [BitFlips(probability=0.01)], seed=1, observe=lambda *given: seen.append(len(given))):
        model(torch.randn(2, 16))
    assert set(seen) == {5}


def test_a_note_says_what_the_type_cannot_hold():
    found = sites(network())
    assert notes_on(found).keys() == {BIAS}
    assert "32 bits" in notes_on(found)[BIAS]
    assert note_on(Site(name="a", kind="accumulator", bit_width=32, signed=True)) is None


def test_replay_of_wide_words_is_exact_and_says_so():
    model = network()
    x = torch.randn(6, 16)
    plan = resolve(sites(model), [BitFlips(probability=0.02)])
    report = replay(model, export(model, x, plan=plan), [x], seeds=[0, 1])
    (entry,) = [site for site in report.sites if site.name == BIAS]
    assert report.verdict == "pass"
    assert entry.faults_seen == entry.faults_expected > 100
    assert "nearest value" in entry.note


def test_several_kinds_of_faults_on_wide_words_are_no_graph(tmp_path):
    from hwfault.errors import GraphError

    model = network()
    plan = resolve(sites(model), [BitFlips(probability=0.02, sites=BIAS), stuck(tmp_path)[0]])
    with pytest.raises(GraphError, match=r"2 kinds of faults strike the site '1\.bias_quant'"):
        export(model, torch.randn(2, 16), plan=plan)
