"""The fault ops of the native library, of the table of ops and of qonnx: the same inputs and attributes, under the
names that the operands of their mechanisms have there."""

import re
from pathlib import Path

import pytest

from hwfault.graph.ops import FAULT_OPS
from hwfault.graph.run.qonnx_ops import custom_op
from hwfault.stream.mechanism import ARRAY, MECHANISMS
from tests.helpers.graph.ops import qonnx_attributes

EXPORT = Path(__file__).parents[3] / "export"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in sorted((EXPORT / "src").glob("ort_*"))}
TYPES = {"kTypeOf<T>": "floating", "kTypeOf<Grid<T>>": "floating", "kFloat": "floating", "kInt64": "int64"}
GRID = ("X", "scale", "zeropt")
OPS = [node for mechanism in MECHANISMS.values() for node in mechanism.nodes]
ONLY_IN_GRAPHS = {"batched", "layout", "axis", "rows", "inner", "refresh"}
"""Attributes that say how samples lie, and which of their numbers are periods: operands are made by them."""


def declared(op):
    """Names and types of an op's inputs in its C++ class."""
    (body,) = [
        found[1]
        for text in SOURCES.values()
        if (found := re.search(rf'name = "{op}";\s*static constexpr std::array inputs\{{(.*?)\}};', text, re.DOTALL))
    ]
    return {name: TYPES[kind] for name, kind in re.findall(r'Input\{"([^"]+)", ([\w<>]+)\}', body)}


def attributes_read():
    """Every attribute that the sources of the fault ops ask a node for."""
    asked = r'node\.(?:integer|integers|text|number)\(\s*"(\w+)"'
    names = ("ort_fault_op.cc", "ort_axes.cc", "ort_faults.cc", "ort_protect.cc", "ort_array.cc", "ort_clip.cc")
    return {name for file in names for name in re.findall(asked, SOURCES[file])}


@pytest.mark.parametrize("op", FAULT_OPS)
def test_inputs_of_the_library_are_those_of_the_table(op):
    assert tuple(name for name in declared(op) if name != "(optional)") == (*GRID, *FAULT_OPS[op])


@pytest.mark.parametrize("name", MECHANISMS)
def test_operands_are_inputs_or_attributes_of_their_ops(name):
    """Of an op that has not all operands of its mechanism, as a permanent map has no seed, another one has the rest."""
    mechanism = MECHANISMS[name]
    inputs = {k: v for op in mechanism.nodes for k, v in declared(op).items()}
    attributes = {k: v for op in mechanism.nodes for k, v in qonnx_attributes(op).items()}
    for operand in (*mechanism.tensors, *mechanism.numbers):
        if not operand.node:  # of how many samples there are the shapes tell
            continue
        if operand.node in inputs:
            # masks come as whole numbers, of which 32 bits are taken
            expected = "int64" if operand.type == "int32" else operand.type
            assert inputs[operand.node] == expected, operand.name
        elif operand.shape or operand.type == "ints":
            assert attributes[operand.node] == "ints", operand.name
        else:
            assert attributes[operand.node] in ("i", "s"), operand.name


@pytest.mark.parametrize("name", MECHANISMS)
def test_inputs_and_attributes_are_operands(name):
    mechanism = MECHANISMS[name]
    known = {operand.node for operand in (*mechanism.tensors, *mechanism.numbers)}
    if mechanism is ARRAY:  # of a linear layer and of a convolution
        known |= {"acc", "channels_last", "recompute", "pads", "dilations"}
    for op in mechanism.nodes:
        given = {*declared(op), *qonnx_attributes(op)} - {"X", "(optional)"} - ONLY_IN_GRAPHS
        assert given <= known, op


def test_every_attribute_that_the_library_reads_is_one_of_qonnxs_and_the_other_way_round():
    assert attributes_read() == {name for op in OPS for name in qonnx_attributes(op)}


@pytest.mark.parametrize("op", OPS)
def test_the_specification_tells_every_input_and_attribute(op):
    text = (EXPORT / "SPEC.md").read_text(encoding="utf-8")
    for name in ({*declared(op)} | {*qonnx_attributes(op)}) - {"(optional)"}:
        assert re.search(rf"\b{name}\b", text), name


def test_the_ops_are_those_that_there_are():
    assert {*OPS} == custom_op.keys() - {"Affine"}
