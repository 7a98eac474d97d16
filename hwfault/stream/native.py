"""The fault stream's C functions (export/include/hwfault.h), for NumPy arrays and for raw pointers."""

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

import hwfault
from hwfault.codes import Codes
from hwfault.errors import HwfaultError, NativeLibraryError
from hwfault.stream.reference import Hits
from hwfault.stream.tables import Table, encode_table

_ABI_VERSION = 3
_NAMES = ("libhwfault.so", "libhwfault.dylib", "hwfault.dll")


class Changes(NamedTuple):
    """How many words a call changed, and how many of those that were struck hold no number and stay what they are."""

    changed: int
    no_numbers: int


class Draw(Structure):
    """Which faults strike: the seed, the samples' numbers, how many words each has, the site's program."""

    _fields_ = (
        ("seed", c_uint64),
        ("sample", c_void_p),
        ("batch", c_int64),
        ("words", c_int64),
        ("program", c_void_p),
        ("program_length", c_int64),
    )


class Format(Structure):
    """How values stand for codes: scale and zero point (float64, each with how many words share one), bits, sign."""

    _fields_ = (
        ("scale", c_void_p),
        ("n_scale", c_int64),
        ("scale_inner", c_int64),
        ("zero_point", c_void_p),
        ("n_zero_point", c_int64),
        ("zero_point_inner", c_int64),
        ("bit_width", c_int32),
        ("is_signed", c_int32),
        ("representation", c_int32),
    )
    values: object = None
    """What holds the numbers that the pointers point to, if that is to live as long as the struct."""


class Map(Structure):
    """A fault map's rows, and for intermittent faults what their activity is drawn for."""

    _fields_ = (
        ("batch", c_int64),
        ("words", c_int64),
        ("word", c_void_p),
        ("and_mask", c_void_p),
        ("xor_mask", c_void_p),
        ("rows", c_int64),
        ("threshold", c_int64),
        ("seed", c_uint64),
        ("site", c_uint32),
        ("period", c_void_p),
    )


def library_path() -> Path:
    """Where the native library lies; raises NativeLibraryError if it was never built."""
    for folder in hwfault.__path__:
        for name in _NAMES:
            path = Path(folder) / "_native" / name
            if path.is_file():
                return path
    raise NativeLibraryError(
        f"hwfault was imported from {hwfault.__path__[0]}, where its native library was never built; run "
        "`pip install .` in the project's folder (or `pip install -e .` to develop) and import it from there"
    )


def onnxruntime_library() -> str:
    """Path of the library that adds QONNX's and hwfault's ops to onnxruntime, for `register_custom_ops_library`."""
    return str(library_path())


@cache
def library() -> Any:
    """The loaded library; raises NativeLibraryError if it is not there, not loadable or of another version."""
    path = library_path()
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeLibraryError(f"{path} cannot be loaded ({error}); run `pip install .` again") from None
    lib.hwfault_abi_version.restype = c_int64
    if lib.hwfault_abi_version() != _ABI_VERSION:
        raise NativeLibraryError(f"{path} is of another version of hwfault; run `pip install .` again")
    for name, result, arguments in _SIGNATURES:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


_DRAW, _FORMAT, _MAP = POINTER(Draw), POINTER(Format), POINTER(Map)
_SIGNATURES: tuple[tuple[str, Any, list[Any]], ...] = (
    ("hwfault_abi_version", c_int64, []),
    ("hwfault_error_text", c_char_p, [c_int64]),
    ("hwfault_philox", None, [c_void_p, c_uint64, c_void_p]),
    (
        "hwfault_hits",
        c_int64,
        [c_uint64, c_uint32, c_uint32, c_int64, c_int32, c_void_p, c_int64, c_int64, c_void_p, c_void_p],
    ),
    ("hwfault_inject", c_int64, [c_int32, c_void_p, c_void_p, _DRAW, _FORMAT, c_int32, POINTER(c_int64)]),
    ("hwfault_zero_faulty", c_int64, [c_int32, c_void_p, c_void_p, c_void_p, _DRAW, _FORMAT, c_int32]),
    (
        "hwfault_faulty_words",
        c_int64,
        [c_int32, c_void_p, _DRAW, _FORMAT, c_int64, c_void_p, c_void_p, c_void_p],
    ),
    ("hwfault_inject_codes", c_int64, [c_void_p, _DRAW, c_int32]),
    ("hwfault_apply_map", c_int64, [c_int32, c_void_p, c_void_p, _MAP, _FORMAT, c_int32, POINTER(c_int64)]),
    ("hwfault_zero_map", c_int64, [c_int32, c_void_p, c_void_p, c_void_p, _MAP, _FORMAT, c_int32]),
)


def _checked(result: int) -> int:
    if result < 0:
        raise HwfaultError(library().hwfault_error_text(result).decode())
    return result


