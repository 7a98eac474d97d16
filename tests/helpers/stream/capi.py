"""The native library through its C header alone (export/include/hwfault.h), with numpy arrays."""

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hwfault.stream import native
from tests.helpers.stream.values import Grid

Pointer = ctypes.c_void_p
I32, I64, U32, U64 = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64


class Format(ctypes.Structure):
    _fields_ = (
        ("scale", Pointer),
        ("n_scale", I64),
        ("scale_inner", I64),
        ("zero_point", Pointer),
        ("n_zero_point", I64),
        ("zero_point_inner", I64),
        ("bit_width", I32),
        ("is_signed", I32),
        ("representation", I32),
    )


class Map(ctypes.Structure):
    _fields_ = (
        ("batch", I64),
        ("words", I64),
        ("word", Pointer),
        ("and_mask", Pointer),
        ("xor_mask", Pointer),
        ("rows", I64),
        ("threshold", I64),
        ("seed", U64),
        ("site", U32),
        ("period", Pointer),
    )


class Draw(ctypes.Structure):
    _fields_ = (
        ("seed", U64),
        ("sample", Pointer),
        ("batch", I64),
        ("words", I64),
        ("program", Pointer),
        ("program_length", I64),
    )


SIGNATURES = {
    "abi_version": (),
    "hits": (U64, U32, U32, I64, I32, Pointer, I64, I64, Pointer, Pointer),
    "inject": (I32, Pointer, Pointer, Pointer, Pointer, I32, Pointer),
    "zero_faulty": (I32, Pointer, Pointer, Pointer, Pointer, Pointer, I32),
    "faulty_words": (I32, Pointer, Pointer, Pointer, I64, Pointer, Pointer, Pointer),
    "inject_codes": (Pointer, Pointer, I32),
    "apply_map": (I32, Pointer, Pointer, Pointer, Pointer, I32, Pointer),
    "zero_map": (I32, Pointer, Pointer, Pointer, Pointer, Pointer, I32),
}


class RefusedError(Exception):
    """The library returned an error code; the text is its own."""


@cache
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(native.library_path()))


def call(name: str, *arguments: object) -> int:
    """The result of a C function; arrays become pointers, and what is left out at the end a null pointer.

    Raises RefusedError for a negative one.
    """
    arguments += (None,) * (len(SIGNATURES[name]) - len(arguments))
    function = getattr(library(), f"hwfault_{name}")
    function.argtypes, function.restype = SIGNATURES[name], I64
    result = function(*(pointer(a) if isinstance(a, np.ndarray) else a for a in arguments))
    if result < 0:
        text = library().hwfault_error_text
        text.argtypes, text.restype = (I64,), ctypes.c_char_p
        raise RefusedError(text(result).decode())
    return result


def pointer(array: NDArray) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data


class Arguments:
    """The C structs of a call, and the arrays that they point into."""

    def __init__(self, program: Sequence[int], seed: int, samples: Sequence[int], words: int, on: Grid | None = None):
        self.program = np.array(program, np.int64)
        self.samples = np.array(samples, np.int64)
        ends = pointer(self.samples), self.samples.size, words, pointer(self.program), self.program.size
        self._draw = Draw(seed, *ends)
        if on is not None:
            self.on = on
            scale = pointer(on.scale), on.scale.size, on.scale_inner
            zero_point = pointer(on.zero_point), on.zero_point.size, on.zero_point_inner
            self._format = Format(*scale, *zero_point, on.fmt.bit_width, on.fmt.signed, 0)

    @property
    def draw(self):
        return ctypes.addressof(self._draw)

    @property
    def format(self):
        return ctypes.addressof(self._format)
