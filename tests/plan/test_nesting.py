"""Which faults are nested in the rate, as docs/fault-stream.md says, and counterexamples where only hits are."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.graph.run.strike import strike_codes
from hwfault.laws.models import BitFlips, Clusters, LateBits, MapFaults, ProfileFaults, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from hwfault.stream import native
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import site_number

BITS, WORDS = 6, 2500
WEIGHT = Site(name="w", kind="weight", bit_width=BITS, signed=True, shape=(50, 50))
SUMS = Site(
    name="l.accumulator", kind="accumulator", bit_width=BITS, signed=True, shape=(10, 250), weights=(10, 4, 1),
    worst_case=BITS,
)  # fmt: skip
SEEDS = st.integers(0, 2**64 - 1)
RATES = st.tuples(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0)).map(sorted)


def struck(faults, seed, site=WEIGHT, codes=None, device=0):
    """The codes of one sample before and after all steps of the faults."""
    stored = np.random.default_rng(3).integers(0, 1 << BITS, (1, WORDS)).astype(np.uint32) if codes is None else codes
    after = stored
    for step in resolve([site], faults, device=device).steps(site.name):
        after = strike_codes(step, after, seed, np.array([0]), site.batched)
    return stored[0], after[0]


def assert_nested(milder, harsher, seed, **options):
    """Every bit that the milder faults flip the harsher ones flip, too."""
    stored, few = struck(milder, seed, **options)
    _, many = struck(harsher, seed, **options)
    assert not ((few ^ stored) & ~(many ^ stored)).any()


NESTED = {
    "symmetric flips": lambda p: BitFlips(probability=p),
    "a probability for each bit": lambda p: BitFlips(probability=tuple(p * k / BITS for k in range(1, BITS + 1))),
    "0 reads 1": lambda p: BitFlips(p01=min(p, 0.999)),
    "1 reads 0": lambda p: BitFlips(p10=min(p, 0.999)),
    "clusters along bits": lambda p: Clusters(probability=p, sizes=(0.5, 0.3, 0.2)),
    "clusters along words": lambda p: Clusters(probability=p, sizes=(0.2, 0.3, 0.5), axis="word"),
    "lowest bit": lambda p: WordFaults(probability=p, effect="lsb"),
    "highest bit": lambda p: WordFaults(probability=p, effect="msb"),
    "all bits": lambda p: WordFaults(probability=p, effect="full"),
    "a mask": lambda p: WordFaults(probability=p, effect=0b1010),
    "a transient profile": lambda p: ProfileFaults(profile="uniform-flips", at={"ber": p}),
    "a transient profile of clusters": lambda p: ProfileFaults(profile="mcu", at={"event_probability": p}),
}


@pytest.mark.parametrize("name", NESTED)
@settings(max_examples=8)
@given(RATES, SEEDS)
def test_one_process_that_does_the_same_for_every_hit(name, rates, seed):
    milder, harsher = ([NESTED[name](p)] for p in rates)
    assert_nested(milder, harsher, seed)


@settings(max_examples=8)
@given(RATES, SEEDS)
def test_late_bits_of_equal_sums(rates, seed):
    milder, harsher = ([LateBits(probability=p, bits=3)] for p in rates)
    stored, few = struck(milder, seed, SUMS)
    _, many = struck(harsher, seed, SUMS)
    changed = few != stored
    assert np.array_equal(few[changed], many[changed])


@settings(max_examples=5)
@given(RATES, SEEDS, st.integers(0, 2**64 - 1))
def test_cells_of_a_device(rates, seed, device):
    """Permanent ones whose mapping gives each bit a cell, and intermittent ones in one period."""
    for profile, spatial in (
        ("sram14-ibm-7points", None),
        ("sram14-ibm-7points", {"kind": "rows", "fill": 0.9}),
        ("sram14-ibm-7points", {"kind": "clusters", "sizes": [0.6, 0.4]}),
        ("ddr3l-retention-70c-1v35", None),
    ):
        at = {"operating_point": 0} if profile.startswith("sram") else {"refresh_interval_ms": 2048}
        faults = [[ProfileFaults(profile=profile, at=at, share=p, spatial=spatial)] for p in rates]
        assert_nested(*faults, seed, device=device)


@settings(max_examples=5)
@given(RATES, SEEDS)
def test_the_activity_of_a_measured_map(rates, seed):
    rng = np.random.default_rng(1)
    word, bit = np.nonzero(rng.random((WORDS, BITS)) < 0.2)
    cells = FaultMap.from_cells(WORDS, BITS, word, bit, rng.integers(0, 3, word.size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        cells.save(path)
        milder, harsher = ([MapFaults(file=str(path), p_active=p, refresh="inference")] for p in rates)
        assert_nested(milder, harsher, seed)


def lost(milder, harsher, seed, codes=None):
    """How many words or bits that the milder faults change the harsher ones leave, or change otherwise."""
    stored, few = struck(milder, seed, codes=codes)
    _, many = struck(harsher, seed, codes=codes)
    changed = few != stored
    return int((few[changed] != many[changed]).sum()), int(np.bitwise_count((few ^ stored) & ~(many ^ stored)).sum())


def test_two_probabilities_are_not_nested():
    """As the accepted part of a hit shrinks: by (.4936 - .4868) of the hits on stored zeros, no more and no less."""
    milder, harsher = [BitFlips(p01=0.025, p10=0.05)], [BitFlips(p01=0.05, p10=0.1)]
    zeros = np.zeros((1, WORDS), np.uint32)
    seeds = range(120)
    found = sum(lost(milder, harsher, seed, zeros)[1] for seed in seeds)
    parts = [math.log1p(-a) / math.log1p(-b) for a, b in ((0.025, 0.05), (0.05, 0.1))]
    # a cell that one hit reaches, of a kind that only the milder rate accepts, and that no further hit flips
    expected = len(seeds) * WORDS * BITS * -math.log1p(-0.05) * (parts[0] - parts[1]) * (1 - 0.025)
    assert abs(found - expected) < 5 * math.sqrt(expected)


def test_hits_are_nested_where_faults_are_not():
    place = {"seed": 5, "site": site_number("w", 0), "sample": 0, "words": WORDS, "plane": 63}
    few, many = (
        set(zip(*(part.tolist() for part in native.hits(**place, probability=h)), strict=True)) for h in (0.02, 0.2)
    )
    assert few < many


def test_random_words_are_struck_again_but_hold_another_code():
    other = 0
    for seed in range(20):
        stored, few = struck([WordFaults(probability=0.02)], seed)
        _, many = struck([WordFaults(probability=0.2)], seed)
        changed = few != stored
        assert (many[changed] != stored[changed]).all(), "the words are nested"
        other += int((few[changed] != many[changed]).sum())
    # the last of several hits stands: one more falls on a word with 1 - .8 / .98, and takes another code mostly
    expected = 20 * WORDS * 0.02 * (1 - 0.8 / 0.98)
    assert abs(other - expected) < 6 * math.sqrt(expected)


def test_two_processes_on_a_cell_may_undo_each_other():
    milder, harsher = ([BitFlips(probability=p), BitFlips(probability=p)] for p in (0.05, 0.3))
    assert lost(milder, harsher, 1)[1] > 0


def test_a_decoder_does_not_let_more_faults_through_in_order():
    """Two wrong cells are detected and read as zero, three are taken for one."""
    protection = Protection(kind="secded", data_bits=8)
    milder, harsher = (
        [ProfileFaults(profile="uniform-flips", at={"ber": p}, protection=protection)] for p in (0.05, 0.2)
    )
    assert lost(milder, harsher, 1)[1] > 0
