"""10^4 random cases: the native library and the onnxruntime op equal the reference, bit for bit."""

from functools import lru_cache

import numpy as np
import pytest

from hwfault.stream import native
from hwfault.stream.check import signed64
from tests.helpers.stream.cases import Draw, cases
from tests.helpers.stream.engines import by_native, by_reference, many_by_onnxruntime, session_of
from tests.helpers.stream.programs import Bit, Cluster, Mask, Random

COUNT, PARTS = 10_000, 20


def part_of(count, part):
    """A part of the cases; each part is drawn by itself, so that parts can run alone."""
    return cases(seed=part, count=count // PARTS)


@lru_cache(maxsize=PARTS)
def expected(part):
    """The draws of a part, with the reference's codes."""
    draws = [(c.codes, c.program, c.seed, c.sample, c.bit_width) for c in part_of(COUNT, part)]
    return [(draw, by_reference(*draw)) for draw in draws]


def assert_equal(found, codes, part, k):
    if not np.array_equal(found, codes):
        word = int(np.flatnonzero(found != codes)[0])
        pytest.fail(f"word {word} is {found[word]}, expected {codes[word]}, in {part_of(COUNT, part)[k]}")


@pytest.mark.every(13)
@pytest.mark.parametrize("part", range(PARTS))
def test_native_equals_the_reference(part):
    for k, (draw, codes) in enumerate(expected(part)):
        assert_equal(by_native(*draw), codes, part, k)


@pytest.mark.every(13)
@pytest.mark.parametrize("part", range(PARTS))
def test_onnxruntime_equals_the_reference(part):
    for first in range(0, COUNT // PARTS, 100):
        some = expected(part)[first : first + 100]
        found = many_by_onnxruntime([draw for draw, _ in some])
        for k, (_, codes) in enumerate(some):
            assert_equal(found[k], codes, part, first + k)


@pytest.mark.slow
def test_the_cases_reach_everything():
    drawn = [case for part in range(PARTS) for case in part_of(COUNT, part)]
    assert len(drawn) == COUNT
    assert {case.bit_width for case in drawn} == set(range(1, 33))
    assert {type(p) for case in drawn for p in case.processes} == {Bit, Cluster, Mask, Random}
    assert {len(case.processes) for case in drawn} == {0, 1, 2, 3}
    assert {p.axis for case in drawn for p in case.processes if isinstance(p, Cluster)} == {"bit", "word"}
    assert sum(case.codes.size > 1024 and case.codes.size % 1024 > 0 for case in drawn) > COUNT / 20
    assert sum(not 0 <= case.sample < 2**32 for case in drawn) > COUNT / 10
    assert {0, 2**64 - 1} <= {case.seed for case in drawn}
    rates = {p.rate for case in drawn for p in case.processes if isinstance(p, Mask | Random)}
    assert {0.0, 1.0, 1e-12, 0.999} <= rates
    draws = [(c.codes, c.program, c.seed, c.sample, c.bit_width) for c in drawn[:500]]
    assert sum((by_reference(*draw) != draw[0]).any() for draw in draws) > 200, "in too few cases does anything happen"


@pytest.mark.every(2)
@pytest.mark.parametrize("batch", [2, 5, 64])
def test_a_batch_is_its_samples_one_by_one(batch):
    draw = Draw(batch)
    for _ in range(60):
        case = draw.case()
        codes = np.stack([draw.codes(case.bit_width, case.codes.size) for _ in range(batch)])
        samples = [draw.sample() for _ in range(batch)]
        numbers = {"program": case.program, "seed": case.seed, "bit_width": case.bit_width}
        together = native.inject_codes(codes, samples=samples, **numbers)
        for element, sample in enumerate(samples):
            alone = native.inject_codes(codes[element : element + 1], samples=[sample], **numbers)[0]
            np.testing.assert_array_equal(together[element], alone)
            if element < 2:
                np.testing.assert_array_equal(
                    alone, by_reference(codes[element], case.program, case.seed, sample, case.bit_width)
                )


def test_an_onnxruntime_batch_counts_on_from_its_first_sample():
    draw = Draw(77)
    for first in (0, 5, 2**31 - 1, 2**32 - 4):
        case = draw.case()
        codes = np.stack([draw.codes(case.bit_width, case.codes.size) for _ in range(4)])
        numbers = {"seed0": np.array(signed64(case.seed)), "first_sample0": np.array(first)}
        feeds = {"x0": codes.astype(np.float64), **numbers}
        (values,) = session_of(((case.program, case.bit_width),)).run(None, feeds)
        for element in range(4):
            expected = by_reference(codes[element], case.program, case.seed, first + element, case.bit_width)
            np.testing.assert_array_equal(values[element].astype(np.uint32), expected)
