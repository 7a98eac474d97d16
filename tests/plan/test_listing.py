"""The listed faults of a site are the hits, each with what it does to the code."""

import json

import numpy as np
import pytest

from hwfault.errors import HwfaultError, PlanError
from hwfault.laws.models import BitFlips, Clusters, MapFaults, WordFaults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.plan.listing import faults_at, with_addresses, word_effect
from hwfault.program.processes import Site
from hwfault.stream import hits
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.reference import inject_codes
from hwfault.stream.tables import site_number

ACT = Site(name="a", kind="activation", bit_width=4, signed=False, shape=(3, 10, 50))


def listed(fault, **draw):
    return faults_at(resolve([ACT], [fault]), "a", **{"seed": 1, "sample": 2, **draw})


def test_faults_are_the_hits_in_order():
    plan = resolve([ACT], [BitFlips(probability=[0.1, 0, 0.01, 0]), WordFaults(probability=0.02)])
    found = faults_at(plan, "a", seed=3, sample=4)
    expected = []
    for process, plane, p in ((0, 0, 0.1), (0, 2, 0.01), (1, 63, 0.02)):
        numbers = {"seed": 3, "site": site_number("a", process), "sample": 4, "words": 1500}
        word, aux = hits(**numbers, plane=plane, probability=p, engine="reference")
        bit = None if plane == 63 else plane
        expected += [(process, w, bit, a) for w, a in zip(word.tolist(), aux.tolist(), strict=True)]
    assert [(f.process, f.word, f.bit, f.aux) for f in found] == expected
    assert len(found) > 150


def test_symmetric_flips():
    assert {f.effect for f in listed(BitFlips(probability=0.1))} == {"flip"}


@pytest.mark.parametrize("fault", [BitFlips(p01=0.1, p10=0.07), BitFlips(p01=0.1), BitFlips(p10=0.1)])
def test_effects_of_directed_flips_are_what_happens(fault):
    plan = resolve([ACT], [fault])
    for stored in (0, 15):
        codes = np.full(1500, stored, np.uint32)
        after = inject_codes(codes, program=plan.program("a"), seed=1, sample=2, bit_width=4)
        flips = np.zeros(1500, np.uint32)
        for f in listed(fault):
            if f.effect in ("flip", "1 reads 0" if stored else "0 reads 1"):
                flips[f.word] |= np.uint32(1 << f.bit)
        np.testing.assert_array_equal(codes ^ flips, after)


@pytest.mark.parametrize("effect", ["lsb", "full", 6, "random"])
def test_effects_of_word_faults_are_what_happens(effect):
    fault = WordFaults(probability=0.1, effect=effect)
    plan = resolve([ACT], [fault])
    codes = (np.arange(1500) % 16).astype(np.uint32)
    after = inject_codes(codes, program=plan.program("a"), seed=1, sample=2, bit_width=4)
    expected = codes.tolist()
    for f in listed(fault):
        assert f.bit is None
        sign, number, *rest = f.effect.split()
        if effect == "random":
            assert (sign, rest) == ("+", ["mod", "2^4"])
            expected[f.word] = (int(codes[f.word]) + int(number)) % 16
        else:
            assert (sign, rest) == ("xor", [])
            expected[f.word] = int(codes[f.word]) ^ int(number, 16)
    assert after.tolist() == expected


def test_effects_of_clusters():
    found = listed(Clusters(probability=0.05, sizes=(0.5, 0.25, 0.25), axis="word"))
    sizes = [1 + (f.aux >= 2**21) + (f.aux >= 3 * 2**20) for f in found]
    assert [f.effect for f in found] == [
        ("flip", "flips 2 along word", "flips 3 along word")[size - 1] for size in sizes
    ]
    assert set(sizes) == {1, 2, 3}


