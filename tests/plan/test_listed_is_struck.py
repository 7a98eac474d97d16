"""The faults that are listed are those that strike: the words of the listing, read by people, against a network."""

import copy
import re
from functools import cache

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwfault.codes import CodeFormat, represent, twos_complement
from hwfault.errors import HwfaultError
from hwfault.injection.attach import inject
from hwfault.laws.models import (
    BitFlips,
    BypassedElements,
    CellFaults,
    Clusters,
    LateBits,
    MapFaults,
    ProfileFaults,
    WordFaults,
)
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.program.processes import Site
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.mapping import FinnMvau, Linear
from hwfault.stream.protection import DETECTED, linear_layout, read, store
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.reference import previous_words
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import samples_first
from tests.helpers.laws.cell_cases import some_cells

pytestmark = pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")
NETWORKS = ("biased", "mlp", "turned")


class Turned(torch.nn.Module):
    """Samples along axis 1, in a quantizer that runs twice, and a weight that two layers read."""

    def __init__(self):
        super().__init__()
        self.act = qnn.QuantIdentity(bit_width=5, return_quant_tensor=False)
        self.linear = qnn.QuantLinear(36, 36, bias=False, weight_bit_width=4)
        self.other = qnn.QuantLinear(36, 36, bias=False, weight_bit_width=4)
        self.other.weight = self.linear.weight

    def forward(self, x):
        x = self.act(x.flatten(2).transpose(0, 1))  # (rows, samples, 36)
        return self.other(self.act(self.linear(x))).transpose(0, 1)


@cache
def turned():
    torch.manual_seed(0)
    return Turned().eval()


def network(name):
    return copy.deepcopy(turned()) if name == "turned" else build(name)


@cache
def known_sites(name):
    return sites(network(name), batch())


class Seen(list):
    """An observer: every run of a site, with the codes before and after, one row for each sample."""

    def __init__(self, plan):
        super().__init__()
        self._plan = plan

    def __call__(self, name, before, after, scale, zero_point, codes_before, codes_after):
        self.append((name, *(self._rows(name, codes.numpy()) for codes in (codes_before, codes_after))))

    def _rows(self, name, codes):
        """The codes (samples, words) of a run of a site."""
        site = self._plan.at(name).site
        if not site.batched:
            return codes.reshape(1, -1).astype(np.uint32)
        return samples_first(codes, site.batch_axis).astype(np.uint32)


# what the words of a listing mean


def changed_by(hits, stored, process, bit_width, faultless):
    """The codes (words,) after the hits of one process on words of a site."""
    flips, after = np.zeros_like(stored), stored.copy()
    for hit in hits:
        word, effect = hit.word, hit.effect
        if effect.startswith("+"):
            added, bits = map(int, re.fullmatch(r"\+ (\d+) mod 2\^(\d+)", effect).groups())
            assert bits == bit_width
            after[word] = (int(stored[word]) + added) % (1 << bits)
        elif effect.startswith("keeps"):
            mask = int(effect.split()[1], 16)
            (before,) = previous_words(np.array([word]), *process.elements)
            kept = int(faultless[before]) if before >= 0 else 0
            after[word] = (int(stored[word]) & ~mask) | (kept & mask)
        elif effect.startswith(("xor", "sets", "clears")):
            bits = {what: int(mask, 16) for what, mask in (part.split() for part in effect.split(", "))}
            here = int(stored[word])
            bits["flip"] = bits.get("xor", 0) | (bits.get("sets", 0) & ~here) | (bits.get("clears", 0) & here)
            flips[word] |= np.uint32(bits["flip"])
        elif effect.startswith("flips"):
            count, along = re.fullmatch(r"flips (\d+) along (bit|word)", effect).groups()
            if along == "word":
                flips[word : word + int(count)] |= np.uint32(1 << hit.bit)
            else:
                flips[word] |= np.uint32(((1 << int(count)) - 1) << hit.bit)
        elif flips_bit(effect, int(stored[word]) >> hit.bit & 1):
            flips[word] |= np.uint32(1 << hit.bit)
    return after ^ flips


def flips_bit(effect, stored):
    """Whether a bit that stores this becomes another by an effect on one bit."""
    becomes = {"flip": 1 - stored, "0 reads 1": 1, "stuck at 1": 1, "1 reads 0": 0, "stuck at 0": 0}
    return becomes[effect] != stored


