"""Words that belong to single cells of a device, against a generator in plain Python."""

import numpy as np
import pytest

from hwfault.stream.regions import own_words
from tests.helpers.stream.oracle import philox


@pytest.mark.parametrize("cell", [0, 5, 2**32 - 1, 2**32, 2**32 + 5, 3 * 2**32 + 7, 2**57 + 5])
def test_cells_have_words_of_their_own_also_beyond_2_32(cell):
    """own(K, c) is output 0 of the call with the counter (c mod 2^32, (c div 2^32) << 6, 0, site)."""
    seed, site = 2**63 + 5, 0x89ABCDEF
    words = own_words(seed, site, np.array([cell, 5], np.int64))
    expected = [philox((c % 2**32, c // 2**32 * 64, 0, site), seed)[0] for c in (cell, 5)]
    assert words.tolist() == expected
