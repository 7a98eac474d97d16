"""Calls of the C functions of export/include/hwfault.h with numbers at random, on memory of just the size they name."""

import ctypes
import random
from collections.abc import Callable, Sequence
from ctypes import byref, c_int32, c_int64, c_uint32, c_uint64
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwfault.stream import native
from hwfault.stream.native.header import Array, Layer, Protection
from hwfault.stream.protection import KINDS, Memory
from tests.fuzz.graphs import LATE
from tests.helpers.stream.programs import ALL, Bit, Cluster, Mask, Random, program

T = TypeVar("T")
HUGE = (1 << 63) - 1
STRANGE = (0, 1, -1, -2, 2, 3, 4, 31, 33, ALL, ALL + 1, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 62, HUGE, -HUGE - 1)
TYPES = (np.float32, np.float64, np.float16, np.uint16)


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(native.library_path()))


def _call(name: str, *arguments: Any) -> str:
    """Calls a function; a refusal must come with a text."""
    function = getattr(_library(), f"hwfault_{name}")
    function.restype = c_int64
    result = function(*(_pointer(a) if isinstance(a, np.ndarray) or a is None else a for a in arguments))
    if result >= 0:
        return "ran"
    text = _library().hwfault_error_text
    text.restype = ctypes.c_char_p
    assert result == -1, result
    assert len(text(c_int64(result))) > 10
    return "refused"


