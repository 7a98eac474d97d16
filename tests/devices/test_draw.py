"""Drawing devices: known answers, promises (nesting, polarity, rates) and refusals."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hwfault.devices.clustering import law, statistics
from hwfault.devices.draw import draw_map
from hwfault.errors import HwfaultError, ModelError
from hwfault.profiles.spatial import BlockColumn, Clusters, Independent, ProcessingElements, Rows, Spatial
from hwfault.stream.fault_map import Kind
from tests.helpers.profiles import oracle
from tests.helpers.profiles.kc705 import BLOCKS, PATTERN, RATE, cluster_statistics, drawn

CASES = json.loads(oracle.MAPS.read_text())["cases"]
NAMES = [f"{i}-{case['spatial']['kind']}" for i, case in enumerate(CASES)]
SMALL = BlockColumn(
    block_rows=64, column_period=2, block_share=0.4, dispersion=0.3, column_share=0.4, min_per_column=3, at_rate=0.004
)
PATTERNS = [
    Independent(),
    Rows(),
    Rows(fill=0.5),
    Clusters(sizes=(0.6, 0.4), along="row"),
    Clusters(sizes=(0.5, 0.0, 0.5), along="column"),
    SMALL,
    SMALL.model_copy(update={"lone_share": 0.3}),
]


def pattern(case):
    return TypeAdapter(Spatial).validate_python({k: v for k, v in case["spatial"].items() if k != "pair"})


def draw(case, **changed):
    sizes = {key: case[key] for key in ("rows", "row_bits", "name", "bit_weights")}
    settings = {**sizes, "shares": tuple(case["shares"]), "device": int(case["device"]), **changed}
    return draw_map(pattern(case), case["probability"], **settings)


def small(spatial, probability, device=0, rows=512, row_bits=8, shares=(0.2, 0.5, 0.3), **more):
    return draw_map(spatial, probability, rows=rows, row_bits=row_bits, shares=shares, device=device, name="m", **more)


def faults(fault_map):
    word, bit, kind = fault_map.cells()
    return dict(zip((word * fault_map.bit_width + bit).tolist(), kind.tolist(), strict=True))


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_known_answers(case):
    assert [list(fault) for fault in faults(draw(case)).items()] == case["faults"]


def test_columns_beyond_the_first_2_20_regions():
    """12 regions a block, so that number 2^20 is inside of one: its weights and cells are those of its own columns."""
    case = next(c for c in CASES if c["spatial"].get("lone_share") and c["bit_weights"] and c["row_bits"] == 6)
    blocks = (1 << 20) // 12 + 12
    large = case | {"rows": blocks * 64}
    ends = [*range(6), *range(blocks - 24, blocks)]
    memory = oracle.Memory(large)
    expected = {cell for cell, _ in oracle.block_column(large["spatial"], large["probability"], memory, ends)}
    word, bit, _ = draw(large).cells()
    found = word * 6 + bit
    assert set(found[np.isin(found // (64 * 6), ends)].tolist()) == expected
    assert len([cell for cell in expected if cell // (64 * 6) > 10]) > 50


@pytest.mark.parametrize("case", [c for c in CASES if len(c["faults"]) < 60], ids=lambda c: c["spatial"]["kind"])
def test_the_oracle_gives_the_known_answers(case):
    assert oracle.faults(case) == case["faults"]


def test_every_pattern_has_known_answers_with_faults():
    kinds = {case["spatial"]["kind"] for case in CASES if case["faults"]}
    assert kinds == {"independent", "rows", "clusters", "processing_elements", "block_column"}
    assert {kind for case in CASES for _, kind in case["faults"]} == set(Kind)


@pytest.mark.parametrize("case", [c for c in CASES if "pair" in c["spatial"]], ids=lambda c: str(c["row_bits"]))
def test_the_pair_is_the_best_of_the_list(case):
    found, n = law(pattern(case), case["row_bits"]), oracle.Law(case["spatial"], oracle.Memory(case))
    assert (float(found.weak_share), float(found.block_shape)) == (float(n.s), float(n.K))
    best = oracle.pair_miss(case["spatial"], case["row_bits"], n.s, n.a)
    some = np.random.default_rng(0)
    for i, digits, scale in zip(
        some.integers(1, 256, 400), some.integers(100, 1000, 400), [100, 10] * 200, strict=True
    ):
        assert best <= oracle.pair_miss(case["spatial"], case["row_bits"], i / 256, digits / scale)


@given(st.sampled_from(PATTERNS), st.integers(0, 2**64 - 1), st.floats(1e-5, 0.3), st.floats(0.01, 1))
def test_a_milder_map_is_a_subset_polarity_included(spatial, device, harsh, factor):
    mild, all_of_it = faults(small(spatial, harsh * factor, device)), faults(small(spatial, harsh, device))
    assert mild.items() <= all_of_it.items()


@given(st.integers(0, 2**64 - 1), st.floats(0.01, 1), st.floats(0.001, 1))
def test_faulty_elements_are_nested_too(device, harsh, factor):
    spatial = ProcessingElements(rows=16, columns=16)
    mild, all_of_it = (faults(small(spatial, p, device, rows=256, row_bits=24)) for p in (harsh * factor, harsh))
    assert mild.items() <= all_of_it.items()
    assert len({cell // 24 for cell in all_of_it}) == len(all_of_it)  # one bit of an element


@given(st.sampled_from(PATTERNS), st.integers(0, 2**64 - 1))
def test_stuck_cells_applied_twice_change_nothing_more(spatial, device):
    fault_map = small(spatial, 0.05, device, shares=(0.0, 0.5, 0.5))
    codes = np.random.default_rng(device).integers(0, 256, 512).astype(np.uint32)
    once = fault_map.apply(codes)
    assert np.array_equal(fault_map.apply(once), once)


@pytest.mark.parametrize("spatial", PATTERNS, ids=lambda s: s.kind)
@pytest.mark.parametrize("probability", [0.001, 0.02])
def test_as_many_faults_as_the_probability_says(spatial, probability):
    devices, cells = 60, 4096 * 8
    counts = [len(faults(small(spatial, probability, d, rows=4096))) for d in range(devices)]
    error = np.std(counts, ddof=1) / np.sqrt(devices)
    assert abs(np.mean(counts) - probability * cells) < 4 * error


@pytest.mark.parametrize("spatial", [PATTERNS[0], Rows(fill=0.4), *PATTERNS[5:]], ids=lambda s: s.kind)
def test_bit_weights_are_met(spatial):
    weights = (1.0, 3.0, 0.0, 1.0)
    bits = np.concatenate([small(spatial, 0.005, d, rows=4096, bit_weights=weights).cells()[1] for d in range(200)])
    share = np.bincount(bits, minlength=8) / len(bits)
    expected = np.array(weights * 2) / 10
    assert share[2] == share[6] == 0
    assert np.abs(share - expected).max() < 0.05


@pytest.mark.parametrize("spatial", [PATTERNS[0], PATTERNS[1], PATTERNS[3], PATTERNS[6]], ids=lambda s: s.kind)
def test_the_shares_of_kinds_are_met(spatial):
    kinds = np.concatenate([small(spatial, 0.1, d, rows=4096).cells()[2] for d in range(10)])
    share = np.bincount(kinds, minlength=3) / len(kinds)
    assert np.abs(share - [0.2, 0.5, 0.3]).max() < 5 * np.sqrt(0.25 / len(kinds))


def test_rows_fail_as_wholes():
    by_row = np.bincount(small(Rows(), 0.1).cells()[0], minlength=512)
    assert set(by_row.tolist()) == {0, 8}


def test_clusters_stay_in_their_row_and_memory():
    along_row = small(Clusters(sizes=(0.0, 0.0, 1.0), along="row"), 0.01, rows=5000, row_bits=4)
    assert set(np.bincount(along_row.cells()[0]).tolist()) <= {0, 1, 2, 3, 4}
    one_row = small(Clusters(sizes=(0.0, 0.0, 1.0), along="column"), 0.5, rows=1)
    assert 0 < len(faults(one_row)) < 8


def test_another_device_name_and_probability_one():
    maps = [small(SMALL, 0.02, device) for device in (1, 2)]
    assert faults(maps[0]).keys() != faults(maps[1]).keys()
    other = draw_map(SMALL, 0.02, rows=512, row_bits=8, shares=(0, 1, 0), device=1, name="other")
    assert faults(other).keys() != faults(maps[0]).keys()
    assert len(faults(small(Independent(), 1.0))) == len(faults(small(Rows(), 1.0))) == 4096
    who = {"drawn": "block_column", "probability": "0.02", "device": "1", "name": "m", "row_bits": "8"}
    assert maps[0].provenance == who


def test_long_rows_have_words_of_their_largest_divisor():
    wide = small(Independent(), 0.01, row_bits=128)
    assert (wide.bit_width, wide.words) == (32, 512 * 4)


@pytest.fixture(scope="module")
def devices():
    """The statistics of 100 drawn devices like the KC705."""
    found = [cluster_statistics(cells) for cells in drawn(100)]
    return {key: [s[key] for s in found] for key in found[0]}


MEASURED = {
    "faults": 1137,
    "block_share": 250 / 890,
    "dispersion": 0.0795,
    "top_10_percent": 0.817,
    "top_5_percent": 0.66,
    "column_share": 0.638,
    "lone_share": 0.147,
    "most_in_a_block": 61,
}


@pytest.mark.parametrize("key", MEASURED)
def test_drawn_devices_are_like_the_measured_one(devices, key):
    low, high = np.quantile(devices[key], [0.01, 0.99])
    assert low <= MEASURED[key] <= high
    assert abs(np.mean(devices[key]) / MEASURED[key] - 1) < 0.1


def test_the_law_meets_the_statistics_it_is_given():
    found = statistics(PATTERN, 8)
    assert found.dispersion[0] == pytest.approx(PATTERN.dispersion, rel=1e-12)
    for key in ("block_share", "column_share", "lone_share"):
        assert getattr(found, key)[0] == pytest.approx(getattr(PATTERN, key), abs=0.03)


def test_the_pattern_follows_the_measured_blocks_in_wider_rows():
    wide = draw_map(PATTERN, RATE, rows=BLOCKS * 1024, row_bits=16, shares=(0, 1, 0), device=3, name="bram")
    assert wide.bit_width == 16
    assert len(faults(wide)) == pytest.approx(RATE * BLOCKS * 1024 * 16, rel=0.4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: small(Independent(), 1.5), "1.5, expected a number in [0, 1]"),
        (lambda: small(Independent(), 0.1, device=-1), "the seed is -1"),
        (lambda: small(Independent(), 0.1, rows=0), "a memory of 0 rows of 8 bits"),
        (lambda: small(Independent(), 0.1, rows=1 << 40), "at most 2^36 cells"),
        (lambda: small(Independent(), 0.1, shares=(0.5, 0.5, 0.5)), "expected a sum of 1"),
        (lambda: small(Independent(), 0.8, bit_weights=(1, 3)), "would be 1.2, expected at most 1"),
        (lambda: small(Independent(), 0.1, bit_weights=(1, 3, 1)), "3 bit weights for rows of 8 bits"),
        (lambda: small(Independent(), 0.1, bit_weights=(0, 0)), "not all 0"),
        (lambda: small(Independent(), 0.1, row_bits=64, bit_weights=[1, *[2] * 63]), "weights that divides 32"),
        (lambda: small(Independent(), 1e-14), "too small to be drawn"),
        (lambda: small(Rows(fill=0.2), 0.5), "fill of 0.2 a probability would be 2.5"),
        (lambda: small(Clusters(sizes=(1.0,)), 0.1, bit_weights=(1, 2)), "do not go with"),
        (lambda: small(ProcessingElements(rows=2, columns=2), 0.1), "512 registers of 8 bits for an array of 2 x 2"),
        (lambda: small(SMALL, 1.0), "cannot make every cell faulty"),
        (lambda: small(SMALL.model_copy(update={"dispersion": 1e-6}), 0.9), "cannot make cells faulty"),
        (lambda: small(SMALL.model_copy(update={"block_rows": 1 << 18}), 0.5), "too often for so uneven a pattern"),
        (lambda: small(SMALL, 1e-15), "too small to be drawn"),
        (lambda: small(SMALL, 1e-5, rows=1 << 32), "more columns than the 2^28"),
        (lambda: BlockColumn(**{**SMALL.model_dump(), "column_period": 3}), "3 does not divide block_rows 64"),
        (lambda: Clusters(sizes=(0.5,)), "expected a list that sums to 1"),
    ],
)
def test_refusals(make, words):
    with pytest.raises((ModelError, HwfaultError)) as refused:
        make()
    assert words in str(refused.value)
