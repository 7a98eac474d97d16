"""Protected memories from the profile to the graph: plans, networks, and the same bits in onnxruntime."""

import math

import numpy as np
import pytest
import torch

from hwfault.campaigns.evaluate import evaluate
from hwfault.errors import GraphError, ModelError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.graph.run.strike import strike_codes
from hwfault.injection.attach import inject
from hwfault.injection.site_statistics import ProtectionCounts
from hwfault.laws.models import BitFlips, ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.plan.listing import faults_at
from hwfault.program.mapped import ProtectedProcess
from hwfault.program.processes import Site
from hwfault.proof.replay import replay
from hwfault.stream.mapping import FinnMvau, Linear, WeightStationary
from hwfault.stream.protection_scheme import Protection
from tests.helpers.graph.networks import batch, network
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_qonnx, copied, tidied
from tests.helpers.injection.oracle import Seen, decoded

SECDED = Protection(kind="secded", data_bits=64)
SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}}
FLIPS = {"profile": "uniform-flips", "at": {"ber": 0.02}}
EVERYWHERE = {"sites": "*"}
CASES = {
    "secded map": ProfileFaults(**SRAM, protection=SECDED),
    "parity map, due": ProfileFaults(**SRAM, protection=Protection(kind="parity", data_bits=8, on_detected="due")),
    "tmr map": ProfileFaults(**SRAM, protection=Protection(kind="tmr", data_bits=4)),
    "padded, highest bit first": ProfileFaults(
        **SRAM,
        protection=Protection(kind="secded", data_bits=32),
        mapping=Linear(row_bits=32, bit_order="msb_first", packing="padded"),
    ),
    "used again": ProfileFaults(**SRAM, protection=SECDED, mapping=Linear(row_bits=64, rows=2, tile="repeat")),
    "sign-magnitude": ProfileFaults(
        **SRAM, protection=SECDED, mapping=Linear(row_bits=64, representation="sign_magnitude")
    ),
    "everywhere": ProfileFaults(**SRAM, protection=SECDED, sites="*t_quant"),
    "transient": ProfileFaults(**FLIPS, protection=SECDED, **EVERYWHERE),
    "transient parity": ProfileFaults(**FLIPS, protection=Protection(kind="parity", data_bits=16), **EVERYWHERE),
    "retention": ProfileFaults(
        profile="ddr3l-retention-70c-1v35", at={"refresh_interval_ms": 2048}, protection=SECDED, **EVERYWHERE
    ),
}


def planned(fault, name="biased", device=3, beside=()):
    return resolve(sites(network(name), batch(name)), [fault, *beside], device=device)


@pytest.mark.every(15)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["biased", "mlp"])
def test_replay_is_exact(case, name):
    plan = planned(CASES[case], name, beside=[BitFlips(probability=0.01)])
    x = batch(name, 6)
    graph = export(network(name), x, plan=plan)
    assert plan_of(graph) == plan == FaultPlan.from_json(plan.to_json())
    report = replay(network(name), graph, torch.split(x, 3), seeds=(1, 2**63 + 5))
    assert report.verdict == "pass"
    with torch.no_grad(), inject(network(name), plan, seed=9):
        expected = network(name)(x)
    assert_same(run(session(graph), x, seed=9)[0], expected.numpy())


@pytest.mark.every(2)
@pytest.mark.parametrize("case", ["secded map", "padded, highest bit first", "transient"])
def test_qonnx_executes_them_too(case):
    x = batch("biased")
    graph = tidied(export(network("biased"), x, plan=planned(CASES[case])), len(x))
    numbers = (7, 0) if len(graph.graph.input) > 1 else ()
    assert_same(by_qonnx(graph, x, *numbers), run(session(graph), x, seed=7)[0])


def test_a_changed_cell_in_the_graph_is_refused():
    graph = copied(export(network("biased"), batch("biased"), plan=planned(CASES["padded, highest bit first"])))
    names = fault_nodes(graph)[0].node.input[8:]
    for tensor in (tensor for tensor in graph.graph.initializer if tensor.name == names[1]):
        values = np.frombuffer(tensor.raw_data, np.int64).copy()
        values[0] += 1
        tensor.raw_data = values.tobytes()
    with pytest.raises(GraphError, match="does not do what the graph's plan says"):
        plan_of(graph)


