"""Sweeps that are taken to be nested are: what a milder point strikes a harsher one strikes; all others are named."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.graph.run.strike import strike_codes
from hwfault.laws.cell_table import Cell
from hwfault.laws.models import (
    BitFlips,
    CellFaults,
    Clusters,
    LateBits,
    MapFaults,
    ProfileFaults,
    StuckElement,
    WordFaults,
)
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.plan.nesting import why_not_nested
from hwfault.program.nesting import why_not_within
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.mapping import WeightStationary
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import ACCEPT_ALL

BITS, SHAPE = 5, (12, 10)
WEIGHT = Site(name="w", kind="weight", bit_width=BITS, signed=True, shape=SHAPE)
ACTS = Site(name="a", kind="activation", bit_width=BITS, signed=False, shape=SHAPE)
SUMS = Site(
    name="l.accumulator", kind="accumulator", bit_width=BITS, signed=True, shape=(10, 12), weights=(10, 4, 1),
    worst_case=BITS,
)  # fmt: skip
WORDS = 120
SEEDS = st.integers(0, 2**64 - 1)
RATE = st.sampled_from([0.002, 0.01, 0.03, 0.05, 0.1, 0.2, 1.0])
RATES = st.tuples(RATE, RATE).map(sorted)
SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}}
CELLS = CellFaults(cells=(Cell(site="a", word=3, bit=1, kind="stuck_1", sample=2),))

SOME_ROWS = {"kind": "rows", "fill": 0.9}
SOME_CLUSTERS = {"kind": "clusters", "sizes": [0.6, 0.4]}


def late(p):
    return [LateBits(probability=p, bits=3, sites="l.accumulator")]


def always(p, effect="msb"):
    return [WordFaults(probability=p, effect=effect, persistence="permanent", sites="w")]


NESTED = {
    "symmetric flips": lambda p: [BitFlips(probability=p)],
    "a probability for each bit": lambda p: [BitFlips(probability=tuple(p * k / BITS for k in range(1, BITS + 1)))],
    "0 reads 1": lambda p: [BitFlips(p01=p, sites="w")],
    "1 reads 0, of one activation alone": lambda p: [BitFlips(p10=p, sites="a")],
    "clusters along bits": lambda p: [Clusters(probability=p, sizes=(0.5, 0.3, 0.2))],
    "clusters along words": lambda p: [Clusters(probability=p, sizes=(0.2, 0.3, 0.5), axis="word")],
    "a mask": lambda p: [WordFaults(probability=p, effect=0b1010)],
    "one code": lambda p: [WordFaults(probability=p, effect="zero", sites="w")],
    "permanent words": always,
    "late bits": late,
    "a transient profile": lambda p: [ProfileFaults(profile="uniform-flips", at={"ber": p})],
    "rows of a device": lambda p: [ProfileFaults(**SRAM, share=p, spatial=SOME_ROWS)],
    "clusters of a device": lambda p: [ProfileFaults(**SRAM, share=p, spatial=SOME_CLUSTERS)],
    "one site each": lambda p: [BitFlips(probability=p, sites="w"), Clusters(probability=p / 2, sites="a")],
    "one that stays": lambda p: [BitFlips(probability=p, sites="w"), WordFaults(probability=0.1, effect=1, sites="a")],
}


def plans(make, rates, sites=(WEIGHT, ACTS, SUMS), device=0):
    return [resolve(list(sites), make(rate), device=device) for rate in rates]


def stored(site):
    return np.random.default_rng(len(site.name)).integers(0, 1 << BITS, (1, WORDS)).astype(np.uint32)


def struck(plan, site, seed):
    """The bits (words,) that differ after all steps of a plan on one sample."""
    codes = stored(site)
    for step in plan.steps(site.name):
        codes = strike_codes(step, codes, seed, np.array([0]), site.batched)
    return codes[0] ^ stored(site)[0]


def listed(plan, site, seed):
    """The cells that the listing names as struck, word by word and bit by bit (-1: the word as a whole)."""
    cells = set()
    for hit in faults_at(plan, site.name, seed=seed, codes=stored(site)[0]):
        along = re.search(r"flips (\d+) along bit", hit.effect)
        bits = [-1] if hit.bit is None else range(hit.bit, hit.bit + (int(along[1]) if along else 1))
        cells |= {(word, bit) for word in range(hit.word, hit.word + hit.length) for bit in bits}
    return cells


@pytest.mark.parametrize("name", NESTED)
@settings(max_examples=2)
@given(RATES, SEEDS, st.integers(0, 2**64 - 1))
def test_what_is_taken_to_be_nested_is(name, rates, seed, device):
    check(name, rates, seed, device)


@pytest.mark.slow
@pytest.mark.parametrize("name", NESTED)
@settings(max_examples=60)
@given(RATES, SEEDS, st.integers(0, 2**64 - 1))
def test_what_is_taken_to_be_nested_is_at_length(name, rates, seed, device):
    check(name, rates, seed, device)


def check(name, rates, seed, device):
    milder, harsher = plans(NESTED[name], rates, device=device)
    assert why_not_nested([milder, harsher]) is None
    for entry in milder.sites:
        few, many = (struck(plan, entry.site, seed) for plan in (milder, harsher))
        assert not (few & ~many).any()
        assert listed(milder, entry.site, seed) <= listed(harsher, entry.site, seed)
    if rates[0] < rates[1] / 2 and milder.tables != harsher.tables:
        assert why_not_nested([harsher, milder]) is not None


def test_a_rate_of_zero_and_one_are_ends():
    assert why_not_nested(plans(NESTED["symmetric flips"], (0.0, 0.0, 0.1, 1.0, 1.0))) is None
    assert why_not_nested(plans(NESTED["0 reads 1"], (0.0, 0.5, 1.0))) is None
    assert "nothing strikes it at a harsher point" in why_not_nested(plans(NESTED["symmetric flips"], (0.1, 0.0)))
    assert "its rate falls" in why_not_nested(plans(NESTED["symmetric flips"], (1.0, 0.5)))


def test_where_every_cell_is_hit_all_hits_must_be_taken():
    """Their hits have other numbers there, so that half of them are another half; no law makes such a plan."""
    half = ACCEPT_ALL // 2
    found = []
    for rate in (0.1, 0.2, 1.0):
        plan = resolve([WEIGHT], [BitFlips(probability=rate)])
        (process,) = plan.sites[0].processes
        found.append((process.model_copy(update={"accept01": (half,) * BITS, "accept10": (half,) * BITS}), plan.tables))
    (few, tables), (more, more_tables), (every, all_tables) = found
    assert why_not_within(few, tables, more, more_tables) is None
    assert "which hits are taken" in why_not_within(few, tables, every, all_tables)


def of_map(folder, **given):
    word, bit = np.nonzero(np.random.default_rng(1).random((WORDS, BITS)) < 0.1)
    path = folder / "m.safetensors"
    FaultMap.from_cells(WORDS, BITS, word, bit, np.ones(word.size, int)).save(path)
    return MapFaults(file=str(path), sites="w", **given)


ARRAY = WeightStationary(rows=2, columns=2)
CODED = Protection(kind="secded", data_bits=8)


def stuck(p):
    return [StuckElement(mapping=ARRAY, element=[0, 0], bit=0, value=1, sites="l.accumulator")]


REFUSED = {
    "p01 and p10 differ": lambda p: [BitFlips(p01=p / 2, p10=p, sites="w")],
    "makes another code of it": lambda p: [WordFaults(probability=p)],
    "2 processes strike the same words": lambda p: [BitFlips(probability=p), BitFlips(probability=p)],
    "decoder": lambda p: [ProfileFaults(profile="uniform-flips", at={"ber": p}, protection=CODED, sites="w")],
    "its rate falls": lambda p: [BitFlips(probability=0.3 - p)],
    "a hit does something else": lambda p: [Clusters(probability=p, sizes=(1 - p, p))],
    "or do something else, at a harsher point": lambda p: always(0.2, int(100 * p)),
    "another process strikes there": lambda p: [(BitFlips if p < 0.1 else Clusters)(probability=p)],
    "faults of other sites may change that code": lambda p: [BitFlips(p10=p)],
    "nothing strikes it": lambda p: [BitFlips(probability=p, sites="w" if p < 0.1 else "a")],
    "more faulty elements": stuck,
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_is_not_nested_is_named(told):
    why = why_not_nested(plans(REFUSED[told], (0.05, 0.2)))
    assert told in why
    assert re.match(r"(w|a|l\.accumulator): ", why)


def test_cells_that_come_and_go(tmp_path):
    milder, harsher = (resolve([WEIGHT], [of_map(tmp_path, p_active=p, refresh="epoch")]) for p in (0.1, 0.4))
    assert "its faulty cells come and go" in why_not_nested([milder, harsher])
    assert why_not_nested([milder, milder]) is None
    by_batch = resolve([WEIGHT], [of_map(tmp_path, p_active=0.5)])
    assert "change with the batch" in why_not_nested([by_batch, by_batch])
    always = resolve([WEIGHT], [of_map(tmp_path)])
    assert why_not_nested([always, always]) is None


def test_cells_of_single_samples():
    there = resolve(
        [WEIGHT, ACTS], [BitFlips(probability=0.1, sites="w"), CELLS.model_copy(update={"cells": CELLS.cells})]
    )
    assert "faults of other sites may change that code" in why_not_nested([there, there])
    flips = CELLS.model_copy(update={"cells": (CELLS.cells[0].model_copy(update={"kind": "flip"}),)})
    other = CELLS.model_copy(update={"cells": (CELLS.cells[0].model_copy(update={"kind": "flip", "word": 9}),)})
    alone, moved = (resolve([WEIGHT, ACTS], [cells]) for cells in (flips, other))
    assert why_not_nested([alone, alone]) is None
    assert "cells of single samples change" in why_not_nested([alone, moved])
