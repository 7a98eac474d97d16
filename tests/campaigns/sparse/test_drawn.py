"""Networks at random: every answer is that of the same network run densely in NumPy with the weight changed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwfault.campaigns.sparse import SparseEngine, all_flips, census
from hwfault.campaigns.sparse.flips import changes_of
from tests.campaigns.sparse.drawn import networks
from tests.campaigns.sparse.oracle import outputs_of

FEW = 30


@given(networks(), st.integers(0, 2**32 - 1))
def test_flips_give_what_a_dense_run_gives(drawn, seed):
    description, images = drawn
    golden = outputs_of(description, images)
    flips = all_flips(description)
    chosen = flips[np.sort(np.random.default_rng(seed).choice(len(flips), min(FEW, len(flips)), replace=False))]
    found = census(description, images, flips=chosen)
    assert np.array_equal(found.golden, golden)

    engine = SparseEngine(description, images)
    every = np.arange(len(images))
    for i, change in enumerate(changes_of(description, chosen)):
        node = description.sites[chosen.names[chosen.site[i]]].node
        expected = outputs_of(description, images, node, chosen.word[i], change)
        assert np.array_equal(engine.run(chosen[np.full(len(images), i)], every), expected)
        assert np.array_equal(found.changed(slice(i, i + 1))[0], expected.argmax(1) != golden.argmax(1))
        differ = np.any(expected != golden, axis=1).sum()
        assert found.died[i].sum() == len(images) - differ
