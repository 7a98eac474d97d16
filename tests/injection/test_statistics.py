"""How often words and bits are struck, against the binomial law, on tensors of any size."""

import math

import numpy as np
import pytest
import torch

from hwfault.codes import CodeFormat, encode
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import Seen
from tests.helpers.torch_ops import operators


def struck_codes(faults, *, samples, words, bits=4, seed=0, stored=None):
    """XOR of codes before and after, (samples, words)."""
    plan = resolve([Site(name="x", kind="activation", bit_width=bits, signed=False)], faults)
    codes = np.random.default_rng(0).integers(0, 1 << bits, (samples, words)) if stored is None else stored
    x = torch.from_numpy(codes.astype(np.float32))
    reads = plan.at("x").reads_stored(plan.tables)
    draw = torch.arange(samples), torch.tensor(seed), torch.tensor(plan.program("x"))
    out = operators.inject(x, *draw, torch.tensor(1.0), torch.tensor(0.0), bits, False, False, reads)
    return codes, encode(out.numpy(), 1.0, 0.0, CodeFormat(bits, False)).astype(np.int64)


def within(count, n, p, sigmas=5):
    return abs(count - n * p) <= sigmas * math.sqrt(n * p * (1 - p))


def test_512_words_at_a_small_rate_fail_sometimes():
    """0.19 % of 512 words is less than one word: not never, and not always one."""
    before, after = struck_codes([WordFaults(probability=0.0019)], samples=4000, words=512)
    hits = (before != after).sum(axis=1)
    assert within(hits.sum(), 4000 * 512, 0.0019)
    share_without = (1 - 0.0019) ** 512
    assert within((hits == 0).sum(), 4000, share_without)
    assert set(hits.tolist()) >= {0, 1, 2, 3}
    variance = 512 * 0.0019 * (1 - 0.0019)
    assert abs(hits.var() / variance - 1) < 5 * math.sqrt(2 / 4000) + 0.1


@pytest.mark.every(5)
@pytest.mark.parametrize("words", [1, 2, 7, 64, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.7])
def test_word_faults_at_any_size(words, rate):
    samples = max(1, 200_000 // words)
    before, after = struck_codes([WordFaults(probability=rate)], samples=samples, words=words)
    assert within((before != after).sum(), samples * words, rate)


@pytest.mark.parametrize("rate", [0.0005, 0.02, 0.3])
def test_bit_errors_of_each_plane(rate):
    before, after = struck_codes([BitFlips(probability=rate)], samples=300, words=700)
    for plane in range(4):
        assert within((((before ^ after) >> plane) & 1).sum(), 300 * 700, rate), plane


def test_directions():
    before, after = struck_codes(
        [BitFlips(p01=[0.01, 0.02, 0.0, 0.2], p10=[0.03, 0.0, 0.1, 0.05])], samples=300, words=700
    )
    for plane, (p01, p10) in enumerate(zip([0.01, 0.02, 0.0, 0.2], [0.03, 0.0, 0.1, 0.05], strict=True)):
        old, new = (before >> plane) & 1, (after >> plane) & 1
        for stored, p in ((0, p01), (1, p10)):
            n, flips = (old == stored).sum(), ((old == stored) & (new != stored)).sum()
            assert (flips == 0 and p == 0) or within(flips, n, p), (plane, stored)


def test_random_codes_are_uniform_over_the_others():
    before, after = struck_codes([WordFaults(probability=0.5)], samples=200, words=1000, bits=3)
    moved = (after - before) % 8
    n = (moved != 0).sum()
    assert within(n, 200_000, 0.5)
    for step in range(1, 8):
        assert within((moved == step).sum(), n, 1 / 7), step


def test_cluster_sizes():
    stored = np.zeros((200, 1000), np.int64)
    _, after = struck_codes(
        [Clusters(probability=[0.01, 0, 0, 0], sizes=[0.6, 0.3, 0.1])], samples=200, words=1000, stored=stored
    )
    assert set(np.unique(after)) == {0, 1, 3, 7}
    assert within((after != 0).sum(), 200_000, 0.01)
    # several hits on one cell leave the largest, so sizes are a little more than asked
    n = (after != 0).sum()
    for code, share in ((1, 0.6), (3, 0.3), (7, 0.1)):
        assert abs((after == code).sum() - n * share) < 5 * math.sqrt(n * share) + 0.01 * n


def test_seeds_samples_and_sites_are_independent():
    faults = [WordFaults(probability=0.1, effect="full")]
    one, other = (struck_codes(faults, samples=100, words=1000, seed=seed) for seed in (1, 2))
    hits = [(b != a) for b, a in (one, other)]
    assert within((hits[0] & hits[1]).sum(), 100_000, 0.01)
    assert within((hits[0][:50] & hits[0][50:]).sum(), 50_000, 0.01)
    assert within((hits[0][:, 1:] & hits[0][:, :-1]).sum(), 99_900, 0.01)


def test_the_rate_in_a_network():
    model, seen = build("cnn"), Seen()
    with inject(model, [BitFlips(probability=0.02)], seed=5, observe=seen) as injection, torch.no_grad():
        for seed in range(40):
            injection.seed, injection.first_sample = seed, 0
            model(batch(32))
        plan = injection.plan
    for site in (entry.site for entry in plan.sites):
        flips = cells = 0
        for call in seen.of(site.name):
            before, after = call.codes(CodeFormat(site.bit_width, site.signed))
            flips += sum(int(code).bit_count() for code in (before ^ after).ravel().tolist())
            cells += before.size * site.bit_width
        assert within(flips, cells, 0.02), site.name


def test_a_higher_rate_only_adds_faults():
    model = build("cnn")
    found, struck = sites(model), []
    for rate in (0.005, 0.02, 0.1):
        seen = Seen()
        with inject(model, resolve(found, [WordFaults(probability=rate, effect="msb")]), seed=5, observe=seen):
            model(batch())
        struck.append(torch.cat([(call.before != call.after).flatten() for call in seen if call.name != "3.act_quant"]))
    assert (struck[0] <= struck[1]).all()
    assert (struck[1] <= struck[2]).all()
    assert 0 < struck[0].sum() < struck[1].sum() < struck[2].sum()
