"""What export/include/hwfault.h declares, for ctypes: its structs and the arguments of its functions, in its order."""

from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any


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


class Shape(Structure):
    """How the values of a site lie in memory, how many share a scale, and the numbers of their types."""

    _fields_ = (
        ("batch", c_int64),
        ("words", c_int64),
        ("n_scale", c_int64),
        ("scale_inner", c_int64),
        ("n_zero_point", c_int64),
        ("zero_point_inner", c_int64),
        ("dtype", c_int32),
        ("scale_dtype", c_int32),
        ("zero_point_dtype", c_int32),
        ("run", c_int64),
    )


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


class Range(Structure):
    """A range of integers, and what those beyond it become."""

    _fields_ = (
        ("batch", c_int64),
        ("words", c_int64),
        ("low", c_int64),
        ("high", c_int64),
        ("below", c_int64),
        ("above", c_int64),
    )


class Protection(Structure):
    """A protected memory, and the table of its layout if that is not linear."""

    _fields_ = (
        ("kind", c_int32),
        ("data_bits", c_int32),
        ("slot", c_int32),
        ("on_detected", c_int32),
        ("number", c_void_p),
        ("cells", c_void_p),
        ("rows", c_int64),
    )


class Layer(Structure):
    """The shape of a layer's sums."""

    _fields_ = (
        ("batch", c_int64),
        ("channels", c_int64),
        ("groups", c_int64),
        ("depth", c_int64),
        ("axes", c_void_p),
        ("rank", c_int32),
        ("channels_last", c_int32),
    )


class Array(Structure):
    """How an array of processing elements adds a layer up."""

    _fields_ = (
        ("order", c_void_p),
        ("step", c_int64),
        ("pass_steps", c_int64),
        ("events", c_void_p),
        ("n_events", c_int64),
        ("width", c_int32),
        ("saturate", c_int32),
        ("recompute", c_int32),
    )


class Quantizer(Structure):
    """A fake quantizer's grid, and how the values lie on its scales."""

    _fields_ = (
        ("scale", c_void_p),
        ("zero_point", c_void_p),
        ("repeats", c_int64),
        ("outer", c_int64),
        ("shared", c_int64),
        ("inner", c_int64),
        ("zero_points", c_int64),
        ("least", c_float),
        ("most", c_float),
        ("passes", c_int32),
        ("rectifies", c_int32),
    )


class Strike(Structure):
    """Which faults of a parsed site strike a tensor."""

    _fields_ = (("site", c_void_p), ("seed", c_uint64), ("sample", c_void_p), ("batch", c_int64))


class Strides(Structure):
    """Where the values of a tensor lie in memory if not in C order."""

    _fields_ = (("axes", c_int32), ("lengths", c_void_p), ("strides", c_void_p))


class Flips(Structure):
    """Flipped weights of one layer of a network."""

    _fields_ = (("node", c_int64), ("word", c_void_p), ("change", c_void_p), ("count", c_int64))


class ValueFlips(Structure):
    """Flipped values of a quantizer of a network."""

    _fields_ = (
        ("node", c_int64),
        ("step", c_int64),
        ("format", POINTER(Format)),
        ("word", c_void_p),
        ("bit", c_void_p),
        ("count", c_int64),
    )


class Addends(Structure):
    """Changed addends of a layer of a network."""

    _fields_ = (("node", c_int64), ("channel", c_void_p), ("addend", c_void_p), ("count", c_int64))


class Survivors(Structure):
    """Room for runs whose outputs differ from the golden ones."""

    _fields_ = (("capacity", c_int64), ("flip", c_void_p), ("image", c_void_p), ("outputs", c_void_p))


STRUCTS = {
    "hwfault_format": Format,
    "hwfault_draw": Draw,
    "hwfault_shape": Shape,
    "hwfault_strides": Strides,
    "hwfault_map": Map,
    "hwfault_range": Range,
    "hwfault_protection": Protection,
    "hwfault_layer": Layer,
    "hwfault_array": Array,
    "hwfault_quantizer": Quantizer,
    "hwfault_strike": Strike,
    "hwfault_flips": Flips,
    "hwfault_value_flips": ValueFlips,
    "hwfault_addends": Addends,
    "hwfault_survivors": Survivors,
}

_DRAW, _FORMAT, _MAP, _PROTECTION = POINTER(Draw), POINTER(Format), POINTER(Map), POINTER(Protection)
_RANGE = POINTER(Range)
_MEMORY = (_DRAW, _MAP, _FORMAT, _PROTECTION)
_SHAPE = POINTER(Shape)
_AT_SITE = (c_void_p, c_void_p, c_uint64, c_void_p, c_int32)
_HITS = (c_uint64, c_uint32, c_uint32, c_int64, c_int32, c_void_p, c_int64, c_int64, c_void_p, c_void_p)

SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "hwfault_abi_version": (c_int64, ()),
    "hwfault_error_text": (c_char_p, (c_int64,)),
    "hwfault_philox": (None, (c_void_p, c_uint64, c_void_p)),
    "hwfault_hits": (c_int64, _HITS),
    "hwfault_inject": (c_int64, (c_int32, c_void_p, c_void_p, _DRAW, _FORMAT, c_int32, POINTER(c_int64))),
    "hwfault_zero_faulty": (c_int64, (c_int32, c_void_p, c_void_p, c_void_p, _DRAW, _FORMAT, c_int32)),
    "hwfault_faulty_words": (c_int64, (c_int32, c_void_p, _DRAW, _FORMAT, c_int64, c_void_p, c_void_p, c_void_p)),
    "hwfault_inject_codes": (c_int64, (c_void_p, _DRAW, c_int32)),
    "hwfault_site_new": (c_int64, (c_void_p, c_int64, c_int32, c_int32, c_int32, c_void_p)),
    "hwfault_site_free": (None, (c_void_p,)),
    "hwfault_site_strike": (c_int64, (c_void_p, _SHAPE, c_void_p, c_void_p, *_AT_SITE, POINTER(c_int64))),
    "hwfault_site_strike_strided": (
        c_int64,
        (c_void_p, _SHAPE, POINTER(Strides), c_void_p, c_void_p, *_AT_SITE, POINTER(c_int64)),
    ),
    "hwfault_site_zero": (c_int64, (c_void_p, _SHAPE, c_void_p, c_void_p, c_void_p, *_AT_SITE)),
    "hwfault_apply_map": (c_int64, (c_int32, c_void_p, c_void_p, _MAP, _FORMAT, c_int32, POINTER(c_int64))),
    "hwfault_zero_map": (c_int64, (c_int32, c_void_p, c_void_p, c_void_p, _MAP, _FORMAT, c_int32)),
    "hwfault_clip": (c_int64, (c_int32, c_void_p, c_void_p, _RANGE, _FORMAT, c_int32)),
    "hwfault_zero_clipped": (c_int64, (c_int32, c_void_p, c_void_p, c_void_p, _RANGE, _FORMAT, c_int32)),
    "hwfault_protected": (c_int64, (c_int32, c_void_p, c_void_p, *_MEMORY, c_void_p, c_int32)),
    "hwfault_zero_protected": (c_int64, (c_int32, c_void_p, c_void_p, c_void_p, *_MEMORY, c_int32)),
    "hwfault_accumulate": (
        c_int64,
        (c_int32, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(Layer), POINTER(Array), c_int32),
    ),
    "hwfault_quantize": (c_int64, (c_void_p, c_void_p, POINTER(Quantizer), c_int32)),
    "hwfault_quantize_gradient": (
        c_int64,
        (c_void_p, c_void_p, c_void_p, c_void_p, POINTER(Quantizer), c_int32),
    ),
    "hwfault_quantize_struck": (
        c_int64,
        (c_void_p, c_void_p, POINTER(Quantizer), POINTER(Strike), c_int32, POINTER(c_int64)),
    ),
    "hwfault_quantize_struck_gradient": (
        c_int64,
        (c_void_p, c_void_p, c_void_p, c_void_p, POINTER(Quantizer), POINTER(Strike), c_int32, c_int32),
    ),
    "hwfault_largest": (c_int64, (c_void_p, c_int64, c_int64, c_void_p)),
    "hwfault_largest_gradient": (
        c_int64,
        (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int32, c_void_p),
    ),
    "hwfault_network_new": (
        c_int64,
        (c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_void_p),
    ),
    "hwfault_network_free": (None, (c_void_p,)),
    "hwfault_network_bytes": (c_int64, (c_void_p,)),
    "hwfault_golden_new": (c_int64, (c_void_p, c_void_p, c_int64, c_void_p)),
    "hwfault_golden_free": (None, (c_void_p,)),
    "hwfault_golden_outputs": (c_int64, (c_void_p, c_void_p)),
    "hwfault_census": (c_int64, (c_void_p, POINTER(Flips), c_void_p, c_void_p, POINTER(Survivors))),
    "hwfault_run_flips": (c_int64, (c_void_p, POINTER(Flips), c_void_p, c_void_p, c_void_p)),
    "hwfault_value_census": (c_int64, (c_void_p, POINTER(ValueFlips), c_void_p, c_void_p, POINTER(Survivors))),
    "hwfault_run_value_flips": (c_int64, (c_void_p, POINTER(ValueFlips), c_void_p, c_void_p, c_void_p)),
    "hwfault_addend_census": (c_int64, (c_void_p, POINTER(Addends), c_void_p, c_void_p, POINTER(Survivors))),
    "hwfault_run_addends": (c_int64, (c_void_p, POINTER(Addends), c_void_p, c_void_p, c_void_p)),
}
"""Result and arguments of each function; pointers to memory are plain addresses, those to structs have their type."""
