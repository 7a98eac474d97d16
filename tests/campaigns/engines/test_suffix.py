"""Trials from the struck site on are whole trials, to the bit; memory keeps to its limit."""

import numpy as np
import pytest

from hwfault.campaigns.engines import suffix
from hwfault.campaigns.engines.graph_engine import GraphEngine
from hwfault.campaigns.engines.passing import differing_rows
from hwfault.campaigns.engines.suffix import SuffixEngine
from hwfault.campaigns.points import only_site
from hwfault.errors import HwfaultError
from hwfault.graph.export.of_network import export
from hwfault.laws.models import BitFlips, LateBits, ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.protection_scheme import Protection
from tests.campaigns.engines.engine_cases import IMAGES, NETWORKS, SEEDS, by_network, engine, images, plan
from tests.campaigns.engines.test_graph_engine import by_batch
from tests.helpers.graph import attention
from tests.helpers.graph.networks import batch, listed, network
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import clean

RATES = [0.0005, 0.02]


def made(name, **options):
    return SuffixEngine(engine(name), **options)


def of_each_site(name, rate):
    whole = resolve(listed(name), [BitFlips(probability=rate)])
    return [only_site(whole, site) for site in whole.names]


SEVERAL = [pytest.param(name, marks=[] if name in ("residual", "twice") else pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", SEVERAL)
def test_every_site_alone(name, rate):
    replaying = made(name)
    for given in of_each_site(name, rate):
        assert replaying.can_replay(given), given.names
        got = replaying.outputs(given, SEEDS)
        assert_same(got, engine(name).outputs(given, SEEDS), given.names)
        # also once the segments are joined where nobody leaves, and for trials one by one
        again = [replaying.outputs(given, [seed])[0] for seed in SEEDS]
        assert_same(np.stack(again), got, given.names)


def test_sites_of_a_network_against_pytorch():
    replaying = made("residual")
    for given in of_each_site("residual", 0.02):
        assert_same(replaying.outputs(given, SEEDS), by_network("residual", given, SEEDS), given.names)


def test_memories_with_check_bits():
    in_memory = {"profile": "uniform-flips", "at": {"ber": 0.02}, "protection": Protection(kind="parity", data_bits=16)}
    whole = resolve(listed("digits_cnn"), [ProfileFaults(**in_memory)])
    replaying = made("digits_cnn")
    for site in whole.names:
        given = only_site(whole, site)
        assert replaying.can_replay(given)
        assert_same(replaying.outputs(given, SEEDS), engine("digits_cnn").outputs(given, SEEDS), site)


@pytest.mark.parametrize("chosen", [[2], [6, 0, 3], [1, 1, 5], []])
def test_some_of_the_images(chosen):
    replaying = made("residual")
    for given in of_each_site("residual", 0.02):
        got = replaying.outputs(given, SEEDS, chosen)
        assert_same(got, engine("residual").outputs(given, SEEDS)[:, chosen], given.names)


@pytest.mark.parametrize("limit", [1, 20_000])
def test_the_memory_of_golden_tensors(limit):
    replaying = made("digits_cnn", limit=limit)
    assert replaying.kept_bytes == 0
    for given in of_each_site("digits_cnn", 0.02):
        assert_same(replaying.outputs(given, SEEDS), engine("digits_cnn").outputs(given, SEEDS), given.names)
        # an image at a time is the least that can be held
        assert 0 < replaying.kept_bytes <= max(limit, 16_000)
    assert replaying.kept_bytes <= replaying.most_bytes <= max(limit, 16_000)


def test_one_batch_of_all_rows_and_one_of_each():
    for batch_size in (1, 1000):
        other = GraphEngine(clean("residual"), images("residual"), batch_size=batch_size)
        replaying = SuffixEngine(other)
        for given in of_each_site("residual", 0.005)[::2]:
            assert_same(replaying.outputs(given, SEEDS), engine("residual").outputs(given, SEEDS), given.names)


def test_samples_whose_codes_are_golden_again_leave(monkeypatch):
    """Hardly any bit flips, so that hardly any row comes to the first segment, and less to the last."""
    seen = []
    plain = suffix.Passing

    def noted(segments, *rest):
        seen.append(plain(segments, *rest))
        return seen[-1]

    monkeypatch.setattr(suffix, "Passing", noted)
    given = of_each_site("digits_cnn", 2e-5)[1]
    made("digits_cnn").outputs(given, range(60))
    rows = sum(passing.came[0] for passing in seen)
    assert 0 < rows < 60 * IMAGES // 2
    assert sum(passing.came[-1] for passing in seen) <= rows


def several_sites():
    return plan("digits_cnn", "both")


def one_site_by_batch():
    given = by_batch()
    return given.model_copy(update={"sites": given.sites[:1]})


def an_accumulator():
    shown = sites(network("digits_cnn"), batch("digits_cnn"))
    late = resolve(shown, [LateBits(probability=0.05, bits=4)])
    return only_site(late, late.names[0])


@pytest.mark.parametrize("make", [several_sites, one_site_by_batch, an_accumulator])
def test_all_others_run_as_a_whole(make):
    given = make()
    replaying = made("digits_cnn")
    assert not replaying.can_replay(given)
    assert_same(replaying.outputs(given, SEEDS), engine("digits_cnn").outputs(given, SEEDS))


@pytest.mark.parametrize("name", ["tokens first", pytest.param("windows", marks=pytest.mark.slow)])
def test_samples_that_do_not_lie_along_axis_0(name):
    """Sites whose rows are not the images' run as a whole, as long as the graph's own inputs and outputs have those."""
    network_, x = attention.network(name), attention.batch(name, 4)
    graph = export(network_, x)
    whole = GraphEngine(graph, x.numpy(), batch_size=4)
    given = resolve(sites(network_, x), [BitFlips(probability=0.01)])
    replaying = SuffixEngine(whole)
    found = [replaying.can_replay(only_site(given, site)) for site in given.names]
    assert not all(found)
    for site in given.names[:: len(given.names) // 3]:
        alone = only_site(given, site)
        assert_same(replaying.outputs(alone, SEEDS[:2]), whole.outputs(alone, SEEDS[:2]), site)


def test_replays_that_went_are_made_again(monkeypatch):
    monkeypatch.setattr(suffix, "_KEPT_REPLAYS", 1)
    replaying = made("digits_cnn")
    first, second, *_ = of_each_site("digits_cnn", 0.02)
    for given in (first, second, first):
        assert_same(replaying.outputs(given, SEEDS), engine("digits_cnn").outputs(given, SEEDS))


def test_limits_that_are_none():
    with pytest.raises(HwfaultError, match="the limit is 0 bytes"):
        made("digits_cnn", limit=0)


def test_errors_are_those_of_the_engine():
    given = of_each_site("digits_cnn", 0.02)[0]
    with pytest.raises(HwfaultError, match="expected 0 to 6"):
        made("digits_cnn").outputs(given, [1], [7])
    with pytest.raises(HwfaultError, match="the seed is -1"):
        made("digits_cnn").outputs(given, [-1])


def test_rows_differ_in_bits():
    values = np.array([[0.0, 1.0], [np.nan, 1.0], [-0.0, 1.0], [0.0, 2.0]], np.float32)
    others = np.array([[0.0, 1.0], [np.nan, 1.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    assert differing_rows(values, others).tolist() == [False, False, True, True]
