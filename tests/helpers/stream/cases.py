"""Random cases of the fault stream, fast to draw: every process, shape, width and extreme of the numbers."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from hwfault.codes import Codes
from tests.helpers.stream import programs
from tests.helpers.stream.programs import Bit, Cluster, Mask, Process, Random

RATES = (0.0, 1e-12, 3e-9, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1)
HIGH_RATES = (0.3, 0.5, 0.9, 0.999, 1.0)
WORDS = (0, 1, 2, 3, 7, 31, 100, 1000, 1022, 1023, 1024, 1025, 1100, 2047, 2048, 2049, 3000)
SEEDS = (0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
SITES = (0, 1, 2**31, 2**32 - 1)
SAMPLES = (0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 + 7, 2**63 - 1, -1, -(2**32), -(2**63))


@dataclass(frozen=True)
class Case:
    """One draw: the codes of one sample and what strikes them."""

    codes: Codes
    processes: tuple[Process, ...]
    seed: int
    sample: int
    bit_width: int

    @property
    def program(self) -> tuple[int, ...]:
        return programs.program(self.processes)


class Draw:
    """Draws cases, one after the other, from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """Uniform in low .. high, both included."""
        return int(self.rng.integers(low, high, endpoint=True, dtype=np.uint64 if high >= 2**63 else np.int64))

    def one_of(self, some):
        return some[self.integer(0, len(some) - 1)]

    def mostly(self, p: float, usual, some):
        """`usual()` with probability p, else one of `some`."""
        return usual() if self.rng.random() < p else self.one_of(some)

    def bit_width(self) -> int:
        return self.mostly(0.6, lambda: self.integer(1, 8), range(1, 33))

    def words(self) -> int:
        return self.mostly(0.4, lambda: self.integer(1, 1024), WORDS)

    def sample(self) -> int:
        return self.mostly(0.5, lambda: self.integer(0, 10_000), SAMPLES)

    def seed(self) -> int:
        return self.mostly(0.7, lambda: self.integer(0, 2**64 - 1), SEEDS)

    def site(self) -> int:
        return self.mostly(0.9, lambda: self.integer(0, 2**32 - 1), SITES)

    def rate(self, cells: int) -> float:
        """High rates only where they cost little."""
        return self.one_of(HIGH_RATES if cells < 5000 and self.rng.random() < 0.2 else RATES)

    def accepts(self) -> tuple[int, int]:
        some = (0, 1, 2**22 - 1, 2**22, 2**22)
        pair = tuple(self.mostly(0.3, lambda: self.integer(0, 2**22), some) for _ in range(2))
        return pair if self.rng.random() < 0.5 else (2**22, 2**22)

    def thresholds(self) -> tuple[int, ...]:
        """Size thresholds, sometimes empty, with ties, or far longer than a word."""
        n = self.one_of((0, 1, 2, 3, 40))
        return tuple(sorted(self.mostly(0.8, lambda: self.integer(0, 2**22), (0, 2**22)) for _ in range(n)))

    def process(self, bits: int, words: int) -> Process:
        kind, site = self.integer(0, 3), self.site()
        if kind == 0:
            return Bit(site, tuple((self.rate(bits * words), *self.accepts()) for _ in range(bits)))
        if kind == 1:
            rates = tuple(self.rate(bits * words * 2) for _ in range(bits))
            return Cluster(site, self.one_of(("bit", "word")), self.thresholds(), rates)
        if kind == 2:
            return Mask(site, self.rate(words), self.integer(1, 2**bits - 1))
        return Random(site, self.rate(words))

    def processes(self, bits: int, words: int) -> tuple[Process, ...]:
        count = self.mostly(0.6, lambda: 1, (0, 2, 2, 3))
        return tuple(self.process(bits, words) for _ in range(count))

    def codes(self, bits: int, words: int) -> Codes:
        return self.rng.integers(0, 2**bits, words, dtype=np.uint64).astype(np.uint32)

    def case(self) -> Case:
        bits, words = self.bit_width(), self.words()
        return Case(self.codes(bits, words), self.processes(bits, words), self.seed(), self.sample(), bits)


@cache
def cases(seed: int, count: int) -> tuple[Case, ...]:
    """`count` cases drawn from `seed`."""
    draw = Draw(seed)
    return tuple(draw.case() for _ in range(count))
