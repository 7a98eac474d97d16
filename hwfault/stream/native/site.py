"""Sites whose fault programs the native library has parsed once, to be struck again and again."""

import ctypes
import weakref
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, NoReturn

import numpy as np

from hwfault.errors import HwfaultError
from hwfault.stream.native.header import Shape, Strides
from hwfault.stream.native.loading import library


class Calls(NamedTuple):
    """The C functions of a site as ctypes calls them fastest: nothing looks at what they return but the caller.

    A negative result is an error: `fail()`.
    """

    strike: Any
    """(site, shape, x, out, scale, zero point, seed, samples, threads, left): `hwfault_site_strike`."""
    strike_strided: Any
    """(site, shape, strides, x, out, and so on): `hwfault_site_strike_strided`."""
    zero: Any
    """(site, shape, gradient, out, x, scale, zero point, seed, samples, threads): `hwfault_site_zero`."""


@cache
def calls() -> Calls:
    """The functions, each with its arguments' types and without a check of its result."""
    loaded = library()
    found = []
    for name in ("hwfault_site_strike", "hwfault_site_strike_strided", "hwfault_site_zero"):
        function = loaded[name]  # one of its own: the attribute's is checked
        function.restype, function.argtypes = ctypes.c_int64, getattr(loaded, name).argtypes
        found.append(function)
    return Calls(*found)


@lru_cache(maxsize=256)
def strides(lengths: tuple[int, ...], steps: tuple[int, ...]) -> Any:
    """A pointer to where the values of a tensor lie whose axes have these lengths, and neighbours so far apart."""
    numbers = ((ctypes.c_int64 * len(lengths))(*lengths), (ctypes.c_int64 * len(steps))(*steps))
    found: Any = ctypes.pointer(Strides(len(lengths), *map(ctypes.addressof, numbers)))
    found.numbers = numbers  # which live as long
    return found


def fail() -> NoReturn:
    """Raises HwfaultError with what the library said last in this thread."""
    raise HwfaultError(library().hwfault_error_text(-1).decode())


class ParsedSite:
    """A fault program and its words' format, parsed and checked once; raises HwfaultError for what is none.

    `address` is that of the C struct `hwfault_site`, which lives as long as this object.
    """

    def __init__(self, program: Sequence[int], bit_width: int, signed: bool, representation: int = 0) -> None:
        self._given = (np.array(program, dtype=np.int64), bit_width, bool(signed), representation)
        numbers = self._given[0]
        place = ctypes.c_void_p()
        at_place = ctypes.addressof(place)
        library().hwfault_site_new(numbers.ctypes.data, numbers.size, bit_width, signed, representation, at_place)
        self.address = int(place.value or 0)
        weakref.finalize(self, library().hwfault_site_free, self.address)

    def __reduce__(self) -> Any:
        """A copy has memory of its own."""
        return ParsedSite, self._given

    def strike(
        self, shape: Shape, x: int, out: int, scale: int, zero_point: int, seed: int, samples: int, threads: int = 1
    ) -> int:
        """Writes x with its faults to out, which must be another under late bits; returns the number of words changed.

        All are addresses but the seed, whose 64 bits may come signed.
        """
        return self._called(calls().strike, shape, (x, out, scale, zero_point), seed, (samples, threads, None))

    def zero(
        self,
        shape: Shape,
        gradient: int,
        out: int,
        x: int | None,
        scale: int | None,
        zero_point: int | None,
        seed: int,
        samples: int,
        threads: int = 1,
    ) -> int:
        """Writes the gradient with zeros at faulty words to out; returns the number of faulty words.

        x, scale and zero point, addresses, may be None where the faulty words do not depend on the codes before.
        """
        return self._called(calls().zero, shape, (gradient, out, x, scale, zero_point), seed, (samples, threads))

    def _called(self, function: Any, shape: Shape, tensors: tuple[Any, ...], seed: int, rest: tuple[Any, ...]) -> int:
        found: int = function(self.address, shape, *tensors, seed & 0xFFFFFFFFFFFFFFFF, *rest)
        if found < 0:
            fail()
        return found