def philox(counter: ArrayLike, key: int) -> NDArray[np.uint32]:
    """Philox4x32-10 of one counter (4,) under a 64 bit key: (4,) words."""
    words, out = np.ascontiguousarray(counter, dtype=np.uint32), np.empty(4, dtype=np.uint32)
    library().hwfault_philox(words.ctypes.data, key, out.ctypes.data)
    return out


def hits(*, seed: int, site: int, sample: int, words: int, plane: int, probability: float) -> Hits:
    """Word positions (int64) and aux (uint32) of the hits of one plane, in stream order."""
    return plane_hits(seed, site, sample, words, plane, encode_table(probability))


def plane_hits(seed: int, site: int, sample: int, words: int, plane: int, table: Table) -> Hits:
    """The same from a count table as a fault program holds it."""
    numbers = np.array(table, dtype=np.int64)
    capacity = 1024  # asked again with what is needed where that is too little
    while True:
        word, aux = np.empty(capacity, dtype=np.int64), np.empty(capacity, dtype=np.uint32)
        where = (numbers.ctypes.data, numbers.size, capacity, word.ctypes.data, aux.ctypes.data)
        n = _checked(library().hwfault_hits(seed, site, sample & 0xFFFFFFFF, words, plane, *where))
        if n <= capacity:
            return word[:n], aux[:n]
        capacity = n


def draw(seed: int, sample: int, batch: int, words: int, program: int, program_length: int) -> Draw:
    """A draw from raw pointers to int64 sample numbers and program; the seed's 64 bits may come signed."""
    return Draw(seed & 0xFFFFFFFFFFFFFFFF, sample, batch, words, program, program_length)


def format(
    scale: int,
    n_scale: int,
    scale_inner: int,
    zero: int,
    n_zero: int,
    zero_inner: int,
    bit_width: int,
    signed: bool,
    representation: int = 0,
) -> Format:
    """A format from raw pointers to float64 scales and zero points; `representation` indexes REPRESENTATIONS."""
    return Format(scale, n_scale, scale_inner, zero, n_zero, zero_inner, bit_width, signed, representation)


def inject(dtype: int, x: int, out: int, draw: Draw, format: Format, threads: int) -> Changes:
    """Writes x with its faults to out (raw pointers)."""
    left = c_int64(0)
    changed = _checked(library().hwfault_inject(dtype, x, out, byref(draw), byref(format), threads, byref(left)))
    return Changes(changed, left.value)


def zero_faulty(dtype: int, gradient: int, out: int, x: int | None, draw: Draw, format: Format, threads: int) -> int:
    """Writes the gradient with zeros at faulty words to out (raw pointers); returns the number of faulty words."""
    return _checked(library().hwfault_zero_faulty(dtype, gradient, out, x, byref(draw), byref(format), threads))


def faulty_words(dtype: int, x: int, draw: Draw, format: Format) -> NDArray[np.int64]:
    """The words that become faulty in x (a raw pointer) as element * words + word, ascending."""
    capacity = 1024  # asked again with what is needed where that is too little
    while True:
        found = np.empty(capacity, dtype=np.int64)
        where = (capacity, found.ctypes.data, None, None)
        n = _checked(library().hwfault_faulty_words(dtype, x, byref(draw), byref(format), *where))
        if n <= capacity:
            return found[:n]
        capacity = n


def check_program(program: Sequence[int], bit_width: int) -> None:
    """Raises HwfaultError for what is no fault program of words of so many bits."""
    nothing = np.zeros((1, 0), dtype=np.uint32)
    inject_codes(nothing, program=program, seed=0, samples=[0], bit_width=bit_width)


def apply_map(dtype: int, x: int, out: int, map: Map, format: Format, threads: int) -> Changes:
    """Writes x with a fault map's faults to out (raw pointers)."""
    left = c_int64(0)
    changed = _checked(library().hwfault_apply_map(dtype, x, out, byref(map), byref(format), threads, byref(left)))
    return Changes(changed, left.value)


def zero_map(dtype: int, gradient: int, out: int, x: int | None, map: Map, format: Format, threads: int) -> int:
    """Writes the gradient with zeros at the words that a map changes to out; returns the number of those."""
    return _checked(library().hwfault_zero_map(dtype, gradient, out, x, byref(map), byref(format), threads))


def inject_codes(
    codes: Codes, *, program: Sequence[int], seed: int, samples: ArrayLike, bit_width: int
) -> NDArray[np.uint32]:
    """The codes (batch, words) after all processes of a program; `samples` has one number for each element."""
    out = np.array(codes, dtype=np.uint32, order="C")
    numbers, flat = np.ascontiguousarray(samples, dtype=np.int64), np.array(program, dtype=np.int64)
    batch, words = out.shape
    if numbers.shape != (batch,):
        raise HwfaultError(f"{numbers.shape} sample numbers for codes of shape {out.shape}, expected one a row")
    which = draw(seed, numbers.ctypes.data, batch, words, flat.ctypes.data, flat.size)
    _checked(library().hwfault_inject_codes(out.ctypes.data, byref(which), bit_width))
    return out
