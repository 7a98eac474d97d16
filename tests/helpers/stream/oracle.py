"""The fault stream once more, in plain Python integers, from the specification's text alone.

Nothing of hwfault is used here: the count tables come from the incomplete gamma function instead of a running sum,
every stream word from a call of its own.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count, takewhile

from mpmath import mp, mpf

from tests.helpers.stream.programs import Bit, Cluster, Mask, Process, Random

WORDS = 63
M32 = 0xFFFFFFFF


def philox(counter: Sequence[int], key: int) -> tuple[int, int, int, int]:
    """Philox4x32-10 as Salmon et al. write it: ten rounds, the key bumped between them."""
    left0, right0, left1, right1 = counter  # named as in the paper's figure: two pairs, swapped each round
    k0, k1 = key % 2**32, key // 2**32
    for step in range(10):
        if step:
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        high0, low0 = divmod(0xD2511F53 * left0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * left1, 2**32)
        left0, right0, left1, right1 = high1 ^ right0 ^ k0, low1, high0 ^ right1 ^ k1, low0
    return left0, right0, left1, right1


@cache
def threshold(h: float, i: int) -> int | None:
    """T[i] of section 3, None past the table's end: P(N <= i) is the regularised incomplete gamma Q(i + 1, L)."""
    with mp.workdps(60):
        below = mp.gammainc(i + 1, -1024 * mp.log(1 - mpf(h)), mp.inf, regularized=True)
        return None if 2**32 * (1 - below) < mpf(1) / 2 else int(mp.floor(2**32 * below))


def thresholds(h: float) -> tuple[int, ...]:
    """The whole table."""
    return tuple(takewhile(lambda t: t is not None, (threshold(h, i) for i in count())))


def stream_word(draw: tuple[int, int, int], block: int, plane: int, m: int) -> int:
    seed, site, sample = draw
    return philox((m // 4, block * 64 + plane, sample % 2**32, site), seed)[m % 4]


def hit_count(draw: tuple[int, int, int], block: int, plane: int, h: float) -> int:
    if h in (0.0, 1.0):
        return 1024 * int(h)
    seed, site, sample = draw
    word = philox((0, block * 64 + 32 + plane // 4, sample % 2**32, site), seed)[plane % 4]
    return bisect(range(10**6), False, key=lambda i: (t := threshold(h, i)) is None or t > word)


def hits(draw: tuple[int, int, int], words: int, plane: int, h: float) -> Iterator[tuple[int, int]]:
    """(word, aux) of each hit; aux is v on the word plane."""
    for block in range((words + 1023) // 1024):
        for m in range(hit_count(draw, block, plane, h)):
            r = stream_word(draw, block, plane, 2 * m if plane == WORDS else m)
            word = 1024 * block + (m if h == 1.0 else r % 1024)
            if word < words:
                yield word, stream_word(draw, block, plane, 2 * m + 1) if plane == WORDS else r // 1024


def apply(codes: Sequence[int], process: Process, seed: int, sample: int, bits: int) -> list[int]:
    """The codes of one sample after one process."""
    draw, stored = (seed, process.site, sample), list(codes)
    if isinstance(process, Mask | Random):
        return _words(stored, process, draw, bits)
    struck = _bit_cells(stored, process, draw) if isinstance(process, Bit) else _cluster_cells(stored, process, draw)
    after = list(stored)
    for word, plane in set(struck):
        after[word] = after[word] - 2**plane if (stored[word] >> plane) % 2 else after[word] + 2**plane
    return after


def _bit_cells(stored: list[int], process: Bit, draw: tuple[int, int, int]) -> Iterator[tuple[int, int]]:
    for plane, (h, accept01, accept10) in enumerate(process.planes):
        for word, aux in hits(draw, len(stored), plane, h):
            if (stored[word] >> plane) % 2 == 0 and aux < accept01:
                yield word, plane
            if (stored[word] >> plane) % 2 == 1 and aux >= 2**22 - accept10:
                yield word, plane


def _cluster_cells(stored: list[int], process: Cluster, draw: tuple[int, int, int]) -> Iterator[tuple[int, int]]:
    bits = len(process.rates)
    for plane, h in enumerate(process.rates):
        for word, aux in hits(draw, len(stored), plane, h):
            for step in range(1 + sum(1 for c in process.thresholds if c <= aux)):
                if process.axis == "bit" and plane + step < bits:
                    yield word, plane + step
                if process.axis == "word" and word % 1024 + step < 1024 and word + step < len(stored):
                    yield word + step, plane


def _words(stored: list[int], process: Mask | Random, draw: tuple[int, int, int], bits: int) -> list[int]:
    after = list(stored)
    for word, v in hits(draw, len(stored), WORDS, process.rate):
        if isinstance(process, Mask):
            after[word] = stored[word] ^ process.mask
        else:
            after[word] = (stored[word] + 1 + v * (2**bits - 1) // 2**32) % 2**bits
    return after


def inject_codes(codes: Sequence[int], processes: Sequence[Process], seed: int, sample: int, bits: int) -> list[int]:
    """The codes of one sample after all processes, in order."""
    after = list(codes)
    for process in processes:
        after = apply(after, process, seed, sample, bits)
    return after
