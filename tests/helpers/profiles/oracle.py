"""Maps of a device once more, one cell at a time in plain Python, from the specification's text alone.

Nothing of hwfault is used: count tables come from the incomplete beta function, every word of the generator from a call
of its own. `python -m tests.helpers.profiles.oracle` writes maps.json.
"""

import json
from fractions import Fraction
from functools import cache
from hashlib import blake2b
from itertools import count
from math import ceil
from pathlib import Path

from mpmath import mp, mpf

from tests.helpers.stream.oracle import hits, philox

MAPS = Path(__file__).parents[2] / "profiles" / "maps.json"
FLIP, AT_0, AT_1 = 0, 1, 2


class Memory:
    """The case's memory: its size, device, site numbers and v(c)."""

    def __init__(self, case):
        self.rows, self.bits, self.device = case["rows"], case["row_bits"], int(case["device"])
        self.name, weights = case["name"], [Fraction(w) for w in case["bit_weights"] or [1]]
        self.v = [len(weights) * weights[c % len(weights)] / sum(weights) for c in range(self.bits)]
        self.word_bits = max(d for d in range(1, 33) if self.bits % d == 0)

    def site(self, process):
        return int.from_bytes(blake2b(f"{self.name}#{process}".encode(), digest_size=4).digest(), "little")

    def own(self, process, cell):
        return philox((cell % 2**32, cell // 2**32 * 64, 0, self.site(process)), self.device)[0]

    def column_of(self, word):
        thresholds = [int(2**32 * sum(self.v[: j + 1]) / self.bits) for j in range(self.bits - 1)]
        return sum(1 for t in thresholds if t <= word)


def faults(case):
    """[cell, kind] of every faulty cell, ascending."""
    memory, spatial, p = Memory(case), case["spatial"], case["probability"]
    found = {}
    for cell, aux in PATTERNS[spatial["kind"]](spatial, p, memory):
        found.setdefault(cell, memory.own(2, cell) >> 10 if aux is None else aux)
    return [[cell, kind_of(found[cell], case["shares"])] for cell in sorted(found)]


def kind_of(aux, shares):
    _, at_0, at_1 = map(Fraction, shares)
    if aux < round(2**22 * at_1):
        return AT_1
    return AT_0 if aux < round(2**22 * (at_0 + at_1)) else FLIP


def cell_hits(memory, h):
    for plane in range(memory.word_bits):
        words = memory.rows * memory.bits // memory.word_bits
        for word, aux in hits((memory.device, memory.site(0), 0), words, plane, h(plane)):
            yield word * memory.word_bits + plane, aux


def independent(spatial, p, memory):
    return cell_hits(memory, lambda b: float(Fraction(p) * memory.v[b]))


def rows(spatial, p, memory):
    fill = Fraction(spatial["fill"])
    for row, _ in hits((memory.device, memory.site(0), 0), memory.rows, 0, float(Fraction(p) / fill)):
        for c in range(memory.bits):
            if memory.own(1, row * memory.bits + c) < int(2**32 * fill * memory.v[c]):
                yield row * memory.bits + c, None


def clusters(spatial, p, memory):
    sizes, along_row = spatial["sizes"], spatial["along"] == "row"
    thresholds = [round(2**22 * sum(sizes[: j + 1])) for j in range(len(sizes) - 1)]
    h = event_probability(p, sizes, memory.bits if along_row else memory.rows)
    for cell, aux in cell_hits(memory, lambda b: h):
        for step in range(1 + sum(1 for t in thresholds if t <= aux)):
            row, column = divmod(cell, memory.bits)
            row, column = (row, column + step) if along_row else (row + step, column)
            if row < memory.rows and column < memory.bits:
                yield row * memory.bits + column, None


def event_probability(p, sizes, line):
    with mp.workdps(60):
        reach = [sum(sum(map(mpf, sizes[j:]), mpf(0)) for j in range(i + 1)) for i in range(line)]
        x = bisect(lambda x: sum(1 - mp.exp(-x * r) for r in reach) / line - mpf(p), mpf(0), mpf(200))
        return float(1 - mp.exp(-x))


def elements(spatial, p, memory):
    struck = {e for e, _ in hits((memory.device, memory.site(0), 0), spatial["rows"] * spatial["columns"], 0, p)}
    for element in struck:
        yield element * memory.bits + memory.column_of(memory.own(1, element)), None


def bisect(f, low, high):
    """The root of a rising function."""
    for _ in range(250):
        middle = (low + high) / 2
        low, high = (low, middle) if f(middle) >= 0 else (middle, high)
    return high


class Law:
    """The parameters of block_column from the pair (s, a) that the case names."""

    def __init__(self, spatial, memory):
        R, P = spatial.get("row_bits") or memory.bits, spatial["column_period"]  # noqa: N806 (as in the specification)
        self.n, self.M = R * P, Fraction(spatial["at_rate"]) * spatial["block_rows"] * R
        self.s, self.a = (Fraction(x) for x in spatial["pair"])
        s, a, n, M = self.s, self.a, self.n, self.M  # noqa: N806
        self.w = s * M / (n * a)
        self.K = (1 - s) ** 2 / (1 / Fraction(spatial["dispersion"]) - 2 * s * a / M + s * s / n)
        self.by_column = spatial["lone_share"] is not None
        self.k = self.K / n if self.by_column else self.K

    def x(self, p, v):
        s, w, k = (number(q) for q in (self.s, self.w, self.k))

        def faulty(x):
            spared = mpf(0)
            for share in map(number, v):
                weak = 1 - w + w / (1 + x * s / w * share) if w else 1
                spared += (1 + x * (1 - s) * share / k) ** -k * weak
            return 1 - spared / len(v) - mpf(p)

        return bisect(faulty, mpf(0), mpf(2) ** 20)


def number(fraction):
    return mpf(fraction.numerator) / fraction.denominator


@cache
def below(weak, shape, mean, i):
    """P(N <= i), by the regularised incomplete beta function."""
    return 1 - weak + weak * mp.betainc(shape, i + 1, 0, shape / (shape + mean), regularized=True)


def hit_count(word, weak, shape, mean, most):
    """How many hits a region has whose count word is `word`."""
    for i in count():
        if not mean or i == most or 2**32 * (1 - below(weak, shape, mean, i)) < mpf(1) / 2:
            return i
        if mp.floor(2**32 * below(weak, shape, mean, i)) > word:
            return i
    raise AssertionError


def block_column(spatial, p, memory, blocks=None):
    """The cells of hits; of some blocks only, where their numbers are given."""
    with mp.workdps(60):
        law = Law(spatial, memory)
        x, s, w, k = law.x(p, memory.v), number(law.s), number(law.w), number(law.k)
        C = spatial["block_rows"] // spatial["column_period"]  # noqa: N806
        blocks = range(-(-memory.rows // spatial["block_rows"])) if blocks is None else blocks
        found = []
        if law.by_column:
            found += columns(spatial, memory, blocks, 0, lambda v: (mpf(1), k, x * (1 - s) * C * number(v)))
        else:
            mean = x * (1 - s) * spatial["block_rows"] * memory.bits
            found += whole_blocks(spatial, memory, blocks, (mpf(1), k, mean))
        if w:
            found += columns(spatial, memory, blocks, 1, lambda v: (w, mpf(1), x * s / w * C * number(v)))
        return [(cell, None) for cell in found if cell < memory.rows * memory.bits]


def region(memory, process, g):
    """(the count word of region g, a function for the outputs of its hit j)."""
    site = memory.site(process)
    word = philox((0, g // 4 * 64 + 32, 0, site), memory.device)[g % 4]
    return word, lambda j: philox((j, g // 4 * 64 + g % 4, 0, site), memory.device)


def columns(spatial, memory, blocks, process, numbers):
    P, tall = spatial["column_period"], spatial["block_rows"]  # noqa: N806
    for block in blocks:
        for bit in range(memory.bits):
            for remainder in range(P):
                word, outputs = region(memory, process, (block * memory.bits + bit) * P + remainder)
                for j in range(hit_count(word, *numbers(memory.v[bit]), 24 * tall // P)):
                    row = remainder + P * (outputs(j)[0] * (tall // P) // 2**32)
                    yield (block * tall + row) * memory.bits + bit


def whole_blocks(spatial, memory, blocks, numbers):
    most = ceil(24 * spatial["block_rows"] * memory.bits / min(v for v in memory.v if v))
    for block in blocks:
        word, outputs = region(memory, 0, block)
        for j in range(hit_count(word, *numbers, most)):
            o0, o1, _, _ = outputs(j)
            row = block * spatial["block_rows"] + o0 * spatial["block_rows"] // 2**32
            yield row * memory.bits + memory.column_of(o1)


PATTERNS = {
    "independent": independent,
    "rows": rows,
    "clusters": clusters,
    "processing_elements": elements,
    "block_column": block_column,
}


def best_pair(spatial, row_bits):
    """(s, a) of the specification's list with the least miss, one by one; slow."""
    best = (float("inf"), None)
    digits = [Fraction(d, scale) for scale in (100, 10, 1) for d in range(100, 1000)] + [
        Fraction(10 * d) for d in range(100, 1000)
    ]
    for i in range(256):
        for a in digits if i else [Fraction(1)]:
            miss = pair_miss(spatial, row_bits, Fraction(i, 256), a)
            if miss < best[0]:
                best = (miss, [f"{i}/256", str(a)])
    return best[1]


def pair_miss(spatial, row_bits, s, a):
    """How far the statistics of a pair are from the measured; infinite for pairs that are not allowed."""
    R, P = spatial.get("row_bits") or row_bits, spatial["column_period"]  # noqa: N806
    n, M = R * P, spatial["at_rate"] * spatial["block_rows"] * R  # noqa: N806
    s, a = float(s), float(a)
    w, left = s * M / (n * a), 1 / spatial["dispersion"] - 2 * s * a / M + s * s / n
    if w > 1 or left * 1e6 <= (1 - s) ** 2 or (s > 0 and M * left > a * (1 - s)):
        return float("inf")
    K = (1 - s) ** 2 / left  # noqa: N806
    lone, m = spatial["lone_share"], (1 - s) * M / n
    share = 1 - (1 + (1 - s) * M / K) ** -K * (1 - w + w / (1 + a)) ** n
    p = column_numbers(K / n if lone is not None else K, m, w, a, max(spatial["min_per_column"], 2))
    t = spatial["min_per_column"]
    column = 1 - n / M * sum(j * p[j] for j in range(t))
    miss = (share / spatial["block_share"] - 1) ** 2 + (column - spatial["column_share"]) ** 2
    return miss + (0 if lone is None else 9 * (n / M * p[1] - lone) ** 2)


def column_numbers(k, m, w, a, t):
    """P(H = 0), .., P(H = t - 1) of a column's hits."""
    background = [(1 + m / k) ** -k]
    for i in range(t - 1):
        background.append(background[-1] * (k + i) / (i + 1) * m / (k + m))
    weak = [w * (a / (1 + a)) ** i / (1 + a) for i in range(t)]
    weak[0] += 1 - w
    return [sum(background[i] * weak[j - i] for i in range(j + 1)) for j in range(t)]


def write():
    cases = json.loads(MAPS.read_text())["cases"]
    for case in cases:
        if case["spatial"]["kind"] == "block_column":
            case["spatial"]["pair"] = best_pair(case["spatial"], case["row_bits"])
        case["faults"] = faults(case)
    about = (
        "Known answers of maps of a device, written by tests/helpers/profiles/oracle.py from the specification's text. "
        "faults: "
        "[cell, kind] (0 flip, 1 stuck at 0, 2 stuck at 1). pair: (s, a) of block_column. device is a decimal string."
    )
    lines = ",\n".join(json.dumps(case) for case in cases)
    MAPS.write_text(f'{{"about": {json.dumps(about)},\n"cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    write()