def decoded(hits, stored, process, bit_width):
    """The codes (words,) that a protected memory answers where hits fall on its cells."""
    memory = process.memory
    where = process.layout or linear_layout(memory, stored.size, bit_width)
    held, word, bit = where.cells >= 0, where.cells >> 5, where.cells & 31
    data = np.where(held, stored[np.where(held, word, 0)].astype(np.int64) >> bit & 1, 0).astype(np.uint8)
    cells = store(memory, data)
    struck = cells.copy()
    for hit in hits:
        effect = hit.effect.partition(" (memory word")[0]
        for row in np.flatnonzero(where.number == hit.word):
            stored_bit = int(cells[row, hit.bit])
            if flips_bit(effect, stored_bit):
                struck[row, hit.bit] = 1 - stored_bit
    after, verdict = read(memory, struck)
    after = after if memory.due else np.where(verdict[:, None] == DETECTED, 0, after)
    out = stored.copy()
    for row, cell in zip(*np.nonzero(held & (after != data)), strict=True):
        out[word[row, cell]] ^= np.uint32(1 << bit[row, cell])
    return out


def as_listed(plan, name, hits, codes):
    """The codes (words,) of a site in two's complement as the listing says that they are afterwards."""
    entry = plan.at(name)
    faultless, bits = codes, entry.site.bit_width
    firsts = {process.fault: process for process in reversed(entry.processes)}
    for process in entry.processes:
        if process is not firsts[process.fault]:
            continue  # the cells of one fault are different ones, which were all taken with its first process
        own = [hit for hit in hits if hit.process == process.fault]
        fmt = CodeFormat(bits, entry.site.signed, process.representation or "twos_complement")
        stored = represent(codes, fmt)
        if process.kind == "protected":
            after = decoded(own, stored, process, bits)
        else:
            after = changed_by(own, stored, process, bits, faultless)
        codes = np.where(after != stored, twos_complement(after, fmt), codes)
    return codes


# every law, persistence, refresh, protection and kind of site


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """The file of a device's map, with cells of all three kinds."""
    rng = np.random.default_rng(5)
    word, bit = np.nonzero(rng.random((3000, 32)) < 0.03)
    path = tmp_path_factory.mktemp("device") / "map.safetensors"
    FaultMap.from_cells(3000, 32, word, bit, rng.integers(0, 3, word.size)).save(path)
    return str(path)


KINDS = ("weight", "bias", "activation", "input")
PROTECTIONS = st.builds(
    Protection,
    kind=st.sampled_from(["parity", "secded", "tmr"]),
    data_bits=st.sampled_from([4, 16, 64]),
    on_detected=st.sampled_from(["zero", "due"]),
)


@st.composite
def laws(draw, device, name):
    """A fault model on all sites of one kind that the network has."""
    there = sorted({site.kind for site in known_sites(name)} & set(KINDS))
    where = {"sites": [Select(kind=draw(st.sampled_from(there)))]}
    rate = draw(st.sampled_from([0.01, 0.2, 1.0]))
    law = draw(
        st.sampled_from(["bits", "word", "cluster", "map", "protected map", "profile", "late", "bypassed", "cells"])
    )
    if law == "cells":
        struck = [site for site in known_sites(name) if site.kind == where["sites"][0].kind]
        return CellFaults(cells=[one for site in struck for one in draw(some_cells(site, range(6)))])
    if law == "bits":
        return BitFlips(p01=rate, p10=draw(st.sampled_from([0.0, 0.1 if rate < 1 else 1.0])), **where)
    if law == "word":
        return WordFaults(probability=rate, effect=draw(st.sampled_from(["random", "lsb", "msb", "full"])), **where)
    if law == "cluster":
        axis = draw(st.sampled_from(["bit", "word"]))
        return Clusters(probability=min(rate, 0.2), sizes=(0.5, 0.25, 0.25), axis=axis, **where)
    if law in ("map", "protected map"):
        refresh = draw(st.sampled_from(["inference", "batch", "epoch", "power_cycle"]))
        own = {"p_active": draw(st.sampled_from([1.0, 0.4])), "refresh": refresh, **where}
        own |= {"protection": draw(PROTECTIONS)} if law == "protected map" else {}
        tile = draw(st.sampled_from([{}, {"rows": 8, "tile": "repeat"}]))
        stored = draw(st.sampled_from(["twos_complement", "offset_binary", "sign_magnitude"]))
        return MapFaults(file=device, mapping=Linear(row_bits=64, representation=stored, **tile), **own)
    if law == "profile":
        return ProfileFaults(profile="uniform-flips", at={"ber": 0.02}, protection=draw(PROTECTIONS), **where)
    if law == "late":
        return LateBits(probability=rate, bits=2)
    return BypassedElements(mapping=FinnMvau(pe=1, simd=1), elements=[0], sites=[Select(kind="weight", index=0)])


