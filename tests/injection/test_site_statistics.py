"""What the statistics of each site count, against plain NumPy, known answers and the fault stream's own list."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwfault.codes import CodeFormat, encode
from hwfault.errors import FileError, ModelError, PlanError
from hwfault.injection import site_statistics as told
from hwfault.injection.attach import inject
from hwfault.injection.site_statistics import SiteStatistics
from hwfault.injection.statistics import Statistics, represented, whole_numbers
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.program.processes import Site
from hwfault.torch_ops import codec
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import FAULTS, Seen
from tests.helpers.torch_ops import operators

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def site(bits=4, signed=False, name="x"):
    return Site(name=name, kind="activation", bit_width=bits, signed=signed)


def seen_by(bits, signed, before, after, scale=1.0, zero_point=0.0):
    """The record of one site that was shown integers before and after, in two batches."""
    statistics = Statistics([site(bits, signed)])
    grid = torch.tensor(scale), torch.tensor(zero_point)
    for part in (slice(0, 1), slice(1, None)):
        values = [(torch.tensor(q[part], dtype=torch.float32) - grid[1]) * grid[0] for q in (before, after)]
        statistics("x", *values, *grid)
    (record,) = statistics.read()
    return record


def test_known_answers():
    record = seen_by(4, False, [0, 3, 15, 8, 8], [8, 3, 0, 8, 9])
    assert (record.words, record.faulty) == (5, 3)
    assert record.ones == (1, 0, 0, 1)
    assert record.zeros == (1, 1, 1, 1)
    assert record.flips == (2, 1, 1, 2)
    assert record.rate == 0.6
    assert record.rmse == math.sqrt((64 + 225 + 1) / 3)
    assert record.cosine == (9 + 64 + 72) / (math.sqrt(9 + 225 + 128) * math.sqrt(64 + 9 + 64 + 81))


def test_known_answers_of_signed_codes():
    """-8 is 1000 and its sign flips to 0000: eight away, where minus eight times two would be out of range."""
    record = seen_by(4, True, [-8, -1, 7], [0, 7, 7])
    assert (record.faulty, record.ones, record.zeros) == (2, (0, 0, 0, 0), (0, 0, 0, 2))
    assert record.rmse == 8.0
    assert record.cosine == (-7 + 49) / (math.sqrt(64 + 1 + 49) * math.sqrt(49 + 49))


def test_known_answers_of_binary_codes():
    record = seen_by(1, True, [1, -1, 1], [1, 1, -1])
    assert (record.ones, record.zeros, record.rmse) == ((1,), (1,), 2.0)
    assert record.cosine == pytest.approx(-1 / 3)


def test_nothing_seen_and_nothing_faulty():
    (never,) = Statistics([site()]).read()
    assert never == SiteStatistics(site="x", ones=(0,) * 4, zeros=(0,) * 4)
    assert (never.rate, never.rmse, never.cosine) == (None, None, None)
    same = seen_by(4, False, [1, 2, 3], [1, 2, 3])
    assert (same.rate, same.rmse, same.cosine) == (0.0, None, 1.0)
    zeros = seen_by(4, False, [0, 0], [0, 1])
    assert (zeros.rate, zeros.rmse, zeros.cosine) == (0.5, 1.0, None)


def numpy_oracle(bits, signed, before, after):
    """The same numbers from Python's and NumPy's integers alone."""
    a, b = (np.array(q, dtype=object) for q in (before, after))
    planes = Counter()
    for old, new in zip(before, after, strict=True):
        old, new = ((q + 1) // 2 if signed and bits == 1 else q % 2**bits for q in (old, new))
        planes.update((k, new >> k & 1) for k in range(bits) if (old ^ new) >> k & 1)
    faulty = int((a != b).sum())
    return {
        "words": len(a),
        "faulty": faulty,
        "ones": tuple(planes[k, 1] for k in range(bits)),
        "zeros": tuple(planes[k, 0] for k in range(bits)),
        "squared_change": float(((a - b) ** 2).sum()),
        "squares_before": float((a * a).sum()),
        "squares_after": float((b * b).sum()),
        "products": float((a * b).sum()),
    }


@given(st.data())
def test_equal_to_a_numpy_oracle(data):
    bits, signed = data.draw(st.integers(1, 8)), data.draw(st.booleans())
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    word = st.sampled_from([-1, 1]) if signed and bits == 1 else st.integers(low, high)
    pairs = data.draw(st.lists(st.tuples(word, word), min_size=2, max_size=40))
    before, after = (list(q) for q in zip(*pairs, strict=True))
    scale, zero_point = data.draw(st.sampled_from([(1.0, 0.0), (0.25, 0.0), (0.1, 3.0)]))
    record = seen_by(bits, signed, before, after, scale, 0.0 if signed and bits == 1 else zero_point)
    expected = numpy_oracle(bits, signed, before, after)
    assert record == SiteStatistics(site="x", **expected)
    if expected["faulty"]:
        moved = [(a - b) ** 2 for a, b in pairs if a != b]
        assert record.rmse == pytest.approx(math.sqrt(sum(moved) / len(moved)))
    norms = [np.linalg.norm(np.array(q, dtype=float)) for q in (before, after)]
    if all(norms):
        assert record.cosine == pytest.approx(float(np.dot(before, after) / norms[0] / norms[1]), abs=1e-12)


@pytest.mark.parametrize("representation", ["twos_complement", "offset_binary", "sign_magnitude"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_codes_and_representations_are_those_of_hwfault_codes(bits, representation):
    fmt = CodeFormat(bits, True, representation)
    q = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    found = codec.code_words(codec.integers(q.float(), ONE, ZERO, fmt), fmt)
    assert represented(found, fmt).tolist() == encode(q.numpy().astype(np.float32), 1.0, 0.0, fmt).tolist()
    assert whole_numbers(found, fmt).tolist() == q.tolist()
    assert codec.integers(q.float() + 2**bits, ONE, ZERO, fmt).tolist() == q.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_values_of_every_type_that_are_not_finite_count_as_zero(dtype):
    values, fmt = torch.tensor([math.nan, math.inf, -math.inf, 2.0], dtype=dtype), CodeFormat(4, False)
    q = codec.integers(values, ONE, ZERO, fmt)
    assert q.isnan().tolist() == [True, True, True, False]
    assert codec.code_words(q, fmt).tolist() == [0, 0, 0, 2]


@pytest.mark.every(9)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("faults", ["bits", "asymmetric", "random"])
def test_counts_in_networks_are_those_of_what_observers_see(name, faults):
    model, seen = build(name), Seen()
    plan = resolve(sites(model, batch()), FAULTS[faults])
    statistics = Statistics(plan)

    def both(*call):
        seen(*call)
        statistics(*call)

    with inject(model, plan, seed=3, observe=both), torch.no_grad():
        for i in range(2):
            model(batch(seed=i))
    for entry, record in zip(plan.sites, statistics.read(), strict=True):
        bits, signed = entry.site.bit_width, entry.site.signed
        calls = [call.codes(CodeFormat(bits, signed)) for call in seen.of(entry.site.name)]
        old, new = (np.concatenate([call[i].ravel() for call in calls]).astype(np.int64) for i in (0, 1))
        half = 2 ** (bits - 1)
        a, b = (2 * q - 1 if signed and bits == 1 else (q + half) % 2**bits - half if signed else q for q in (old, new))
        assert record == SiteStatistics(site=entry.site.name, **numpy_oracle(bits, signed, a.tolist(), b.tolist()))
    assert sum(record.faulty for record in statistics.read()) > 0


@pytest.mark.parametrize("name", ["cnn", "residual", "biased", "per_channel"])
def test_flips_are_the_fault_streams_own_list_of_faults(name):
    """Every symmetric bit error flips its bit, so the counts are those of the list that `hwfault faults` prints."""
    model, n = build(name), 6
    plan = resolve(sites(model, batch()), [BitFlips(probability=0.03)])
    statistics = Statistics(plan)
    with inject(model, plan, seed=11, observe=statistics), torch.no_grad():
        model(batch(n))
    for entry, record in zip(plan.sites, statistics.read(), strict=True):
        samples = range(n) if entry.site.batched else [0]
        listed = [faults_at(plan, entry.site.name, seed=11, sample=i) for i in samples]
        cells = [(i, f.word, f.bit) for i, faults in enumerate(listed) for f in faults]
        planes = Counter(bit for _, _, bit in set(cells))  # a cell that is hit twice is faulty once
        assert record.flips == tuple(planes[k] for k in range(entry.site.bit_width))
        assert record.faulty == sum(len({fault.word for fault in faults}) for faults in listed)
        assert record.words == len(samples) * entry.site.words
    assert sum(sum(record.flips) for record in statistics.read()) > 100


def test_small_tensors_are_struck_at_the_rate_that_was_asked_for():
    """512 words at 0.19 %: counts sum to the binomial law and are not the same in each forward."""
    plan = resolve([site(4)], [WordFaults(probability=0.0019)])
    rate = Statistics(plan)
    faulty = []
    program = torch.tensor(plan.program("x"))
    x = torch.zeros(1, 512)
    for number in range(2000):
        out = operators.inject(x, torch.tensor([number]), torch.tensor(1), program, ONE, ZERO, 4, False, False, False)
        rate("x", x, out, ONE, ZERO)
        faulty.append(int((out != x).sum()))
    (record,) = rate.read()
    assert record.faulty == sum(faulty)
    assert abs(record.faulty - 2000 * 512 * 0.0019) < 5 * math.sqrt(2000 * 512 * 0.0019)
    assert {0, 1, 2} <= set(faulty)


def test_statistics_do_not_depend_on_the_batch_size_but_for_how_often_parameters_are_read():
    model, x = build("cnn"), batch(12)
    plan, found = resolve(sites(model), [BitFlips(probability=0.02)]), []
    for size in (12, 5, 1):
        statistics = Statistics(plan)
        with inject(model, plan, seed=2, observe=statistics), torch.no_grad():
            forwards = [model(part) for part in x.split(size)]
        found.append({record.site: record for record in statistics.read()})
        weights = found[-1]["1.weight_quant"]
        assert weights.words == len(forwards) * 72
        assert weights.rate == found[0]["1.weight_quant"].rate
    assert found[0]["3.act_quant"] != found[0]["0.act_quant"]
    for other in found[1:]:
        assert other["0.act_quant"] == found[0]["0.act_quant"]


def test_parts_add_up():
    model, x = build("cnn"), batch(10)
    plan = resolve(sites(model), [BitFlips(probability=0.02)])
    parts = []
    for where in (slice(0, 10), slice(0, 4), slice(4, 10)):
        statistics = Statistics(plan)
        with inject(model, plan, seed=2, observe=statistics) as injection, torch.no_grad():
            injection.first_sample = where.start
            model(x[where])
        parts.append([r for r in statistics.read() if "act" in r.site])
    assert told.merged(*parts[1:]) == tuple(parts[0])
    assert told.merged() == ()
    whole = told.total(parts[0])
    assert (whole.words, whole.faulty) == tuple(sum(getattr(r, k) for r in parts[0]) for k in ("words", "faulty"))
    assert sum(whole.flips) == sum(sum(r.flips) for r in parts[0])
    assert len(whole.flips) == 8


def test_reset_and_reading_twice():
    statistics = Statistics([site()])
    statistics("x", torch.tensor([1.0]), torch.tensor([2.0]), ONE, ZERO)
    assert statistics.read() == statistics.read()
    statistics.reset()
    assert statistics.read()[0].words == 0


def test_counting_reads_no_tensor(monkeypatch):
    """What is counted stays on the device until `read`."""
    statistics, before = Statistics([site()]), torch.tensor([1.0, 2.0])
    statistics("x", before, before + 1, ONE, ZERO)

    def refused(*_):
        raise AssertionError("a tensor was read")

    with monkeypatch.context() as patched:
        for name in ("item", "tolist", "__int__", "__float__", "__bool__", "__index__", "numpy", "cpu"):
            patched.setattr(torch.Tensor, name, refused)
        for _ in range(3):
            statistics("x", before, before + 1, ONE, ZERO)
        with pytest.raises(AssertionError, match="a tensor was read"):
            statistics.read()
    assert statistics.read()[0].faulty == 8


def test_sums_survive_inference_mode():
    statistics = Statistics([site()])
    with torch.inference_mode():
        statistics("x", torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor(1.0), torch.tensor(0.0))
    statistics("x", torch.tensor([1.0]), torch.tensor([1.0]), ONE, ZERO)
    assert statistics.read()[0].words == 2


def test_training_with_statistics_has_the_gradients_of_training_without():
    gradients = []
    for observe in (None, Statistics(sites(build("cnn")))):
        model = build("cnn").train()
        with inject(model, [BitFlips(probability=0.05)], seed=1, observe=observe):
            model(batch()).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert observe.read()[0].words > 0


def test_saved_and_loaded_records_are_the_very_same(tmp_path):
    model = build("cnn")
    statistics = Statistics(sites(model))
    with inject(model, [BitFlips(probability=0.02)], seed=1, observe=statistics), torch.no_grad():
        model(batch() * 1.7)
    records = (*statistics.read(), SiteStatistics(site="never"))
    told.save(tmp_path / "s.json", records)
    assert told.load(tmp_path / "s.json") == records
    written = json.loads((tmp_path / "s.json").read_text())["sites"][0]
    assert written["rate"] == records[0].rate
    assert written["flips"] == list(records[0].flips)
    told.save(tmp_path / "again.json", told.load(tmp_path / "s.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "s.json").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"format": "hwfault-statistics/1"}', '{"format": "hwfault-statistics/2", "sites": []}',
        '{"format": "hwfault-statistics/1", "sites": [{"site": "x", "words": -1}]}',
        '{"format": "hwfault-statistics/1", "sites": [{"site": "x", "wrods": 1}]}',
        '{"format": "hwfault-statistics/1", "sites": [{"site": "x", "ones": [1]}]}',
        '{"format": "hwfault-statistics/1", "sites": [3]}', '{"format": "hwfault-statistics/1", "sites": 3}',
    ],
)  # fmt: skip
def test_files_that_are_no_statistics(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(FileError, match=r"s\.json"):
        told.load(tmp_path / "s.json")
    with pytest.raises(FileError, match="cannot be read"):
        told.load(tmp_path / "none.json")


def test_the_table():
    records = [seen_by(4, False, [0, 3, 15], [8, 3, 0]), SiteStatistics(site="never", ones=(0,), zeros=(0,))]
    columns, rows = told.table(records)
    assert rows[0] == ["x", "3", "2", "66.6667%", "12.021", "0.068861", "2 1 1 1"]
    assert rows[1] == ["never", "0", "0", "-", "-", "-", "0"]
    assert rows[2][0] == "all sites"
    assert {len(row) for row in rows} == {len(columns)}
    assert len(told.table(records[:1])[1]) == 1


def test_wrong_input():
    with pytest.raises(PlanError, match=r"statistics of the site 'y' were not asked for: .*'x'"):
        Statistics([site()])("y", ONE, ONE, ONE, ZERO)
    with pytest.raises(ModelError, match="expected as many"):
        SiteStatistics(site="x", ones=(1,))


def _rank(rank, place, results):
    """One of two ranks: sees its own samples, and only rank 1 sees the second site."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    statistics = Statistics([site(name="x"), site(name="y")])
    statistics("x", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0 + rank]), ONE, ZERO)
    if rank:
        statistics("y", torch.tensor([8.0]), torch.tensor([0.0]), ONE, ZERO)
    statistics.reduce()
    results.put(statistics.read())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_read_the_sums_of_all(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    ranks = [context.Process(target=_rank, args=(rank, tmp_path / "meet", results)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    first, second = results.get(), results.get()
    for rank in ranks:
        rank.join()
    assert first == second
    x, y = first
    assert (x.words, x.faulty, x.ones, x.zeros) == (4, 2, (1, 0, 1, 0), (0, 1, 0, 0))
    assert (x.squared_change, x.rmse) == (1 + 4, math.sqrt(5 / 2))
    assert (y.words, y.zeros, y.rmse) == (1, (0, 0, 0, 1), 8.0)


def test_reducing_without_ranks_changes_nothing():
    statistics = Statistics([site()])
    statistics("x", torch.tensor([1.0]), torch.tensor([2.0]), ONE, ZERO)
    before = statistics.read()
    statistics.reduce()
    assert statistics.read() == before
