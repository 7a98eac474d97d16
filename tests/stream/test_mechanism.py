"""Every engine takes the operands of a mechanism under the names that its record has, with the types that it says."""

import ctypes
import inspect
import typing
from ctypes import c_int32, c_int64, c_uint32, c_uint64, c_void_p

import pytest

from hwfault.errors import PlanError
from hwfault.program.kinds import BY_NAME
from hwfault.program.kinds import KINDS as PROCESSES
from hwfault.stream.mechanism import ARRAY, CLIP, MAP, MECHANISMS, PROTECTED, STREAM, T, mechanism_named
from hwfault.stream.native.header import SIGNATURES, STRUCTS
from tests.helpers.stream.triton_here import OLDEST

NUMBERS = (c_int32, c_int64, c_uint32, c_uint64)
MADE_BY_LAUNCH = {"source", "out", "stored", "words", "blocks", "rows", "program_length"}
"""Parameters of kernels that are no operands, but said by the tensors, beside how the grid lies (n_scale, ...)."""


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_record_has_the_operands_in_their_order(name):
    mechanism = MECHANISMS[name]
    operands = (*mechanism.tensors, *mechanism.numbers)
    assert mechanism.record._fields == tuple(operand.name for operand in operands)
    hints = typing.get_type_hints(mechanism.record)
    kinds = {"int": int, "ints": tuple[int, ...], "int64": T, "int32": T, "floating": T}
    assert [hints[operand.name] for operand in operands] == [kinds[operand.type] for operand in operands]
    assert all(operand.shape for operand in mechanism.tensors)
    assert not any(operand.shape for operand in mechanism.numbers)


@pytest.mark.parametrize("name", MECHANISMS)
def test_c_functions_take_them_in_their_structs(name):
    mechanism = MECHANISMS[name]
    taken = {argument for function in filter(None, mechanism.functions) for argument in SIGNATURES[function][1]}
    for operand in (*mechanism.tensors, *mechanism.numbers):
        if not operand.c:  # inputs and weights, which a function takes by themselves
            continue
        struct, _, field = operand.c.partition(".")
        assert ctypes.POINTER(STRUCTS[f"hwfault_{struct}"]) in taken, operand.name
        held = dict(STRUCTS[f"hwfault_{struct}"]._fields_)[field]
        is_number = operand.type == "int" or operand.shape == "()"
        assert held in NUMBERS if is_number else held is c_void_p, operand.name


@pytest.mark.parametrize("name", [name for name, mechanism in MECHANISMS.items() if mechanism.kernel])
def test_triton_kernels_have_them_as_parameters(name):
    pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")
    from hwfault.stream.cuda import launch

    mechanism = MECHANISMS[name]
    parameters = [p for p in inspect.signature(getattr(launch, mechanism.kernel).fn).parameters if p.islower()]
    named = [operand.name for operand in (*mechanism.tensors, *mechanism.numbers)]
    others = {p for p in parameters if p not in named}
    grid = {f"{n}{of}{inner}" for of in ("scale", "zero_point") for n, inner in (("n_", ""), ("", "_inner"))}
    assert set(named) <= set(parameters)
    assert others <= MADE_BY_LAUNCH | grid
    # the order of the record, tensors and the numbers that say how words are stored
    tensors = [p for p in parameters if p in {operand.name for operand in mechanism.tensors}]
    assert tensors == [operand.name for operand in mechanism.tensors]


@pytest.mark.parametrize("kind", PROCESSES, ids=lambda kind: kind.name)
def test_processes_name_their_operands_alike(kind):
    mechanism = MECHANISMS[kind.mechanism]
    if kind.number is not None:  # those of a fault program
        assert "program" in mechanism.record._fields
        return
    assert set(kind.names) <= set(mechanism.record._fields)
    assert {kind.mechanism for kind in BY_NAME.values()} == {STREAM.name, MAP.name, PROTECTED.name, CLIP.name}


def test_lists_and_names():
    tensors, numbers = list("abcde"), [4, 1, 0]
    named = STREAM.named(tensors, numbers)
    assert (named.samples, named.zero_point, named.bit_width, named.representation) == ("a", "e", 4, 0)
    assert STREAM.listed(named) == (tuple(tensors), tuple(numbers))
    walk = [1, 0, 1, 2, 1, 1]
    layer = ARRAY.named(list("abcd"), [1, 8, 0, 2, 3, *walk])
    assert (layer.pass_steps, layer.walk) == (3, tuple(walk))
    assert ARRAY.listed(layer) == (tuple("abcd"), (1, 8, 0, 2, 3, *walk))
    assert ARRAY.named(list("abcd"), [1, 8, 0, 2, 3]).walk == ()


@pytest.mark.parametrize(
    ("mechanism", "tensors", "numbers"),
    [(STREAM, 4, 3), (STREAM, 5, 4), (STREAM, 6, 2), (MAP, 7, 4), (ARRAY, 4, 4), (ARRAY, 3, 6), (PROTECTED, 0, 0)],
)
def test_lists_of_other_lengths_are_refused(mechanism, tensors, numbers):
    with pytest.raises(
        PlanError, match=rf"{tensors} tensors and {numbers} numbers for the mechanism '{mechanism.name}'"
    ):
        mechanism.named([0] * tensors, [0] * numbers)


def test_other_mechanisms_are_refused():
    with pytest.raises(PlanError, match="the mechanism is 'map2', expected one of stream, map, protected, array, clip"):
        mechanism_named("map2")