def test_an_aux_that_equals_a_size_threshold_counts_it():
    plan = resolve([ACT], [Clusters(probability=0.05, sizes=(0.5, 0.5))])
    first = faults_at(plan, "a", seed=1, sample=2)[0]
    for threshold, effect in ((first.aux, "flips 2 along bit"), (first.aux + 1, "flip")):
        data = json.loads(plan.to_json())
        data["sites"][0]["processes"][0]["sizes"] = [threshold]
        other = FaultPlan.from_json(json.dumps(data))
        assert faults_at(other, "a", seed=1, sample=2)[0].effect == effect


def test_the_number_of_words():
    assert max(f.word for f in listed(BitFlips(probability=1.0))) == 1499
    assert max(f.word for f in listed(BitFlips(probability=1.0), words=7)) == 6
    assert listed(BitFlips(probability=1.0), words=0) == []
    unknown = resolve([ACT.model_copy(update={"shape": None})], [BitFlips(probability=1.0)])
    with pytest.raises(HwfaultError, match=r"how many words a sample of 'a' has is not known; give it \(--words\)"):
        faults_at(unknown, "a", seed=1, sample=2)
    assert len(faults_at(unknown, "a", seed=1, sample=2, words=5)) == 20


@pytest.mark.parametrize("draw", [{"seed": -1}, {"seed": 2**64}, {"words": -1}, {"words": 2**36 + 1}])
def test_numbers_outside_their_range(draw):
    with pytest.raises(HwfaultError, match="expected"):
        listed(BitFlips(probability=0.1), **draw)


def test_a_site_that_is_not_planned():
    with pytest.raises(PlanError, match="the plan has no site 'b'"):
        faults_at(resolve([ACT], [BitFlips(probability=0.1)]), "b", seed=1, sample=1)


def test_late_bits_and_bypassed_elements():
    from hwfault.laws.models import BypassedElements, LateBits
    from hwfault.plan.listing import with_addresses
    from hwfault.stream.mapping import WeightStationary

    array = WeightStationary(rows=4, columns=2)
    weights = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(4, 8))
    sums = Site(
        name="l.accumulator", kind="accumulator", bit_width=9, signed=True, shape=(4,), weights=(4, 8), worst_case=9
    )
    plan = resolve(
        [weights, sums], [LateBits(probability=1.0, bits=3), BypassedElements(mapping=array, elements=[(2, 1)])]
    )
    late = faults_at(plan, "l.accumulator", seed=1, sample=0)
    assert [(f.word, f.bit, f.effect) for f in late] == [(w, None, "keeps 0x1c0 of the word before") for w in range(4)]
    dropped = with_addresses(plan, "w", faults_at(plan, "w", seed=1, sample=0))
    assert {f.word for f in dropped} == {n * 8 + k for n in (1, 3) for k in (2, 6)}
    assert {f.effect for f in dropped} == {"stuck at 0"}
    assert {f.address for f in dropped} == {f"PE (2, 1), bit {bit}" for bit in range(4)}


def test_a_site_is_listed_under_its_aliases_too(tmp_path):
    word = np.array([1, 4], np.int64)
    FaultMap.from_cells(6, 4, word, [0, 3], [0, 0]).save(tmp_path / "map.safetensors")
    site = Site(name="a", kind="weight", bit_width=4, signed=True, shape=(6,), aliases=("b",))
    plan = resolve(
        [site], [MapFaults(file=str(tmp_path / "map.safetensors"), mapping={"kind": "linear", "row_bits": 4})]
    )
    found = {name: with_addresses(plan, name, faults_at(plan, name, seed=0, sample=0)) for name in "ab"}
    assert found["a"] == found["b"]
    assert all(fault.address for fault in found["b"])


@pytest.mark.parametrize(
    ("zeros", "ones", "told"),
    [
        (5, 5, "xor 0x5"),
        (3, 12, "sets 0x3, clears 0xc"),
        (0, 15, "clears 0xf"),
        (6, 3, "xor 0x2, sets 0x4, clears 0x1"),
    ],
)
def test_effects_on_whole_words_by_what_is_stored(zeros, ones, told):
    assert word_effect(zeros, ones) == told
