"""What the stream costs: nanoseconds a block in place on one thread, by width, rate and process, beside their bound."""

import ctypes
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat
from hwfault.stream.tables import BLOCK, size_table
from tests.helpers.stream import capi
from tests.helpers.stream.programs import ALL, Bit, Cluster, Mask, Process, Random, program
from tests.helpers.stream.values import DTYPES, Grid

WIDTHS = (1, 2, 4, 5, 8, 9, 12, 16, 24, 32)
RATES = (0.0, 1e-6, 1e-4, 1e-3, 1e-2, 2.4e-2, 2.6e-2, 3e-2, 1e-1, 0.5)
_WORDS = 16 << 20
_NS_A_BLOCK, _NS_A_FURTHER_PLANE, _NS_A_HIT, _PLANES = 25.0, 5.0, 20.0, 4
_MICROSECONDS_A_CALL, _OVER_A_WARM_COPY = 5.0, 1.10
_ROUNDS = 25
_LONGEST = 0.004  # seconds of one measurement, if the bound is kept


@dataclass(frozen=True)
class Struck:
    """What is measured: some processes on words of so many bits."""

    what: str
    bits: int
    rate: float
    processes: tuple[Process, ...]
    dtype: str = "float32"

    def planes(self) -> int:
        return sum(1 if isinstance(p, Mask | Random) else self.bits for p in self.processes)

    def hits(self) -> float:
        """The mean number in a block."""
        return -BLOCK * math.log1p(-self.rate) * self.planes()

    def bound(self) -> float:
        further = max(self.planes() - _PLANES, 0)
        return _NS_A_BLOCK + _NS_A_FURTHER_PLANE * further + _NS_A_HIT * self.hits()


def flips(site: int, bits: int, rate: float, accept01: int = ALL) -> Bit:
    return Bit(site, ((rate, accept01, ALL),) * bits)


