"""The parts of the training benchmark: other ways to inject, networks and their float twins, what is printed."""

import brevitas.nn as qnn
import pytest
import torch
from torch import nn

import hwfault as hf
from hwfault.network.sites import sites
from tests.benchmarks import training_speed
from tests.benchmarks.cnv import batch
from tests.benchmarks.float_twin import float_twin
from tests.benchmarks.peers import Grid, draw_densely, draw_sparsely, pick_random_words, struck
from tests.benchmarks.training_networks import NETWORKS, settle
from tests.benchmarks.training_process import DENSE, FUSED_FAULTY, TWIN, VARIANTS, summary
from tests.benchmarks.training_speed import Measured, Run, conclusion, readme, runs, table

WAYS = (draw_sparsely, draw_densely, pick_random_words)
CELLS = 40_000
GRIDS = {
    "signed": Grid(torch.tensor(0.5), torch.tensor(0.0), 4, True),
    "unsigned": Grid(torch.tensor(0.25), torch.tensor(3.0), 3, False),
    "by channel": Grid(torch.tensor([0.5, 0.25]).view(2, 1), torch.tensor(0.0), 4, True),
}


def values_on(grid):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(grid.least, grid.least + (1 << grid.bits), (2, CELLS // 2), generator=generator)
    return (codes - grid.zero_point) * grid.scale


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("way", WAYS)
def test_other_ways_strike_as_often_as_they_say_and_stay_on_the_grid(way, grid):
    torch.manual_seed(0)
    values = values_on(grid)
    faulty = way(values, grid, 0.01)
    codes = faulty / grid.scale + grid.zero_point
    assert torch.equal(codes, codes.round())
    assert codes.min() >= grid.least
    assert codes.max() < grid.least + (1 << grid.bits)
    changed = int((faulty != values).sum())
    expected = CELLS * (1 - 0.99**grid.bits)
    if way is pick_random_words:  # a random integer is that of before once in 2^bits
        expected *= 1 - 0.5**grid.bits
    assert abs(changed - expected) < 5 * expected**0.5
    assert torch.equal(way(values, grid, 0.0), values)


@pytest.mark.parametrize("way", [draw_sparsely, draw_densely])
def test_bits_are_flipped_alike(way):
    torch.manual_seed(0)
    grid = GRIDS["signed"]
    values = values_on(grid)
    flips = (values * 2).int() & 15 ^ (way(values, grid, 0.01) * 2).int() & 15
    of_bits = [int((flips >> bit & 1).sum()) for bit in range(4)]
    assert all(abs(n - 0.01 * CELLS) < 5 * (0.01 * CELLS) ** 0.5 for n in of_bits)


@pytest.mark.parametrize("way", WAYS)
def test_no_gradient_passes_where_words_are_hit(way):
    torch.manual_seed(0)
    values = values_on(GRIDS["signed"]).requires_grad_()
    faulty = way(values, GRIDS["signed"], 0.05)
    faulty.sum().backward()
    assert (values.grad[faulty != values] == 0).all()
    assert 0 < int((values.grad == 0).sum()) < CELLS * 0.25
    assert set(values.grad.unique().tolist()) == {0.0, 1.0}


def test_every_quantizer_is_struck_while_the_block_lasts():
    model = settle(NETWORKS["odd ResNet-18"].build(), batch(2)).eval()
    seen = []

    def note(values, grid, probability):
        seen.append((grid.bits, grid.signed, probability))
        return values

    with struck(model, note, 0.25):
        model(batch(2))
    of_the_shared = sum(1 for name, _ in model.named_modules() if name.endswith(".shared"))
    assert len(seen) == len(sites(model)) + of_the_shared
    seen.clear()
    model(batch(2))
    assert not seen


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_fused_and_their_twins_have_their_parameters(name):
    network = NETWORKS[name]
    model, twin = settle(network.build(), batch(2)), network.build_twin()
    assert not any(isinstance(m, (qnn.QuantConv2d, qnn.QuantLinear, qnn.QuantReLU)) for m in twin.modules())
    own = sorted(p.shape for n, p in model.named_parameters() if "_quant." not in n)
    assert sorted(p.shape for p in twin.parameters()) == own
    with torch.no_grad(), hf.fused(model) as block:
        assert model.eval()(batch(2)).shape == twin.eval()(batch(2)).shape == (2, 10)
        # what attention quantizes lies transposed in memory
        assert all("attention" in left and why.endswith("in memory") for left, why in block.left.items())


def test_a_layer_without_a_known_twin_is_refused():
    with pytest.raises(TypeError, match="no float twin of QuantConvTranspose2d"):
        float_twin(nn.Sequential(qnn.QuantConvTranspose2d(2, 2, 3)))


def test_settled_networks_gather_no_statistics():
    model = settle(NETWORKS["3 bit MLP"].build(), batch(4))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(3 * batch(4))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_ratios_are_of_the_same_round():
    found = {name: [2.0, 4.0, 12.0] for name in VARIANTS} | {TWIN: [1.0, 8.0]}
    said = summary(found)
    assert said["ratios"][TWIN] == 1.25
    assert said["fastest"][TWIN] == 0.5
    assert said["milliseconds"] == 4000.0
    assert said["rounds"] == 3


def report(ratio, left=None, names=VARIANTS):
    part = {"ratios": dict.fromkeys(names, 1.5) | {FUSED_FAULTY: ratio}, "milliseconds": 12.0}
    return {"forward": part, "step": part, "fused": 7, "left": left or {}, "load": [0.5, 0.75], "extension": False}


def test_tables_and_conclusion():
    fine = Measured(Run("CNV", 8, 2), report(0.41))
    slow = Measured(Run("CNV", 8, 2, quick_ways=True), report(0.73, {"q": "a hook"}, VARIANTS[:-2]))
    lines = table([fine, slow])
    assert lines[0] == "CNV, batch 8"
    assert f"    {FUSED_FAULTY:<37}   0.410x   0.730x   (to reach: 0.52x)" in lines
    assert f"    {DENSE:<37}   1.500x        -" in lines
    assert any(line.startswith("    without the C++ extension") for line in lines)
    assert "    7 quantizers fused, left to Brevitas: none" in lines
    others = [
        Measured(Run(name, samples, 2), report(0.3))
        for name, samples in training_speed._TO_REACH
        if (name, samples) != ("CNV", 8)
    ]
    odd = Measured(Run("3 bit MLP", 1, 1), report(0.9))
    text = "\n".join(conclusion([fine, slow, *others, odd]))
    assert "forward, all: best 0.300x (CNV, batch 64, 2 threads), worst 0.900x (3 bit MLP, batch 1, 1 threads)" in text
    assert "step, not used while tuning: best 0.900x" in text
    assert "0.570x, worst of 2 processes 0.730x   (to reach: 0.52x)   MISSED" in text
    assert text.count("reached") == 6
    assert "left to Brevitas in CNV: {'q': 'a hook'}" in text


def test_the_table_for_the_readme_has_medians_of_processes():
    three = [Measured(Run("CNV", 8, 2), report(ratio)) for ratio in (0.41, 0.99)]
    three.append(Measured(Run("CNV", 8, 2, quick_ways=True), report(0.5, names=VARIANTS[:-2])))
    others = [Measured(Run("CNV", 8, 1), report(0.1)), Measured(Run("3 bit MLP", 64, 2), report(0.25))]
    rows = readme([*three, *others])[2:]
    assert rows[0].startswith("| CNV | 8 | 0.50x, 0.50x | 1.50x, 1.50x |")
    assert rows[1].startswith("| 3 bit MLP (untuned) | 64 | 0.25x, 0.25x |")
    assert len(rows) == 2


def test_every_target_is_measured_in_three_processes():
    planned = runs()
    for name, samples in training_speed._TO_REACH:
        assert sum((run[:3], run.gathering) == ((name, samples, 2), False) for run in planned) == 3
    assert {run[:3] for run in planned} >= {(n, b, t) for n in NETWORKS for b in (1, 8, 64) for t in (1, 2)}


@pytest.mark.slow
def test_a_process_that_fails_is_told():
    with pytest.raises(RuntimeError, match="invalid choice: 'nothing'"):
        training_speed.report_of(Run("nothing", 1, 1), 0.1)