def checked(plan, name, before, after, **draw):
    """Compares one sample of one site with its listing; answers with how many words changed."""
    listed = as_listed(plan, name, faults_at(plan, name, **draw), before)
    np.testing.assert_array_equal(listed, after, err_msg=f"{name}, {draw}")
    decided = faults_at(plan, name, codes=before, **draw)
    assert not any(hit.conditional for hit in decided)
    np.testing.assert_array_equal(as_listed(plan, name, decided, before), after)
    (first, *others) = plan.at(name).processes
    if not others and first.kind != "protected":
        words = {word for hit in decided for word in range(hit.word, hit.word + hit.length)}
        assert words == set(np.flatnonzero(before != after).tolist())
    return np.count_nonzero(before != after)


def run(name, plan, batches, *, training, seed, epoch=0):
    """Every run of a site, with the numbers under which it is listed."""
    model, first = network(name).train(training), 0
    with inject(model, plan, seed=seed, observe=(seen := Seen(plan))) as injection, torch.no_grad():
        injection.clock.epoch = epoch
        for step, size in enumerate(batches):
            seen.clear()
            model(batch()[:size])
            when = {"seed": seed, "first_sample": first, "epoch": epoch}
            for site, before, after in seen:
                for i in range(len(before)):
                    parameter = {"step": step if training else 0}
                    own = {"sample": first + i} if plan.at(site).site.batched else parameter
                    yield site, before[i], after[i], when | own
            first += size


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_listed_is_struck(device, data):
    name = data.draw(st.sampled_from(NETWORKS))
    faults = data.draw(st.lists(laws(device, name), min_size=1, max_size=2))
    magnitudes = [f for f in faults if isinstance(f, MapFaults) and f.mapping.representation == "sign_magnitude"]
    if len(magnitudes) == 2:  # neighbours may strike as one step, which does not turn minus zero into zero in between
        faults = faults[:1]
    plan = resolve(known_sites(name), faults, device=3)
    rules = {"training": data.draw(st.booleans()), "seed": data.draw(st.integers(0, 2**64 - 1))}
    batches = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3))
    for site, before, after, when in run(name, plan, batches, epoch=data.draw(st.integers(0, 3)), **rules):
        checked(plan, site, before, after, **when)


# what 0.4.0 listed otherwise than it struck


NAME = next(site.name for site in known_sites("biased") if site.kind == "activation")
WEIGHT = next(site.name for site in known_sites("biased") if site.kind == "weight")


def check_run(plan, batches):
    """Compares every sample of an evaluation with its listing; answers with how many words changed."""
    return sum(checked(plan, *seen, **when) for *seen, when in run("biased", plan, batches, training=False, seed=1))


def test_cells_that_change_with_batches_are_the_same_in_each_sample_of_one(device):
    fault = MapFaults(file=device, sites=NAME, p_active=0.3, refresh="batch")
    plan = resolve(known_sites("biased"), [fault])
    assert check_run(plan, [3, 3]) > 0
    one, other = (
        [faults_at(plan, NAME, seed=1, sample=first + i, first_sample=first) for i in range(3)] for first in (0, 3)
    )
    assert one[0] == one[1] == one[2] != other[0] == other[1] == other[2]
    assert faults_at(plan, NAME, seed=1, sample=2) == one[0], "a batch begins with sample 0 unless it is said"


def test_protected_memories_list_the_cells_that_show_in_the_period(device):
    fault = MapFaults(
        file=device, sites=WEIGHT, p_active=0.3, protection=Protection(kind="secded", data_bits=16), refresh="inference"
    )
    plan = resolve(known_sites("biased"), [fault])
    every = {(hit.word, hit.bit) for hit in faults_at(resolve(known_sites("biased"), [always(fault)]), WEIGHT, seed=1)}
    shown = [{(h.word, h.bit) for h in faults_at(plan, WEIGHT, seed=1, first_sample=first)} for first in (0, 3)]
    assert shown[0] != shown[1]
    for some in shown:
        assert some < every
        assert 0.1 < len(some) / len(every) < 0.5
    assert check_run(plan, [3, 2]) > 0


def always(fault):
    return fault.model_copy(update={"p_active": 1.0})


def test_the_verdict_of_the_decoder_is_told_where_the_codes_are_known(device):
    protection = Protection(kind="secded", data_bits=16)
    plan = resolve(known_sites("biased"), [MapFaults(file=device, sites=WEIGHT, protection=protection)])
    ((before, after),) = [(b, a) for _, b, a, _ in run("biased", plan, [1], training=False, seed=1)]
    hits = faults_at(plan, WEIGHT, seed=1, codes=before)
    told = {re.search(r"\(memory word, (\w+)\)$", hit.effect).group(1) for hit in hits}
    assert told <= {"corrected", "detected", "miscorrected"}
    assert "corrected" in told
    (process,) = plan.at(WEIGHT).processes
    harmless = {hit.word for hit in hits if "corrected)" in hit.effect and "mis" not in hit.effect}
    for word in np.flatnonzero(before != after).tolist():
        assert not process.places_of({word}) <= harmless


