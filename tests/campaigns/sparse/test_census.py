"""Censuses: known answers by hand, parts of one, and the digits network beside plain Brevitas."""

import numpy as np
import pytest
import torch

from hwfault.campaigns.sparse import SparseEngine, all_flips, census, describe, flips_of
from hwfault.graph.export.of_network import export
from hwfault.stream.native.network import GoldenRun, weight_flips
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits
from tests.campaigns.sparse.test_brevitas import edited_outputs
from tests.campaigns.sparse.test_errors import AFFINE, NETWORK, parsed

IMAGES = torch.rand(21, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network():
    return build("digits_cnn", seed=1)


@pytest.fixture(scope="module")
def described(network):
    return describe(network, IMAGES)


def test_known_answers():
    """weights -4 -3 -2 -1 and 0 1 2 3: outputs 0.5 * sums + 0.25."""
    images = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, -1], [-7, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    run = GoldenRun(parsed(NETWORK + AFFINE), images, 2, 2)
    assert run.outputs[:, 0].tolist() == [-1.75, 0.25, -3.75, 14.25, -4.75]
    # the first weight of the second output becomes -8, that of the first one 4
    struck = run.strike_all(weight_flips(1, np.array([4, 0]), np.array([-8, 8], np.int32)), survivors=True)
    # the sums -4/0, 0/0, -8/0, 28/0, -10/6 become -4/-8, 0/0, -8/-8 (equal: the first is the answer), 28/56, -10/-2;
    # and 4/0, 0/0, 0/0 (equal again), -28/0, -2/6
    assert np.unpackbits(struck.top1, axis=1)[:, :5].tolist() == [[1, 0, 1, 1, 0], [1, 0, 1, 1, 0]]
    assert struck.died.tolist() == [[0, 1], [0, 1]]
    assert struck.flip.tolist() == [0] * 4 + [1] * 4
    assert struck.image.tolist() == [0, 2, 3, 4] * 2
    assert struck.outputs[:, 1].tolist() == [-3.75, -3.75, 28.25, -0.75, 0.25, 0.25, 0.25, 3.25]


def test_every_flip_comes_once_in_order(described):
    flips = all_flips(described)
    assert len(flips) == 102_976
    keys = np.stack([flips.site, flips.word, flips.bit])
    assert np.array_equal(np.lexsort(keys[::-1]), np.arange(len(flips)))
    assert flips.cell(4 * 144 + 5) == {"site": "features.2.weight_quant", "word": 1, "bit": 1, "kind": "flip"}


def test_digits_are_as_plain_brevitas_has_them(network, described):
    """Scales are powers of two and sums below 2^24, so that no arithmetic is rounded."""
    flips = all_flips(described)
    chosen = flips[np.random.default_rng(0).choice(len(flips), 100, replace=False)]
    found = census(described, IMAGES, flips=chosen)
    with torch.no_grad():
        golden = network(IMAGES).numpy()
    expected = np.array([edited_outputs(network, IMAGES, chosen.cell(i)) for i in range(len(chosen))])
    assert np.array_equal(found.golden, golden)
    assert np.array_equal(found.changed(), expected.argmax(2) != golden.argmax(1))


@pytest.mark.slow
def test_census_of_trained_digits():
    """All 102,976 flips by 360 images, of which 1,000 flips are run by Brevitas."""
    data, config = digits(), TrainConfig()
    network = build(config.network, seed=config.seed)
    train(network, data, config)
    found = census(network.eval(), data.test_x)
    assert found.runs == 102_976 * 360
    with torch.no_grad():
        golden = network(data.test_x).numpy()
    chosen = np.random.default_rng(0).choice(len(found.flips), 1000, replace=False)
    expected = np.array([edited_outputs(network, data.test_x, found.flips.cell(i)).argmax(1) for i in chosen])
    assert np.array_equal(found.changed(chosen), expected != golden.argmax(1))


def test_parts_are_the_whole(described):
    """Whatever is run at a time, of images or flips."""
    flips = flips_of(described, "features.4.weight_quant", np.arange(900) * 20, np.arange(900) % 4)
    whole = census(described, IMAGES, flips=flips)
    assert 0 < whole.rate < 1
    small = census(described, IMAGES, flips=flips, memory=1)  # eight images
    halves = [census(described, IMAGES, flips=half) for half in (flips[:400], flips[400:])]
    for name in ("top1", "died"):
        assert np.array_equal(getattr(small, name), getattr(whole, name))
        assert np.array_equal(np.concatenate([getattr(half, name) for half in halves]), getattr(whole, name))
    assert np.array_equal(small.golden, whole.golden)
    first = census(described, IMAGES[:8], flips=flips)
    assert np.array_equal(first.top1, whole.top1[:, :1])


def test_order_of_flips_does_not_matter(described):
    flips = all_flips(described)[np.random.default_rng(1).choice(102_976, 300, replace=False)]
    order = np.lexsort((flips.bit, flips.word, flips.site))
    assert np.array_equal(
        census(described, IMAGES, flips=flips).top1[order], census(described, IMAGES, flips=flips[order]).top1
    )


def test_criterion(described):
    """The answer itself as a criterion is the mask of changed answers; runs whose outputs are golden are not asked."""
    flips = all_flips(described, ["features.0.weight_quant"])
    asked = []

    def top1(outputs, golden, images):
        asked.append(len(images))
        assert np.all(np.any(outputs != golden, axis=1))
        assert np.array_equal(golden, engine.golden[images])
        return outputs.argmax(1) != golden.argmax(1)

    engine = SparseEngine(described, IMAGES)
    found = census(described, IMAGES, flips=flips, criterion=top1, memory=1)
    assert np.array_equal(found.events, found.top1)
    assert sum(asked) == found.runs - found.died.sum()


def test_progress(described):
    told = []
    flips = all_flips(described, ["features.0.weight_quant"])
    found = census(described, IMAGES, flips=flips, deaths=False, progress=lambda done, runs: told.append((done, runs)))
    assert found.died is None
    assert told[-1] == (found.runs, found.runs)
    assert told == sorted(told)


def test_a_graph_is_as_good_as_its_network(network, described):
    graph = export(network, IMAGES, arithmetic="integer")
    flips = all_flips(described)[::5000]
    assert np.array_equal(census(graph, IMAGES, flips=flips).top1, census(described, IMAGES, flips=flips).top1)


def test_the_mode_of_a_network_does_not_matter(network, described):
    network.train()
    assert np.array_equal(SparseEngine(network, IMAGES).golden, SparseEngine(described, IMAGES).golden)
    assert network.training