def cases() -> Iterable[Struck]:
    """Every width at every rate, and at some of them what else there is."""
    for bits, rate in itertools.product(WIDTHS, RATES):
        yield Struck("flips", bits, rate, (flips(1, bits, rate),))
    for bits, rate in itertools.product((1, 4, 8, 9, 32), RATES):
        yield Struck("p01 = p10 / 2", bits, rate, (flips(1, bits, rate, ALL // 2),))
        yield Struck("two processes", bits, rate, (flips(1, bits, rate), flips(2, bits, rate)))
        yield Struck("four processes", bits, rate, tuple(flips(site, bits, rate) for site in range(4)))
        yield Struck("words, mask", bits, rate, (Mask(1, rate, 1),))
        yield Struck("words, random", bits, rate, (Random(1, rate),))
        yield Struck("flips and words", bits, rate, (flips(1, bits, rate), Random(2, rate)))
        sizes = size_table((0.7, 0.2, 0.1))
        for axis in ("bit", "word"):
            yield Struck(f"clusters along {axis}", bits, rate, (Cluster(1, axis, sizes, (rate,) * bits),))
    for bits, rate in itertools.product((1, 4, 8), RATES):
        yield Struck("flips", bits, rate, (flips(1, bits, rate),), "float16")


class Tensor:
    """Values of a width on their grid, struck in place."""

    def __init__(self, bits: int, dtype: str, words: int = _WORDS) -> None:
        self.dtype, self.bits = dtype, bits
        self.grid = Grid(CodeFormat(bits, signed=False), np.array([0.5]), 1, np.zeros(1), 1)
        few = np.random.default_rng(0).integers(0, 1 << min(bits, 10), 1 << 16).astype(np.uint32)
        self.values = (
            np.tile(self.grid.decode(few, dtype), words >> 16)
            if words >= 1 << 16
            else self.grid.decode(few[:words], dtype)
        )

    def strike(self, numbers: Sequence[int], words: int, out: NDArray | None = None) -> Callable[[], object]:
        """Calls of the library that do so, to one piece of the values after the other."""
        given = capi.Arguments(numbers, 7, [0], words, self.grid)
        function = capi.library().hwfault_inject
        function.argtypes, function.restype = capi.SIGNATURES["inject"], ctypes.c_int64
        to = self.values if out is None else out
        pieces = [at * self.values.itemsize for at in range(0, self.values.size - words + 1, words)]
        ends = [(capi.pointer(self.values) + at, capi.pointer(to) + at) for at in pieces]
        draw, fmt, dtype = given.draw, given.format, DTYPES[self.dtype]
        turn = itertools.cycle(ends)

        def call(held: object = (given, to)) -> object:
            return function(dtype, *next(turn), draw, fmt, 1, None)

        return call


def least_seconds(call: Callable[[], object], rounds: int = _ROUNDS) -> float:
    """Of this thread alone, whatever else the machine does."""
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return min(times)


def nanoseconds_a_block(struck: Struck, on: Tensor) -> float:
    blocks = int(min(_WORDS // BLOCK, max(64, _LONGEST / (struck.bound() * 1e-9))))
    call = on.strike(program(struck.processes), blocks * BLOCK)
    call()
    return least_seconds(call) * 1e9 / blocks


def every_case(chosen: str = "") -> None:
    """Each case beside its bound, the one that is furthest beyond it last."""
    print(
        f"the stream in place, {_WORDS >> 20} Mi words, one thread: ns a block / its bound, and ns a hit beyond rate 0"
    )
    tensor, found, idle, of_several = None, [], {}, 0
    for struck in cases():
        if chosen and chosen not in f"{struck.what} {struck.dtype}":
            continue
        if tensor is None or (tensor.bits, tensor.dtype) != (struck.bits, struck.dtype):
            tensor = Tensor(struck.bits, struck.dtype)
        ns = nanoseconds_a_block(struck, tensor)
        key = struck.what, struck.bits, struck.dtype
        idle.setdefault(key, ns)
        a_hit = (ns - idle[key]) / struck.hits() if struck.rate else math.nan
        of_several += ns > struck.bound() and len(struck.processes) > 1
        found.append(
            (
                ns / struck.bound(),
                f"{struck.what:<20} {struck.dtype} {struck.bits:3} bits, rate {struck.rate:<7g}",
                ns,
                struck.bound(),
                a_hit,
            )
        )
    for ratio, text, ns, bound, a_hit in sorted(found):
        print(f"    {text} {ns:10.1f} / {bound:10.1f} = {ratio:5.2f}   {a_hit:6.1f} a hit")
    beyond = sum(ratio > 1 for ratio, *_ in found)
    print(
        f"    {beyond} of {len(found)} beyond their bound, {of_several} of them of several processes, each of which "
        "needs calls of the generator of its own for its counts, also of fewer than four planes"
    )


def fixed_cost() -> None:
    """A call on a few words, less what a call of the library costs that does nothing."""
    for words, processes in ((1, (flips(1, 4, 1e-3),)), (1000, (flips(1, 4, 1e-3),)), (1000, (flips(1, 32, 1e-3),))):
        bits = len(processes[0].planes)
        call = Tensor(bits, "float32", words).strike(program(processes), words)
        nothing = capi.library().hwfault_abi_version
        cost, empty = (least_seconds(lambda f=f: [f() for _ in range(1000)]) * 1e3 for f in (call, nothing))
        print(
            f"    a call on {words} words of {bits} bits: {cost - empty:.2f} us (to reach: {_MICROSECONDS_A_CALL:g} us)"
        )


def beside_a_copy(rounds: int = 25) -> None:
    """Copying and striking at once against a copy of the same memory alone, at several sizes."""
    import torch

    from tests.benchmarks.side_by_side import ratios, show

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for words in (1 << 16, 1 << 20, _WORDS):
        tensor = Tensor(4, "float32", words)
        out, x = np.empty_like(tensor.values), torch.from_numpy(tensor.values)
        to = torch.from_numpy(out)
        variants = {"a warm copy": lambda to=to, x=x: to.copy_(x)}
        for rate in (0.0, 1e-4, 1e-3, 1e-2):
            variants[f"copy and strike, rate {rate:g}"] = tensor.strike(flips(1, 4, rate).program(), words, out)
        title = f"{words >> 10} Ki floats of 4 bits, one thread"
        show(title, ratios(variants, rounds), {"copy and strike, rate 0.001": _OVER_A_WARM_COPY})
    torch.set_num_threads(threads)


def main(chosen: str = "") -> None:
    every_case(chosen)
    fixed_cost()
    beside_a_copy()


if __name__ == "__main__":
    main(*sys.argv[1:])