def _pointer(array: NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


class Rng(random.Random):
    """Draws the numbers of a call; one that is not wild has none that is wrong, or few would get beyond the checks."""

    wild = True


def _or(rng: Rng, good: T, *bad: T, share: float = 0.04) -> T:
    return rng.choice(bad) if rng.wild and rng.random() < share else good


class _Numbers:
    """The structs of a call, and the arrays that they point into."""

    def __init__(self, rng: Rng) -> None:
        self.rng, self.kept = rng, list[NDArray[Any]]()
        self.bits = _or(rng, rng.choice((1, 2, 4, 8, 32)), 0, -1, 33, (1 << 31) - 1)
        self.batch, self.words = rng.choice((0, 1, 2, 3)), rng.choice((0, 1, 20, 60, 1023, 1024, 1025, 2100))
        self.seed = rng.choice((0, 1, (1 << 64) - 1))
        self.threads = c_int32(rng.choice((1, 2, 4, 0, -1, (1 << 31) - 1)))
        self.dtype = rng.randrange(4)
        self.size = self.batch * self.words
        self.sizes = (_or(rng, self.batch, -1, -HUGE), _or(rng, self.words, -1, (1 << 36) + 1, HUGE))

    def array(self, values: Sequence[Any] | NDArray[Any], kind: Any = np.int64) -> ctypes.c_void_p:
        """A pointer to numbers that live as long as this."""
        self.kept.append(np.array(values, kind))
        return _pointer(self.kept[-1])

    def values(self, size: int | None = None, kind: Any = None) -> NDArray[Any]:
        """Values of a tensor in the call's type, some of them no finite numbers."""
        count, kind = self.size if size is None else size, TYPES[self.dtype] if kind is None else kind
        generator = np.random.default_rng(self.rng.getrandbits(32))
        if kind == np.uint16:
            return generator.integers(0, 1 << 16, count, np.uint16)
        values = generator.normal(0, 10, count)
        if count:
            values[self.rng.randrange(count)] = self.rng.choice((np.nan, np.inf, -np.inf, 1e300, 2.0**62, 0.0))
        with np.errstate(over="ignore"):
            return values.astype(kind)

    def count(self) -> Any:
        """Where a count may be written to, or nowhere."""
        return self.rng.choice((None, self.array([-1])))

    @property
    def own_type(self) -> c_int32:
        return c_int32(_or(self.rng, self.dtype, -1, 4, (1 << 31) - 1))

    def program(self, bits: int) -> list[int]:
        """A program for words of so many bits, at times with a few numbers changed."""
        rng, bits = self.rng, min(max(bits, 1), 32)
        rates = [rng.choice((0.0, 0.001, 0.1, 1.0)) for _ in range(bits)]
        choices: tuple[Callable[[], Sequence[int]], ...] = (
            lambda: program((Bit(7, tuple((h, rng.choice((0, 9, ALL)), ALL) for h in rates)),)),
            lambda: program((Cluster(9, rng.choice(("bit", "word")), (1 << 20, 1 << 21), tuple(rates)),)),
            lambda: program((Mask(4, 0.02, 1), Random(5, 0.3))),
            lambda: LATE,
            lambda: (),
        )
        numbers = [n for _ in range(rng.choice((1, 1, 2))) for n in rng.choice(choices)()]
        for _ in range(_or(rng, 0, 1, 2, share=0.5)):
            at, way = rng.randrange(len(numbers) + 1), rng.randrange(3)
            if way == 0:
                numbers.insert(at, rng.choice(STRANGE))
            elif way == 1:
                del numbers[at : at + rng.choice((1, 2, 9))]
            elif numbers:
                numbers[at - 1] = rng.choice(STRANGE)
        return numbers

    def draw(self, bits: int | None = None, empty: bool = False) -> native.Draw:
        numbers = [] if empty else self.program(self.bits if bits is None else bits)
        samples = self.array([self.rng.choice((0, 3, HUGE, -HUGE - 1)) for _ in range(self.batch)])
        length = _or(self.rng, len(numbers), -1, -HUGE)
        return native.Draw(c_uint64(self.seed), samples, *self.sizes, self.array(numbers), length)

    def format(self) -> native.Format:
        fields: list[Any] = []
        for good in ((0.5, 0.25, 4.0), (0.0, 1.0, -3.0)):
            count = self.rng.choice((1, 1, 3, 7))
            values = [
                _or(self.rng, self.rng.choice(good), 0.0, float("nan"), float("inf"), 1e-310) for _ in range(count)
            ]
            inner = _or(self.rng, self.rng.choice((1, 5, HUGE)), 0, -1, -HUGE)
            fields += [self.array(values, np.float64), _or(self.rng, count, 0, -1, -HUGE), inner]
        return native.Format(*fields, self.bits, self.rng.randrange(2), _or(self.rng, self.rng.randrange(3), -1, 3))

    def map(self, bits: int | None = None, words: int | None = None) -> native.Map:
        words, most = self.words if words is None else words, (1 << min(max(bits or self.bits, 1), 32)) - 1
        rows = self.rng.choice((0, 1, 5, 40))
        word = sorted(self.rng.sample(range(words), min(rows, words)))
        word = [_or(self.rng, w, -1, words, HUGE, w + 1, share=0.005) for w in word]
        masks = [
            [self.rng.getrandbits(32) & _or(self.rng, most, (1 << 32) - 1, share=0.01) for _ in word] for _ in "ax"
        ]
        columns = self.array(word), *(self.array(mask, np.uint32) for mask in masks)
        threshold = _or(self.rng, self.rng.choice((0, 1 << 31, 1 << 32)), -1, (1 << 32) + 1, HUGE)
        period = self.array([self.rng.choice((0, 7, -1)) for _ in range(self.batch)])
        count = _or(self.rng, len(word), -1, -HUGE)
        return native.Map(*self.sizes, *columns, count, threshold, self.seed, 9, _or(self.rng, period, None))

    def protection(self) -> tuple[Protection, int]:
        """A protected memory, and how many bits its sub-words have at most."""
        rng, kind, data = self.rng, _or(self.rng, self.rng.randint(1, 3), 0, 4, -1), self.rng.choice((1, 4, 8, 32, 64))
        rows = rng.choice((0, 0, 3, 9)) if self.words else 0
        cells = [
            rng.randrange(max(self.words, 1)) * 32 + rng.randrange(max(min(self.bits, 32), 1))
            for _ in range(rows * data)
        ]
        share = rng.choice((0.0, 0.0, 0.05))
        beyond = self.words * 32
        cells = [_or(rng, c, -1, -2, HUGE, beyond, beyond + 320, 1 << 40, 1 << 62, share=share) for c in cells]
        number = sorted(rng.randrange(20) for _ in range(rows))
        number = [_or(rng, n, -1, HUGE, 1 << 36, share=0.01) for n in number]
        slot = _or(rng, rng.choice((min(max(self.bits, 1), 64), 32, 64)), 0, 65, -1)
        table = self.array(number), self.array(cells), _or(rng, rows, -1, -HUGE)
        width = Memory(KINDS[kind - 1], data, slot, False).sub_word_bits if kind in (1, 2, 3) and 0 < slot <= 64 else 32
        return Protection(
            kind, _or(rng, data, 0, 65, -5, share=0.01) if not rows else data, slot, rng.randrange(2), *table
        ), width


def _inject(rng: Rng) -> str:
    n = _Numbers(rng)
    x = n.values()
    out = x if rng.random() < 0.3 else np.empty_like(x)
    return _call("inject", n.own_type, x, out, byref(n.draw()), byref(n.format()), n.threads, n.count())


def _zero_faulty(rng: Rng) -> str:
    n = _Numbers(rng)
    gradient, x = n.values(), n.values()
    given = _or(rng, x, None, share=0.3)
    return _call("zero_faulty", n.own_type, gradient, n.values(), given, byref(n.draw()), byref(n.format()), n.threads)


def _faulty_words(rng: Rng) -> str:
    n = _Numbers(rng)
    room = rng.choice((0, 1, 50))
    position, before, after = np.empty(room, np.int64), np.empty(room, np.uint32), np.empty(room, np.uint32)
    found = position, _or(rng, before, None, share=0.3), _or(rng, after, None, share=0.3)
    return _call("faulty_words", n.own_type, n.values(), byref(n.draw()), byref(n.format()), c_int64(room), *found)


def _inject_codes(rng: Rng) -> str:
    n = _Numbers(rng)
    codes = np.random.default_rng(rng.getrandbits(32)).integers(0, 1 << 32, n.size, np.uint32)
    return _call("inject_codes", codes, byref(n.draw()), c_int32(n.bits))


def _hits(rng: Rng) -> str:
    n = _Numbers(rng)
    table = [_or(rng, t, *STRANGE) for t in rng.choice(([-1], [0], [2, 1 << 30, 1 << 31], [1, 5]))]
    room = rng.choice((0, 1, 50))
    word, aux = np.empty(room, np.int64), np.empty(room, np.uint32)
    plane = rng.choice((0, 5, 31, 63, -1, 32, 62, 64, (1 << 31) - 1))
    which = c_uint64(n.seed), c_uint32(7), c_uint32(3), c_int64(n.sizes[1]), c_int32(plane)
    length = c_int64(_or(rng, len(table), -1, 0, -HUGE))
    return _call("hits", *which, n.array(table), length, c_int64(room), word, aux)


def _apply_map(rng: Rng) -> str:
    n = _Numbers(rng)
    x = n.values()
    out = x if rng.random() < 0.3 else np.empty_like(x)
    return _call("apply_map", n.own_type, x, out, byref(n.map()), byref(n.format()), n.threads, n.count())


def _zero_map(rng: Rng) -> str:
    n = _Numbers(rng)
    given = _or(rng, n.values(), None, share=0.3)
    return _call("zero_map", n.own_type, n.values(), n.values(), given, byref(n.map()), byref(n.format()), n.threads)


def _range(n: _Numbers) -> native.Range:
    """A range of the integers of a call's words, at times a wrong one."""
    most = (1 << min(max(n.bits, 1), 32) - 1) - 1
    low, high = sorted(n.rng.randrange(most + 1) for _ in range(2))
    ends = low, high, n.rng.choice((low, high)), n.rng.choice((low, high))
    return native.Range(*n.sizes, *(_or(n.rng, end, *STRANGE, share=0.02) for end in ends))


def _clip(rng: Rng) -> str:
    n = _Numbers(rng)
    x = n.values()
    out = x if rng.random() < 0.3 else np.empty_like(x)
    return _call("clip", n.own_type, x, out, byref(_range(n)), byref(n.format()), n.threads)


def _zero_clipped(rng: Rng) -> str:
    n = _Numbers(rng)
    x = _or(rng, n.values(), None)
    given = n.values(), n.values(), x, byref(_range(n)), byref(n.format())
    return _call("zero_clipped", n.own_type, *given, n.threads)


def _in_memory(n: _Numbers) -> list[Any]:
    """Draw, map, format and memory of a call."""
    protection, width = n.protection()
    sub_words = n.map(width, _or(n.rng, min(n.words, 90), 90, 1 << 20))
    structs = n.draw(width, empty=protection.rows > 0), sub_words, n.format(), protection
    return [byref(struct) for struct in structs]


def _protected(rng: Rng) -> str:
    n = _Numbers(rng)
    given, x = _in_memory(n), n.values()
    return _call("protected", n.own_type, x, np.empty_like(x), *given, np.empty(3, np.int64), n.threads)


def _zero_protected(rng: Rng) -> str:
    n = _Numbers(rng)
    return _call("zero_protected", n.own_type, n.values(), n.values(), n.values(), *_in_memory(n), n.threads)


def _accumulate(rng: Rng) -> str:
    """A layer of any numbers; what is too large to have memory here must be refused."""
    n = _Numbers(rng)
    rank, groups, last = rng.choice((0, 1, 2, 2)), rng.choice((1, 1, 2)), 0
    batch, channels, depth = n.batch, groups * rng.choice((1, 3)), rng.choice((1, 3))
    axes = [
        [rng.randrange(6), rng.randrange(6), rng.randint(1, 3), rng.randint(1, 2), rng.randrange(3), rng.randint(1, 2)]
        for _ in range(rank)
    ]
    if rng.random() < 0.2:
        rank, groups, last, axes = 1, 1, 1, [[3, 3, 1, 1, 0, 1]]
    kernel = int(np.prod([a[2] for a in axes]))
    x = n.values(batch * groups * depth * int(np.prod([a[0] for a in axes])), np.float32)
    w, wide = n.values(channels * depth * kernel, np.float32), rng.random() < 0.5
    acc = n.values(batch * channels * int(np.prod([a[1] for a in axes])), np.float64 if wide else np.float32)
    order = list(range(depth * kernel))
    rng.shuffle(order)
    order = [_or(rng, k, -1, HUGE, 0, share=0.01) for k in order]
    event = [2, 1, 3, 0, 2, 1, 255, 4]
    events = [_or(rng, k, *STRANGE, share=0.03) for _ in range(rng.choice((0, 1, 3))) for k in event]
    for axis in axes:  # numbers that say nothing of sizes may be anything
        for i in (3, 4, 5):
            axis[i] = _or(rng, axis[i], 0, -1, 1 << 31, 1 << 40, HUGE, share=0.03)
    counts = [_or(rng, k, -1, -HUGE, share=0.01) for k in (batch, channels, groups, depth)]
    layer = Layer(*counts, n.array([k for axis in axes for k in axis]), rank, last)
    step, passes = _or(rng, rng.randint(1, 4), 0, -1, HUGE), _or(rng, rng.randrange(4), -1, HUGE, 1 << 40, 300)
    used, number = _or(rng, n.array(order), None, share=0.3), _or(rng, len(events) // 8, -1)
    width, own = _or(rng, rng.randint(2, 32), 0, 1, 33), (rng.randrange(2), rng.randrange(2))
    array = Array(used, step, passes, n.array(events), number, width, *own)
    dtype = c_int32(_or(rng, int(wide), -1, 2, 9))
    return _call("accumulate", dtype, acc, x, w, np.empty_like(acc), byref(layer), byref(array), n.threads)


CALLS: dict[str, Callable[[Rng], str]] = {
    "inject": _inject,
    "zero_faulty": _zero_faulty,
    "faulty_words": _faulty_words,
    "inject_codes": _inject_codes,
    "hits": _hits,
    "apply_map": _apply_map,
    "zero_map": _zero_map,
    "clip": _clip,
    "zero_clipped": _zero_clipped,
    "protected": _protected,
    "zero_protected": _zero_protected,
    "accumulate": _accumulate,
}
"""A call of each function, drawn from a generator; answers "ran" or "refused"."""
