"""Faults of single samples: known answers over every engine, equality on random cases, and what is refused."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from hwfault.errors import HwfaultError, ModelError
from hwfault.program.processes import SampledProcess, SitePlan
from hwfault.program.sites import Site
from hwfault.stream.fault_map import Kind
from hwfault.stream.sampled_map import SampledMap
from tests.helpers.stream.capi import RefusedError, call
from tests.helpers.stream.intermittent import MapArguments, feeds, node, plain_grid, run_in_qonnx, run_node
from tests.helpers.stream.sampled import ENGINES, EXTREME, SAMPLED, Case, arguments, case_of, known, random_case
from tests.helpers.stream.triton_here import OLDEST
from tests.helpers.torch_ops.operators import fault_map, zero_map

SAMPLES = 4


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("index", range(len(known())))
def test_known_answers(engine, index):
    vector = known()[index]
    case = case_of(vector)
    codes = case.codes(SAMPLES, index)
    expected = codes.copy()
    for element, word, before, after in vector["changed"]:
        assert codes[element, word] == before
        expected[element, word] = after
    kept = codes.copy()
    np.testing.assert_array_equal(ENGINES[engine](codes, case), expected)
    np.testing.assert_array_equal(codes, kept, err_msg="the engine changed its input")


def test_the_answers_reach_everything():
    cases = [case_of(vector) for vector in known()]
    assert {case.bit_width for case in cases} == set(range(1, 33))
    assert {kind for case in cases for *_, kind in case.cells} == {0, 1, 2}
    assert {sample for case in cases for sample, *_ in case.cells} >= set(EXTREME)
    assert sum(bool(vector["changed"]) for vector in known()) > 30


@pytest.mark.parametrize("bits", range(1, 33))
def test_every_engine_is_the_rule_on_random_cases(bits):
    rng = Random(bits)
    for _ in range(3):
        samples = rng.choice((1, 2, 5))
        case = random_case(rng, bits, samples)
        codes = case.codes(samples, bits)
        for name, engine in ENGINES.items():
            assert engine(codes, case).tolist() == case.after(codes), (name, case)


def test_triton_is_the_operator():
    pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")
    from tests.helpers.stream.triton_calls import fast_or, on_device, zero_map
    from tests.helpers.stream.triton_calls import fault_map as by_triton
    from tests.helpers.torch_ops import operators

    rng, changed = Random(3), 0
    for bits in (1, 4, 8, 31, 32):
        case = random_case(rng, bits, 3, most=60)
        case = replace(case, words=max(case.words, 1025))
        given = arguments(case.codes(3, bits), case)
        with fast_or():
            out = by_triton(*on_device(*given)).cpu()
            assert out.tolist() == case.after(case.codes(3, bits))
            gradient = torch.randn(out.shape, dtype=out.dtype)
            zeroed = zero_map(*on_device(gradient, given[0], *given[1:])).cpu()
        assert torch.equal(zeroed, operators.zero_map(gradient, *given))
        changed += int((zeroed == 0).sum())
    assert changed > 20


def test_a_batch_of_8_is_8_batches_of_one():
    case = random_case(Random(5), 7, 8, most=80)
    codes = case.codes(8)
    for name, engine in ENGINES.items():
        together = engine(codes, case)
        for i in range(8):
            alone = engine(codes[i : i + 1], replace(case, period=case.period + i))
            np.testing.assert_array_equal(alone[0], together[i], err_msg=name)
        assert (together != codes).any()


def test_no_seed_and_no_site_has_a_say():
    case = random_case(Random(6), 5, 4)
    codes = case.codes(4)
    for name, engine in ENGINES.items():
        assert engine(codes, replace(case, seed=1, site=2)).tolist() == engine(codes, case).tolist(), name


@pytest.mark.parametrize("name", ["NumPy", "C", "torch"])  # an op takes no other numbers
def test_numbers_of_samples_are_taken_mod_2_to_the_32(name):
    case = random_case(Random(6), 5, 4)
    codes = case.codes(4)
    for beyond in (2**32, 2**40, 3 * 2**61):
        later = replace(case, period=case.period + beyond)
        assert ENGINES[name](codes, later).tolist() == case.after(codes)


def test_gradients():
    case = Case(((3, 1, 0, 0), (4, 2, 1, 0)), 5, 3, 3)
    values, *rest = arguments(case.codes(3), case)
    for straight_through in (False, True):
        x = values.clone().requires_grad_()
        fault_map(x, *rest, straight_through, False).sum().backward()
        expected = torch.ones(3, 5, dtype=torch.float64)
        if not straight_through:
            expected[0, 1] = expected[1, 2] = 0
        assert torch.equal(x.grad, expected)
    without_values = zero_map(torch.ones_like(values), None, *rest)
    assert (without_values == 0).nonzero().tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": SAMPLED - 1}, "threshold is 8589934591, expected 0 to 2.32, or 2.33"),
        ({"threshold": SAMPLED + 1}, "threshold is 8589934593"),
        ({"words": 3}, "names word 4 of a tensor of 3 words"),
        ({"words": 2**31}, "samples of 2147483648 words, expected fewer than 2.31"),
    ],
)
def test_in_c_what_does_not_fit(changes, words):
    case = replace(Case(((7, 4, 0, 0),), 5, 3, 7), **changes)
    given, x = MapArguments(case, [7], plain_grid(3)), np.zeros((1, 5))
    with pytest.raises(RefusedError, match=words):
        call("apply_map", 1, x, x, given.map, given.format, 1)


def test_in_c_numbers_of_samples_are_needed():
    case = Case(((7, 4, 0, 0),), 5, 3, 7)
    given, x = MapArguments(case, None, plain_grid(3)), np.zeros((1, 5))
    with pytest.raises(RefusedError, match="pointer to the periods is null"):
        call("apply_map", 1, x, x, given.map, given.format, 1)


def test_nodes_that_are_wrong():
    case, x = Case(((7, 4, 0, 0),), 5, 3, 7), np.zeros((1, 3))
    with pytest.raises(Exception, match="names word 4 of a tensor of 3 words"):
        run_node(node(case), feeds(case, x))
    with pytest.raises(ModelError, match="the word 4, expected 0 to 2"):
        run_in_qonnx(node(case), feeds(case, x))


@pytest.mark.parametrize("refresh", ["inference", "batch", "held"])
@pytest.mark.parametrize("batched", [1, 0])
def test_nodes_choose_rows_by_the_refresh(refresh, batched):
    case = Case(((0, 0, 0, 0), (6, 1, 0, 0), (7, 2, 0, 0)), 3, 1, 6)
    x = np.zeros((2, 3) if batched else (3,))
    one = node(case, batched=batched, refresh=refresh)
    of = {0: [1, 0, 0], 6: [0, 1, 0], 7: [0, 0, 1]}
    numbers = {"inference": [6, 7], "batch": [6, 6], "held": [0, 0]}[refresh]
    expected = [of[number] for number in numbers] if batched else of[0 if refresh == "held" else 6]
    assert run_node(one, feeds(case, x)).tolist() == expected
    assert run_in_qonnx(one, feeds(case, x)).tolist() == expected


# the rows


def test_rows_of_cells():
    found = SampledMap.from_cells(9, 4, [5, 2, 5, 5], [8, 3, 8, 0], [1, 0, 3, 2], [Kind.STUCK_AT_1, 0, 1, 0])
    assert (found.sample.tolist(), found.word.tolist()) == ([2, 5, 5], [3, 0, 8])
    assert found.key.tolist() == [2 * 2**31 + 3, 5 * 2**31, 5 * 2**31 + 8]
    assert [column.tolist() for column in found.cells()] == [[2, 5, 5, 5], [3, 0, 8, 8], [0, 2, 1, 3], [0, 0, 2, 1]]
    assert found.at(5).word.tolist() == found.at(5 + 2**32).word.tolist() == [0, 8]
    assert len(found.at(4)) == 0
    assert SampledMap.from_keys(9, 4, found.key, found.and_mask, found.xor_mask) == found
    assert found != SampledMap.from_cells(9, 4, [5], [8], [1], [0])
    assert found != "a map"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (([0, 0], [1, 1]), "must ascend by sample and then word"),
        (([1, 0], [1, 1]), "must ascend by sample and then word"),
        (([-1, 0], [1, 1]), "the sample -1, expected 0 to 4294967295"),
        (([0, 2**32], [1, 1]), "the sample 4294967296"),
        (([0, 1], [1, 9]), "the word 9, expected 0 to 8"),
        (([0, 1], [-1, 1]), "the word -1"),
        (([0, 1], [1]), "shapes .2,. and .1,., expected one length"),
        (([0.0, 1.0], [1, 1]), "rows of type float64, expected integers"),
        (([0, 2**70], [1, 1]), "rows of type object"),
    ],
)
def test_rows_that_do_not_fit(columns, words):
    with pytest.raises(ModelError, match=words):
        SampledMap(4, 9, *map(np.array, columns), np.full(2, 2**32 - 1, np.uint32), np.ones(2, np.uint32))


def test_samples_of_too_many_words():
    for make in (SampledMap, SampledMap.from_cells):
        sizes = (4, 2**31) if make is SampledMap else (2**31, 4)
        with pytest.raises(ModelError, match="samples of 2147483648 words, expected fewer"):
            make(*sizes, [], [], [], [])


SITE = Site(name="s", kind="weight", bit_width=3, signed=True, shape=(5,))


def process(**changes):
    rows = {"bit_width": 3, "words": 5, "sample": [1], "word": [4], "and_mask": [2**32 - 1], "xor_mask": [2]} | changes
    return SampledProcess(fault=0, site_number=9, map=rows)


def test_processes_are_written_and_read():
    written = SitePlan(site=SITE, processes=(process(),)).model_dump(mode="json")
    assert written["processes"][0]["map"]["sample"] == [1]
    assert SitePlan(**written).processes == (process(),)
    assert process(sample=[], word=[], and_mask=[], xor_mask=[]).never(())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample": [-1]}, "not a map of single samples: the sample -1"),
        ({"sample": "1"}, "not a map of single samples"),
        ({"xor_mask": [8]}, "xor_mask has bits beyond the 3 of a word"),
        ({"bit_width": None}, "not a map of single samples"),
        ({"more": 1}, "expected bit_width, words and the lists sample, word, and_mask, xor_mask"),
    ],
)
def test_processes_that_do_not_fit(changes, words):
    with pytest.raises(ModelError, match=words):
        process(**changes)


@pytest.mark.parametrize("change", [{"bit_width": 4}, {"words": 6}])
def test_a_site_of_another_size(change):
    with pytest.raises(HwfaultError, match=r"faulty cells of \d words of \d bits for 5 words of 3 bits"):
        SitePlan(site=SITE, processes=(process(**change),))


def test_what_a_process_says():
    one = process(sample=[1, 1, 2], word=[0, 4, 4], and_mask=[2**32 - 1, 2**32 - 2, 2**32 - 3], xor_mask=[3, 2, 2])
    assert [one.changes_with(batched) for batched in (True, False)] == ["sample", "step"]
    assert not one.varies(())
    assert not one.in_each_sample(True)
    assert one.reads_stored()
    assert not process().reads_stored()
    assert one.mean(SITE, ()) == (0, 5)
    assert one.cell_kinds == (3, 1, 1)
    assert one.describe(()) == "faulty cells, each in one sample"
    (kept, gone) = (one.in_plane(bit, 0) for bit in (0, 2))
    assert [column.tolist() for column in kept.map.cells()] == [[1, 1], [0, 4], [0, 0], [0, 1]]
    assert gone is None
