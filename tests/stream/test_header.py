"""The C header, which is written by hand, says the same as the declarations for ctypes and the numbers in Python."""

import ctypes
import re
from ctypes import c_char_p, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path

import pytest

from hwfault.codes import REPRESENTATIONS
from hwfault.stream import protection
from hwfault.stream.native.header import SIGNATURES, STRUCTS

HEADER = Path(__file__).parents[2] / "export" / "include" / "hwfault.h"
TEXT = re.sub(r"/\*.*?\*/|^#.*?$", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
NUMBERS = {"float": c_float, "int32_t": c_int32, "int64_t": c_int64, "uint32_t": c_uint32, "uint64_t": c_uint64}


def enums():
    """The names and numbers of each enum."""
    for body in re.findall(r"enum \{(.*?)\};", TEXT, re.DOTALL):
        yield {name.strip(): int(number) for name, number in (entry.split("=") for entry in body.split(","))}


def declared(text):
    """The names and ctypes of a declaration such as `const uint32_t *a, *b` or `int64_t rows`."""
    kind, rest = re.match(r"(?:const )?(\w+)(.*)", text.strip(), re.DOTALL).groups()
    for name in rest.split(","):
        yield re.sub(r"\*|\[\d+\]", "", name).strip(), of_type(kind, "*" in name or "[" in name)


def of_type(kind, is_pointer):
    if not is_pointer:
        return NUMBERS[kind]
    return ctypes.POINTER(STRUCTS[kind]) if kind in STRUCTS else c_void_p


def structs():
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", TEXT, re.DOTALL):
        yield name, [field for line in body.split(";")[:-1] for field in declared(line)]


def functions():
    for result, name, arguments in re.findall(r"HWFAULT_API ([\w ]+\*?) (\w+)\((.*?)\);", TEXT, re.DOTALL):
        given = [] if arguments == "void" else [next(declared(one))[1] for one in arguments.split(",")]
        yield name, (result.strip(), given)


@pytest.mark.parametrize("name", STRUCTS)
def test_structs(name):
    assert list(STRUCTS[name]._fields_) == dict(structs())[name]


def test_every_struct_and_function_is_declared():
    assert [name for name, _ in structs()] == list(STRUCTS)
    assert [name for name, _ in functions()] == list(SIGNATURES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions(name):
    result, given = dict(functions())[name]
    own_result, own = SIGNATURES[name]
    assert {"int64_t": c_int64, "void": None, "const char*": c_char_p}[result] is own_result
    counted = (
        "hwfault_inject",
        "hwfault_apply_map",
        "hwfault_site_strike",
        "hwfault_site_strike_strided",
        "hwfault_quantize_struck",
    )  # their last pointer is to one number
    assert [c_void_p if k is ctypes.POINTER(c_int64) and name in counted else k for k in own] == given


def test_numbers():
    types, representations, kinds, detected = enums()
    assert list(types) == ["HWFAULT_FLOAT32", "HWFAULT_FLOAT64", "HWFAULT_FLOAT16", "HWFAULT_BFLOAT16"]
    assert list(types.values()) == [0, 1, 2, 3]
    assert representations == {f"HWFAULT_{name.upper()}": i for i, name in enumerate(REPRESENTATIONS)}
    assert kinds == {f"HWFAULT_{name.upper()}": i + 1 for i, name in enumerate(protection.KINDS)}
    assert detected == {"HWFAULT_ZERO": 0, "HWFAULT_DUE": 1}