def one_site(words=4096, bits=4):
    return Site(name="a.weight_quant", kind="weight", bit_width=bits, signed=True, shape=(words // 16, 16))


def test_single_cells_are_corrected_and_the_rest_is_let_through():
    """By hand: memory words of 64 + 8 cells hold 16 words of 4 bits each, one behind the other."""
    fault = ProfileFaults(**SRAM, protection=SECDED)
    (process,) = resolve([one_site()], [fault], device=1).sites[0].processes
    assert isinstance(process, ProtectedProcess)
    word, bit, _ = process.map.cells()
    memory_word, cell = word // 4, 32 * (word % 4) + bit
    assert process.map.words == 256 * 4
    assert cell.max() < 72
    assert memory_word.max() < 256
    assert abs(len(word) - 256 * 72 * 0.0121) < 5 * math.sqrt(256 * 72 * 0.0121)


def test_two_tensors_lie_one_behind_the_other():
    second = one_site(words=160).model_copy(update={"name": "b.weight_quant"})
    fault = ProfileFaults(**SRAM, protection=SECDED)
    both, alone = (resolve(found, [fault], device=5) for found in ([one_site(), second], [one_site()]))
    first, last = (entry.processes[0].map for entry in both.sites)
    assert np.array_equal(first.word, alone.sites[0].processes[0].map.word), "the first has its faults whatever follows"
    whole = resolve([one_site(words=4096 + 160)], [fault], device=5).sites[0].processes[0].map
    behind = whole.word >= 4 * 256
    assert np.array_equal(last.word, whole.word[behind] - 4 * 256)
    assert np.array_equal(last.xor_mask, whole.xor_mask[behind])


def test_finn_memory_words_are_rows_of_a_processing_element():
    site = one_site(words=256).model_copy(update={"shape": (16, 16)})
    mapping = FinnMvau(pe=4, simd=8)  # rows of 8 inputs of 4 bits
    fault = ProfileFaults(**SRAM, protection=Protection(kind="secded", data_bits=32), mapping=mapping)
    (process,) = resolve([site], [fault], device=0).sites[0].processes
    for number, cells in zip(process.number, process.cells, strict=True):
        held = np.array(cells) // 32
        channels, inputs = held // 16, held % 16
        assert set(channels) == {number // 8 + 4 * (number % 8 // 2)}, "one channel, on one element"
        assert set(inputs // 8) == {number % 2}, "one fold of its inputs"
    with pytest.raises(ModelError, match=r"memory words of 32 bits, the protection 64 data bits"):
        resolve([site], [ProfileFaults(**SRAM, protection=SECDED, mapping=mapping)])


def test_registers_that_are_used_again_are_not_protected():
    mapping = WeightStationary(rows=4, columns=4)
    with pytest.raises(ModelError, match="give it tile: fresh"):
        resolve([one_site()], [ProfileFaults(**SRAM, protection=SECDED, mapping=mapping)])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (ProfileFaults(profile="mcu", at={"event_probability": 1e-3}, protection=SECDED), "independent cells"),
        (ProfileFaults(**FLIPS, protection=SECDED, mapping=Linear(row_bits=64, bit_order="msb_first")), "lowest bit"),
    ],
)
def test_transient_patterns_that_a_protected_memory_cannot_draw(fault, text):
    with pytest.raises(ModelError, match=text):
        resolve([one_site()], [fault])


def test_trials_tell_what_the_decoders_did():
    """In batches of three, three and two: what a decoder in plain Python makes of every batch, added up."""
    x, y = batch("mlp", 8), torch.zeros(8, dtype=torch.int64)
    parity = Protection(kind="parity", data_bits=16, on_detected="due")
    drawn = ProfileFaults(**FLIPS, protection=parity, **EVERYWHERE)
    for fault, p in ((drawn, 0.02), (CASES["parity map, due"], 0.0)):
        trials = evaluate(network("mlp"), x, y, [fault], seeds=range(3), batch_size=3)
        expected = [by_hand(fault, torch.split(x, 3), seed, p) for seed in range(3)]
        assert trials.protection == tuple(expected)
        assert trials.due == tuple(counts.detected > 0 for counts in expected)
        assert trials.summary()["detected"] == sum(counts.detected for counts in expected) > 0


def by_hand(fault, batches, seed, p):
    """The counts of a trial: of its device, at the codes that each site held before the faults."""
    plan, seen = planned(fault, "mlp", device=seed), Seen()
    with torch.no_grad(), inject(network("mlp"), plan, seed=seed, observe=seen):
        for part in batches:
            network("mlp")(part)
    ends = np.cumsum([len(part) for part in batches])
    numbers = [range(end - len(part), end) for part, end in zip(batches, ends, strict=True)]
    counts = [
        decoded(plan, call, seed, samples, p)
        for name in plan.names
        for call, samples in zip(seen.of(name), numbers, strict=True)
    ]
    return ProtectionCounts(*map(sum, zip(*counts, strict=True)))


def test_only_words_detected_under_due_are_a_due():
    x, y = batch("mlp", 8), torch.zeros(8, dtype=torch.int64)
    zeroed = evaluate(network("mlp"), x, y, [CASES["secded map"]], seeds=range(3))
    assert zeroed.due == (False,) * 3, "words that read as zero are no DUE"
    assert evaluate(network("mlp"), x, y, [BitFlips(probability=0.1)], seeds=[1]).protection == ()


def test_listing_shows_the_memory_words_cells():
    plan = resolve([one_site()], [CASES["transient"]])
    found = faults_at(plan, "a.weight_quant", seed=4, sample=0)
    assert all(f.word < 256 and f.bit < 72 for f in found)
    expected = 256 * 72 * 0.02
    assert abs(len(found) - expected) < 6 * math.sqrt(expected)
    assert {f.effect for f in found} == {"flip (memory word)"}


@pytest.mark.parametrize(("bits", "p", "share"), [(8, 0.01, 0.077255), (4, 0.01, 0.039404), (32, 0.01, 0.275020)])
def test_share_of_words_with_an_error(bits, p, share):
    """P(a word of k bits has an error) = 1 - (1 - p)^k, without protection, |z| < 5."""
    assert share == pytest.approx(1 - (1 - p) ** bits, abs=5e-7)
    words = 1 << 19
    site = Site(name="w", kind="weight", bit_width=bits, signed=False, shape=(words,))
    (step,) = resolve([site], [BitFlips(probability=p)]).steps("w")
    codes = np.zeros((1, words), np.uint32)
    struck = np.count_nonzero(strike_codes(step, codes, 11, np.zeros(1, np.int64), False))
    assert abs(struck - words * share) < 5 * math.sqrt(words * share * (1 - share))


def test_one_node_for_each_site():
    plan = planned(CASES["secded map"])
    graph = export(network("biased"), batch("biased"))
    assert len(fault_nodes(insert_faults(graph, plan))) == len(plan.names)
