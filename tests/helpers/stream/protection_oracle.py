"""Protected memories once more, bit by bit in plain Python, from the specification's text alone.

Nothing of hwfault is used here; the stream's hits come from the other oracle. Bits are lists of 0 and 1, lowest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.helpers.stream import oracle
from tests.helpers.stream.programs import Process

ALWAYS = 2**32


@dataclass(frozen=True)
class Map:
    """Rows of (sub-word, and_mask, xor_mask), and what the activity of their cells is drawn for."""

    rows: tuple[tuple[int, int, int], ...] = ()
    threshold: int = ALWAYS
    site: int = 0
    period: int = 0


@dataclass(frozen=True)
class Memory:
    """Kind, data bits, slot and what becomes of detected words; a table of (number, cells) if not linear."""

    kind: str
    data_bits: int
    slot: int
    due: bool = False
    table: tuple[tuple[int, tuple[int, ...]], ...] = field(default=())


def positions(data_bits: int) -> tuple[list[int], list[int]]:
    """The positions of the data bits and of the Hamming check bits."""
    data: list[int] = []
    check = [1]
    at = 2
    while len(data) < data_bits:
        if at == 2 * check[-1]:
            check.append(at)
        else:
            data.append(at)
        at += 1
    return data, check


def stored(data: list[int], kind: str) -> list[int]:
    """The cells of a memory word."""
    if kind == "parity":
        return [*data, sum(data) % 2]
    if kind == "tmr":
        return data * 3
    where, checks = positions(len(data))
    cells = data + [sum(bit for bit, at in zip(data, where, strict=True) if at & check) % 2 for check in checks]
    return [*cells, sum(cells) % 2]


def read(cells: list[int], data_bits: int, kind: str) -> tuple[list[int], str]:
    """The data bits that a decoder makes of the cells, and what it says."""
    data = cells[:data_bits]
    if kind == "parity":
        return data, "detected" if sum(cells) % 2 else "nothing"
    if kind == "tmr":
        three = list(zip(data, cells[data_bits : 2 * data_bits], cells[2 * data_bits :], strict=True))
        agree = all(len(set(copies)) == 1 for copies in three)
        return [int(sum(copies) >= 2) for copies in three], "nothing" if agree else "corrected"
    where = [at for group in positions(data_bits) for at in group]
    syndrome = 0
    for at, bit in zip(where, cells, strict=False):  # the overall parity has no position
        syndrome ^= at * bit
    if sum(cells) % 2 == 0:
        return data, "detected" if syndrome else "nothing"
    if syndrome == 0:
        return data, "corrected"
    if syndrome not in where:
        return data, "detected"
    repaired = [bit ^ (at == syndrome) for at, bit in zip(where, cells, strict=False)]
    return repaired[:data_bits], "corrected"


def shape(memory: Memory) -> tuple[int, int, int]:
    """Cells, sub-words, and bits of a sub-word of a memory word."""
    cells = len(stored([0] * memory.data_bits, memory.kind))
    sub_words = 1
    while sub_words * 32 < cells:
        sub_words *= 2
    return cells, sub_words, min(cells, 32)


def layout(memory: Memory, words: int, bits: int) -> list[tuple[int, list[tuple[int, int] | None]]]:
    """The number of each memory word, and the (word, bit) that each of its data bits comes from."""
    if memory.table:
        return [(m, [None if c < 0 else divmod(c, 32) for c in cells]) for m, cells in memory.table]
    string = [(w, i) if i < bits else None for w in range(words) for i in range(memory.slot)]
    string += [None] * (-len(string) % memory.data_bits)
    return [(m, string[m * memory.data_bits :][: memory.data_bits]) for m in range(len(string) // memory.data_bits)]


def to_number(bits: Sequence[int]) -> int:
    return sum(bit << i for i, bit in enumerate(bits))


def to_bits(number: int, count: int) -> list[int]:
    return [(number >> i) & 1 for i in range(count)]


def active(faults: Map, seed: int, word: int, bit: int) -> bool:
    """Whether a faulty cell shows its fault in the map's period."""
    counter = (bit * 256 + word % 1024 // 4, (word // 1024 * 64 + 62) % 2**32, faults.period % 2**32, faults.site)
    return oracle.philox(counter, seed)[word % 4] < faults.threshold


def strike(sub_words: list[int], first: int, faults: Map, seed: int) -> list[int]:
    """The sub-words `first`, ... after the map."""
    after = list(sub_words)
    for word, and_mask, xor_mask in faults.rows:
        if not 0 <= word - first < len(after):
            continue
        for bit in range(32):
            keep, flip = and_mask >> bit & 1, xor_mask >> bit & 1
            if (not keep or flip) and active(faults, seed, word, bit):
                old = after[word - first]
                after[word - first] = old - (old & 1 << bit) + (((old >> bit & keep) ^ flip) << bit)
    return after


def protect(
    codes: Sequence[int],
    memory: Memory,
    bits: int,
    processes: Sequence[Process],
    seed: int,
    sample: int,
    faults: Map,
) -> tuple[list[int], list[int]]:
    """The codes of one sample after the faults of its memory, and (corrected, detected, miscorrected)."""
    n, sub, width = shape(memory)
    where = layout(memory, len(codes), bits)
    kept = [[0 if at is None else codes[at[0]] >> at[1] & 1 for at in cells] for _, cells in where]
    words = []
    for data in kept:
        cells = stored(data, memory.kind)
        words += [to_number(cells[32 * j : 32 * j + 32]) for j in range(sub)]
    if processes:
        words = oracle.inject_codes(words, processes, seed, sample, width)
    after, counts = list(codes), [0, 0, 0]
    for k, (m, cells) in enumerate(where):
        struck = strike(words[k * sub : k * sub + sub], m * sub, faults, seed)
        data, verdict = read([struck[c // 32] >> c % 32 & 1 for c in range(n)], memory.data_bits, memory.kind)
        if verdict == "detected":
            counts[1] += 1
            data = data if memory.due else [0] * memory.data_bits
        elif data != kept[k]:
            counts[2] += 1
        elif verdict == "corrected":
            counts[0] += 1
        for at, was, now in zip(cells, kept[k], data, strict=True):
            if at is not None:
                after[at[0]] ^= (was ^ now) << at[1]
    return after, counts
