"""The C functions of the native library (export/include/hwfault.h), for raw addresses and for NumPy arrays."""

from hwfault.stream.native.arrays import (
    accumulate_arrays,
    check_program,
    faulty_words,
    hits,
    inject_codes,
    philox,
    plane_hits,
    protect_codes,
)
from hwfault.stream.native.header import Draw, Format, Map, Protection, Quantizer, Shape
from hwfault.stream.native.loading import library, library_path, onnxruntime_library
from hwfault.stream.native.pointers import (
    accumulate,
    apply_map,
    draw,
    format,
    inject,
    protected,
    protection,
    quantize,
    quantize_gradient,
    zero_faulty,
    zero_map,
    zero_protected,
)
from hwfault.stream.native.site import ParsedSite, calls, fail

__all__ = [
    "Draw",
    "Format",
    "Map",
    "ParsedSite",
    "Protection",
    "Quantizer",
    "Shape",
    "accumulate",
    "accumulate_arrays",
    "apply_map",
    "calls",
    "check_program",
    "draw",
    "fail",
    "faulty_words",
    "format",
    "hits",
    "inject",
    "inject_codes",
    "library",
    "library_path",
    "onnxruntime_library",
    "philox",
    "plane_hits",
    "protect_codes",
    "protected",
    "protection",
    "quantize",
    "quantize_gradient",
    "zero_faulty",
    "zero_map",
    "zero_protected",
]