@pytest.mark.parametrize("name", [WEIGHT, next(s.name for s in known_sites("biased") if s.kind == "bias")])
def test_parameters_have_no_samples(name):
    plan = resolve(known_sites("biased"), [BitFlips(probability=0.01)])
    with pytest.raises(HwfaultError, match=f"sample 7 of the .* '{name}', which is the same for all samples"):
        faults_at(plan, name, seed=0, sample=7)
    with pytest.raises(HwfaultError, match=f"step 2 of the activation '{NAME}', whose faults are told by their sample"):
        faults_at(plan, NAME, seed=0, step=2)
    steps = [faults_at(plan, WEIGHT, seed=0, step=step) for step in (0, 1)]
    assert steps[0] != steps[1]


UNSIGNED = Site(name="u", kind="weight", bit_width=3, signed=False, shape=(2, 2))
SIGNED = UNSIGNED.model_copy(update={"signed": True})
BIPOLAR = UNSIGNED.model_copy(update={"signed": True, "bit_width": 1})


@pytest.mark.parametrize(
    ("site", "codes", "words"),
    [
        (UNSIGNED, [1, 2, 3], "codes of type int64 and shape .3,. for 'u', expected 4 integers"),
        (UNSIGNED, [[1.0, 2.0], [3.0, 4.0]], "codes of type float64"),
        (UNSIGNED, [True] * 4, "codes of type bool"),
        (UNSIGNED, [1, 2, 3, 8], "codes from 0 to 8 for 'u', expected code words of 3 bits, 0 to 7"),
        (UNSIGNED, [1, 2, 3, -1], "codes from -1 to 3"),
        (SIGNED, [1, 2, 3, -5], "expected code words of 3 bits, 0 to 7, or integers from -4 on"),
        (BIPOLAR, [1, 2, 0, 0], "code words of 1 bits, 0 to 1"),
    ],
)
def test_codes_that_are_not_the_sites(site, codes, words):
    plan = resolve([site], [BitFlips(probability=0.1)])
    with pytest.raises(HwfaultError, match=words):
        faults_at(plan, "u", seed=0, codes=codes)


def test_codes_may_be_words_or_what_they_stand_for():
    for site, integers, words in ((SIGNED, [-4, -1, 3, 0], [4, 7, 3, 0]), (BIPOLAR, [-1, 1, -1, 1], [0, 1, 0, 1])):
        plan = resolve([site], [BitFlips(p01=0.0, p10=1.0)])
        hits = faults_at(plan, "u", seed=0, codes=np.array(integers).reshape(2, 2))
        assert hits == faults_at(plan, "u", seed=0, codes=words)
        assert [(hit.word, hit.bit) for hit in hits] == [
            (word, bit) for bit in range(site.bit_width) for word in range(4) if words[word] >> bit & 1
        ]


def test_the_old_name_of_a_hit_still_works():
    from hwfault.plan import listing

    with pytest.warns(DeprecationWarning, match=r"listing\.Fault is Hit now"):
        assert listing.Fault is listing.Hit
    with pytest.raises(AttributeError, match="no_such"):
        _ = listing.no_such


def test_codes_that_no_fault_changed_stay_what_they_are(tmp_path):
    """The least integer has no code in sign-magnitude; what strikes it afterwards finds it as it was."""
    FaultMap.from_cells(4, 3, [0], [0], [0]).save(tmp_path / "map.safetensors")
    stored = Linear(row_bits=3, representation="sign_magnitude")
    cell = MapFaults(file=str(tmp_path / "map.safetensors"), mapping=stored)
    plan = resolve([SIGNED], [cell, BitFlips(p10=1.0, p01=0.0)])
    hits = faults_at(plan, "u", seed=0, codes=[0, -4, -4, -1])
    found = [(hit.word, hit.bit) for hit in hits if hit.process == 1]
    assert found == [(word, bit) for bit in range(3) for word, code in enumerate([1, 4, 4, 7]) if code >> bit & 1]


def test_the_networks_have_every_way_in_which_words_lie():
    found = known_sites("turned")
    assert {site.name for site in found if site.kind == "activation"} == {"act.act_quant", "act.act_quant#1"}
    assert all(site.batch_axis.axis == 1 for site in found if site.kind == "activation")
    assert any(site.aliases for site in found)
    assert {site.kind for name in NETWORKS for site in known_sites(name)} == {*KINDS, "accumulator"}
