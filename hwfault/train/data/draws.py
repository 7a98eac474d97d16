"""The random numbers of data: raw words of NumPy's PCG64 under the key (seed, epoch, purpose, ...).

Made from raw words here, because NumPy keeps those the same in all its versions, and its `permutation` not (NEP 19).
"""

import numpy as np
from numpy.typing import NDArray

ORDER, AUGMENT, SPLIT = 0, 1, 2
COLUMNS = 8


def words(count: int, seed: int, epoch: int, purpose: int, *more: int) -> NDArray[np.uint64]:
    """The first `count` 64 bit words under a key: a seed below 2^64, the other numbers below 2^32."""
    # the seed as two words always: NumPy would take one or two, and (seed, epoch) could read as another seed
    key = np.random.SeedSequence([seed & 0xFFFFFFFF, seed >> 32, epoch, purpose, *more])
    return np.asarray(np.random.PCG64(key).random_raw(count), dtype=np.uint64)


def permutation(count: int, seed: int, epoch: int, purpose: int) -> NDArray[np.int64]:
    """The numbers 0 to count - 1, in the order of as many words."""
    return np.argsort(words(count, seed, epoch, purpose), kind="stable")


def uniform(count: int, seed: int, epoch: int) -> NDArray[np.float32]:
    """Numbers in [0, 1) to change each sample of an epoch with, (count, 8): multiples of 2^-24."""
    # of 24 bits every one is kept: a float32 has no more
    top = words(count * COLUMNS, seed, epoch, AUGMENT) >> np.uint64(40)
    fractions = top.astype(np.float32) * np.float32(2**-24)
    return fractions.reshape(count, COLUMNS)
