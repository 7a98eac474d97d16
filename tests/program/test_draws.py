"""What a process hits: the known answers of the specification, then equality with what engines strike."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.program.draws import When, draws
from hwfault.program.mapped import MapProcess, ProtectedProcess
from hwfault.program.sites import Site
from hwfault.program.streamed import Process
from hwfault.stream import native
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import ACCEPT_ALL, accepts, encode_table, size_table
from tests.helpers.stream.programs import VECTORS

VECTORS_IN = Path(__file__).parents[1] / "stream"
CASES = range(len(VECTORS["cases"]))


def answers(name):
    return json.loads((VECTORS_IN / f"{name}.json").read_text(encoding="utf-8"))


def site_of(bits, words, kind="activation"):
    return Site(name="x", kind=kind, bit_width=bits, signed=False, shape=(words,))


def when(seed, *samples, **rest):
    return When(int(seed), np.array(samples or [0]), samples[0] if samples else 0, **rest)


def changed(before, after):
    return [[word, int(code)] for word, code in enumerate(after) if code != before[word]]


def process_of(case):
    """The process of a case of vectors.json, and its count tables."""
    own = {"fault": case["process"], "site_number": case["site_number"], "kind": case["kind"]}
    if case["kind"] == "bit":
        planes = [accepts(*p) for p in zip(case["p01"], case["p10"], strict=True)]
        rates, up, down = zip(*planes, strict=True)
        own |= {"accept01": up, "accept10": down}
    elif case["kind"] == "cluster":
        rates = case["p"]
        own |= {"axis": case["axis"], "sizes": size_table(case["sizes"])}
    else:
        rates = [case["p"]]
        own |= {"mask": case["mask"]} if case["kind"] == "mask" else {}
    return Process(tables=tuple(range(len(rates))), **own), [encode_table(rate) for rate in rates]


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("index", CASES)
def test_known_answers(index, engine):
    case = VECTORS["cases"][index]
    process, tables = process_of(case)
    codes = np.array([case["codes"]], np.uint32)
    site, at = site_of(case["bit_width"], codes.size), when(case["seed"], case["sample"])
    hits = draws(process, site, tables, at, codes.size, engine)
    after = hits.struck(codes, codes, case["bit_width"])
    assert changed(case["codes"], after[0]) == case["changed"]
    # what is said of single hits is what is left of the words: none strikes elsewhere, and each word has one
    told = hits.those(hits.changes(codes, codes, case["bit_width"]))
    words = {word + i for word, n in zip(told.word.tolist(), told.length.tolist(), strict=True) for i in range(n)}
    assert words == {word for word, _ in case["changed"]}


@pytest.mark.parametrize("index", range(len(answers("accumulators")["late"])))
def test_known_answers_of_late_bits(index):
    case = answers("accumulators")["late"][index]
    kind, number, _, mask, columns, rows, channels, inner, *table = case["program"]
    assert kind == 4
    process = Process(
        fault=0, site_number=number, kind="late", tables=(0,), mask=mask, elements=(columns, rows, channels, inner)
    )
    codes = np.array([case["codes"]], np.uint32)
    hits = draws(
        process, site_of(case["bit_width"], codes.size), [tuple(table)], when(case["seed"], case["sample"]), codes.size
    )
    assert changed(case["codes"], hits.struck(codes, codes, case["bit_width"])[0]) == case["changed"]


@pytest.mark.parametrize("index", range(len(answers("intermittent")["cases"])))
def test_known_answers_of_intermittent_cells(index):
    case = answers("intermittent")["cases"][index]
    rows = FaultMap.from_cells(case["words"], case["bit_width"], *np.array(case["cells"], np.int64).reshape(-1, 3).T)
    process = MapProcess(fault=0, site_number=case["site_number"], map=rows, threshold=case["threshold"])
    site = site_of(case["bit_width"], case["words"])
    hits = draws(process, site, [], when(case["seed"], int(case["period"])), case["words"])
    kinds = {(word, bit): kind for word, bit, kind in case["cells"]}
    found = zip(hits.word.tolist(), hits.bit.tolist(), hits.zeros.tolist(), hits.ones.tolist(), strict=True)
    flips = {0: (1, 1), 1: (0, 1), 2: (1, 0)}  # where 0 and where 1 is stored: flip, stuck at 0, stuck at 1
    expected = [(w, b, *(flip << b for flip in flips[kinds[w, b]])) for w, b in sorted(map(tuple, case["active"]))]
    assert list(found) == expected


PROTECTED = [
    case
    for case in answers("protection")["cases"]
    if (len(case["processes"]), len(case["word"]) > 0) in ((1, 0), (0, 1))
]


def protected_process(case):
    own = {"kind": case["protection"], "data_bits": case["data_bits"], "on_detected": case["on_detected"]}
    protection = Protection(**own)
    memory = protection.memory(case["slot"])
    if case["processes"]:
        (drawn,) = case["processes"]
        h, up, down = accepts(drawn["p01"], drawn["p10"])
        struck = {"tables": (0,), "accept01": up, "accept10": down, "site_number": drawn["site_number"]}
        return ProtectedProcess(fault=0, protection=protection, slot=case["slot"], **struck), [encode_table(h)]
    masks = (np.array(case[key], np.int64) for key in ("word", "and_mask", "xor_mask"))
    threshold, number = case["activity"]
    struck = {"map": FaultMap(memory.sub_word_bits, 1 << 30, *masks), "threshold": threshold, "site_number": number}
    struck |= {"number": tuple(case["number"]), "cells": tuple(map(tuple, case["cells"]))}
    return ProtectedProcess(fault=0, protection=protection, slot=case["slot"], **struck), []


def test_there_are_known_answers_of_drawn_and_mapped_memories():
    assert len([case for case in PROTECTED if case["processes"]]) >= 8
    assert len([case for case in PROTECTED if case["word"]]) >= 8


@pytest.mark.parametrize("index", range(len(PROTECTED)))
def test_known_answers_of_protected_memories(index):
    case = PROTECTED[index]
    process, tables = protected_process(case)
    codes = np.array([case["codes"]], np.uint32)
    number = case["period"] if case["word"] else case["sample"]
    hits = draws(process, site_of(case["bit_width"], codes.size), tables, when(case["seed"], number), codes.size)
    found = process.strike(hits, codes, codes, case["bit_width"])
    assert changed(case["codes"], found.codes[0]) == case["changed"]
    verdicts = {(word, verdict) for word, verdict in zip(hits.word.tolist(), found.verdicts, strict=True) if verdict}
    if not case["number"]:  # a memory word that is used again has several verdicts
        told = [verdict for _, verdict in verdicts]
        assert [told.count(verdict) for verdict in ("corrected", "detected", "miscorrected")] == case["counts"]


# equality with the native library, over everything that a process may be


@st.composite
def processes(draw, bits, words):
    kind = draw(st.sampled_from(["bit", "cluster", "mask", "random", "late"]))
    rate = st.sampled_from([0.0, 1e-3, 0.02, 0.3, 1.0])
    planes = bits if kind in ("bit", "cluster") else 1
    tables = [encode_table(draw(rate)) for _ in range(planes)]
    own = {"fault": 0, "site_number": draw(st.integers(0, 2**32 - 1)), "kind": kind, "tables": tuple(range(planes))}
    accept = st.sampled_from([0, 1, ACCEPT_ALL // 3, ACCEPT_ALL - 1, ACCEPT_ALL])
    if kind == "bit":
        own |= {
            "accept01": tuple(draw(accept) for _ in range(bits)),
            "accept10": tuple(draw(accept) for _ in range(bits)),
        }
    elif kind == "cluster":
        own |= {
            "axis": draw(st.sampled_from(["bit", "word"])),
            "sizes": tuple(sorted(draw(st.lists(accept, max_size=3)))),
        }
    elif kind in ("mask", "late"):
        own["mask"] = draw(st.integers(1, (1 << bits) - 1))
    if kind == "late":
        inner = draw(st.sampled_from([n for n in (1, 2, 3, 5) if words % n == 0]))
        own["elements"] = (draw(st.integers(1, 4)), draw(st.integers(1, 4)), words // inner, inner)
    return Process(**own), tables


@st.composite
def drawn_codes(draw):
    bits, words = draw(st.integers(1, 32)), draw(st.sampled_from([1, 30, 1023, 1026, 2050]))
    process, tables = draw(processes(bits, words))
    seed, samples = draw(st.integers(0, 2**64 - 1)), draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return process, tables, bits, seed, samples, rng.integers(0, 1 << bits, (len(samples), words)).astype(np.uint32)


@given(drawn_codes())
@settings(max_examples=60, deadline=None)
def test_draws_are_what_the_native_library_strikes(case):
    process, tables, bits, seed, samples, codes = case
    site, at = site_of(bits, codes.shape[1]), when(seed, *samples)
    expected = native.inject_codes(codes, program=process.program(tables), seed=seed, samples=samples, bit_width=bits)
    for engine in ("reference", "native"):
        hits = draws(process, site, tables, at, codes.shape[1], engine)
        np.testing.assert_array_equal(hits.struck(codes, codes, bits), expected)


def test_a_parameter_has_one_row_which_its_step_draws():
    process = Process(fault=0, site_number=5, kind="mask", tables=(0,), mask=1)
    tables = [encode_table(0.1)]
    weight, activation = site_of(4, 100, "weight"), site_of(4, 100)
    at = when(1, 3, 4, 5, step=2)
    parameter = draws(process, weight, tables, at, 100)
    assert set(parameter.row.tolist()) == {0}
    assert parameter.word.tolist() == draws(process, activation, tables, when(1, 2), 100).word.tolist()
    assert set(draws(process, activation, tables, at, 100).row.tolist()) == {0, 1, 2}


def test_clusters_end_with_their_block_their_sample_and_their_word():
    along = {"fault": 0, "site_number": 3, "kind": "cluster", "tables": (0,), "sizes": (0, 0)}  # of three cells each
    words = draws(Process(axis="word", **along), site_of(1, 1026), [(-1,)], when(1), 1026)
    lengths = dict(zip(words.word.tolist(), words.length.tolist(), strict=True))
    assert [lengths[word] for word in (0, 1021, 1022, 1023, 1024, 1025)] == [3, 3, 2, 1, 2, 1]
    bits = draws(Process(axis="bit", **along | {"tables": (0,) * 4}), site_of(4, 1), [(-1,)], when(1), 1)
    flips = dict(zip(bits.bit.tolist(), bits.zeros.tolist(), strict=True))
    assert flips == {0: 0b0111, 1: 0b1110, 2: 0b1100, 3: 0b1000}


def test_of_hits_that_replace_a_word_the_last_one_stands():
    process = Process(fault=0, site_number=3, kind="random", tables=(0,))
    codes = np.zeros((1, 40), np.uint32)
    hits = draws(process, site_of(8, 40), [encode_table(0.9)], when(1), 40)
    assert len(hits) > len(set(hits.word.tolist()))
    standing = hits.those(hits.stands)
    assert sorted(standing.word.tolist()) == sorted(set(hits.word.tolist()))
    after = hits.struck(codes, codes, 8)
    assert after[0, standing.word].tolist() == standing.codes_after(codes, codes, 8).tolist()


def test_memory_words_behind_a_sample_are_not_struck():
    rows = FaultMap.from_cells(100, 6, [0, 1, 2, 50], [0, 5, 1, 0], [0] * 4)
    process = ProtectedProcess(
        fault=0, site_number=9, protection=Protection(kind="parity", data_bits=5), slot=4, map=rows
    )
    # three words of 4 bits take three memory words of 5
    hits = draws(process, site_of(4, 3), [], when(1), 3)
    assert list(zip(hits.word.tolist(), hits.bit.tolist(), strict=True)) == [(0, 0), (1, 5), (2, 1)]
