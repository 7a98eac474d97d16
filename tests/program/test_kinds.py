"""The table of kinds against every engine's own: C, onnxruntime, Triton, qonnx, and the pages that specify them."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from qonnx.custom_op.registry import getCustomOp

import hwfault
from hwfault.errors import HwfaultError
from hwfault.graph.read.nodes import FAULT_OPS
from hwfault.program.kinds import BY_NAME, BY_NUMBER, KINDS, kinds_in, reads_other_words
from hwfault.program.streamed import Process
from hwfault.stream import native, touched
from hwfault.stream.tables import ACCEPT_ALL, encode_table

ROOT = Path(__file__).parents[2]
ON_WIRE = [kind for kind in KINDS if kind.number is not None]
BITS = 3


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


# fault programs: the C header's numbers, the order and the ranges of operands


def test_names_and_numbers_are_those_of_the_header():
    (listed,) = re.findall(r"enum class Kind : int64_t \{(.*?)\}", text_of("export/src/program.h"))
    numbers = {name: int(number) for name, number in re.findall(r"(\w+) = (\d+)", listed)}
    assert numbers == {kind.name: kind.number for kind in ON_WIRE}
    assert [kind.number for kind in ON_WIRE] == list(range(len(ON_WIRE))) == list(BY_NUMBER)


def test_what_finds_the_words_that_a_program_touches_knows_the_numbers():
    assert (BY_NAME["mask"].number, BY_NAME["late"].number) == (touched._MASK, touched.LATE)


def process_of(kind):
    """A process of a kind, with every operand that it has."""
    planes = kind.planes(BITS)
    own = {"fault": 0, "site_number": 9, "kind": kind.name, "tables": (0,) * planes}
    values = {
        "accept01": {"accept01": (5,) * planes},
        "accept10": {"accept10": (6,) * planes},
        "axis": {"axis": "word"},
        "sizes": {"sizes": (7, 8)},
        "mask": {"mask": 3},
        "inner": {"elements": (1, 1, 1, 1)},
    }
    for name in kind.names:
        own |= values.get(name, {})
    return Process(**own)


LENGTHS = {"accept": 1, "axis": 1, "sizes": 3, "mask": 1, "length": 1}
BEYOND = {"accept": ACCEPT_ALL + 1, "axis": 2, "sizes": -1, "mask": 1 << BITS, "length": 0, "table": -2}
TOLD = {
    "sizes": "a cluster's number of sizes",
    "columns": "the columns of an array",
    "rows": "the rows of an array",
    "channels": "the channels of a layer",
    "inner": "the words of a channel",
    "mask": "a mask",
    "axis": "a cluster's axis",
    "table": "a count table's length",
}


def places(kind, table):
    """(operand, where it begins in the program) of every operand, in the order of the row."""
    at = 3
    for plane in range(-1, kind.planes(BITS)):
        for operand in kind.per_process if plane < 0 else kind.per_plane:
            yield operand, at
            at += len(table) if operand.type == "table" else LENGTHS[operand.type]


@pytest.mark.parametrize("kind", ON_WIRE, ids=lambda kind: kind.name)
def test_the_native_library_reads_the_operands_in_this_order(kind):
    table = encode_table(0.01)
    program = process_of(kind).program([table])
    native.check_program(program, BITS)
    assert program[:3] == (kind.number, 9, len(program) - 3)
    found = list(places(kind, table))
    assert {operand.name for operand, _ in found} == set(kind.names)
    for operand, at in found:
        wrong = [*program[:at], BEYOND[operand.type], *program[at + 1 :]]
        with pytest.raises(HwfaultError, match=f"has {TOLD.get(operand.name, operand.name)} = {BEYOND[operand.type]},"):
            native.check_program(wrong, BITS)


@pytest.mark.parametrize("kind", ON_WIRE, ids=lambda kind: kind.name)
def test_the_page_of_the_ops_says_the_same(kind):
    (line,) = re.findall(rf"^ *kind {kind.number}, (.*)$", text_of("export/SPEC.md"), re.MULTILINE)
    names = {"accept01": "accept01", "accept10": "accept10", "axis": "axis", "sizes": "k, C[0", "mask": "M"}
    marks = [line.index(names.get(name, name)) for name in kind.names]
    assert marks == sorted(marks)
    assert ("each plane" in line) == (kind.strikes == "bits")


def test_which_kinds_read_other_words_is_what_the_library_says():
    """It refuses to strike such words where they lie."""
    table = encode_table(1.0)
    for kind in ON_WIRE:
        program = np.array(process_of(kind).program([table]), np.int64)
        x, one, zero = np.zeros(4, np.float64), np.ones(1), np.zeros(1)
        samples = np.zeros(1, np.int64)
        draw = native.draw(0, samples.ctypes.data, 1, 4, program.ctypes.data, program.size)
        grid = native.format(one.ctypes.data, 1, 1, zero.ctypes.data, 1, 1, BITS, False)
        try:
            native.inject(1, x.ctypes.data, x.ctypes.data, draw, grid, 1)
        except HwfaultError:
            assert kind.reads == "others", kind.name
        else:
            assert kind.reads != "others", kind.name
        assert reads_other_words(program.tolist()) == (kind.reads == "others")
        assert kinds_in(program.tolist()) == [kind]


# fault maps and protected memories: the C header's structs

C_TYPES = {
    "words": "const int64_t*",
    "cells": "const int64_t*",
    "masks": "const uint32_t*",
    "threshold": "int64_t",
    "site": "uint32_t",
    "bits": "int32_t",
    "integer": "int64_t",
    "name": "int32_t",
}


def fields_of(struct):
    """(name, type) of the fields of a struct of the C header, in their order."""
    (body,) = re.findall(rf"typedef struct \{{([^}}]*)\}} {struct};", text_of("export/include/hwfault.h"))
    found = []
    for declaration in filter(None, (part.strip() for part in body.split(";"))):
        base, names = re.fullmatch(r"((?:const )?\w+) ?(.*)", declaration.replace("* ", " *"), re.DOTALL).groups()
        for name in names.split(","):
            found.append((name.strip().lstrip("*"), base + "*" * name.count("*")))
    return found


@pytest.mark.parametrize(
    ("struct", "kind"), [("hwfault_map", "map"), ("hwfault_protection", "protected"), ("hwfault_range", "clip")]
)
def test_the_structs_of_the_header_hold_the_operands(struct, kind):
    fields = dict(fields_of(struct))
    called = {"protection": "kind"}
    # of a protected memory some are in hwfault_draw and hwfault_map
    elsewhere = {"program", *BY_NAME["map"].names} if kind == "protected" else set()
    held = [operand for operand in BY_NAME[kind].operands if operand.name not in elsewhere]
    assert [(called.get(o.name, o.name), C_TYPES[o.type]) for o in held] == [
        (name, fields[name]) for name in fields if name in {called.get(o.name, o.name) for o in held}
    ]
    draws = {"batch", "words", "rows", "seed", "period"}  # what says when, and how many
    assert fields.keys() - draws == {called.get(operand.name, operand.name) for operand in held}


# onnxruntime's ops and qonnx's

LYING = dict.fromkeys(("batched", "axis", "rows", "inner"), "integer") | {"layout": "integers"}
"""How the values lie, which every fault op reads the same way."""
COMMON = LYING | dict.fromkeys(("bit_width", "signed", "representation"), "integer")
ACCESS = {
    "integer": "integer",
    "threshold": "integer",
    "site": "integer",
    "bits": "integer",
    "name": "text",
    "program": "integers",
}
INPUTS = ("words", "masks", "cells")


def attributes_of(kind):
    """The attributes of a kind's node and how they are read, beside those of every fault op."""
    found = {operand.name: ACCESS[operand.type] for operand in BY_NAME[kind].operands if operand.type not in INPUTS}
    return found | {"refresh": "text"}


def read_in(path):
    return {name: how for how, name in re.findall(r'node\.(integer|integers|text)\("(\w+)"', text_of(path))}


def test_the_attributes_that_the_ops_of_onnxruntime_read():
    common = read_in("export/src/ort_fault_op.cc") | read_in("export/src/ort_axes.cc")
    of_memories, of_maps = attributes_of("protected"), attributes_of("map")
    assert common == COMMON | of_maps
    assert read_in("export/src/ort_protect.cc") == {n: how for n, how in of_memories.items() if n not in of_maps}
    assert read_in("export/src/ort_faults.cc") == {"program": "integers"}
    assert read_in("export/src/ort_clip.cc") == dict.fromkeys(BY_NAME["clip"].names, "integer")


def inputs_of_ops():
    """The names of each op's inputs, in their order, as its class declares them."""
    text = "".join(text_of(f"export/src/ort_{name}.h") for name in ("faults", "protect", "clip"))
    classes = re.findall(r'name = "(\w+)";\s*static constexpr std::array inputs\{(.*?)\};', text, re.DOTALL)
    return {op: tuple(re.findall(r'Input\{"([^"]+)"', inputs)) for op, inputs in classes}


def test_the_inputs_of_the_nodes_are_the_operands_in_their_order():
    drawn = ("seed", "first_sample")
    rows, layout = (
        tuple(operand.name for operand in BY_NAME[kind].operands if operand.type in INPUTS)
        for kind in ("map", "protected")
    )
    assert FAULT_OPS["FaultMap"] == rows
    assert FAULT_OPS["IntermittentFaults"] == (*rows, *drawn)
    assert FAULT_OPS["ProtectedFaults"] == (*rows, *drawn, *layout[len(rows) :])
    assert FAULT_OPS["TransientFaults"] == drawn
    declared = inputs_of_ops()
    for op in ("TransientFaults", "FaultMap", "IntermittentFaults", "ProtectedFaults", "ClippedRange"):
        names = tuple(name for name in declared[op] if name != "(optional)")
        assert names == ("X", "scale", "zeropt", *FAULT_OPS[op])


@pytest.mark.parametrize(
    ("op", "own"),
    [
        ("TransientFaults", {"program": "integers"}),
        ("FaultMap", {}),
        ("IntermittentFaults", attributes_of("map")),
        ("ProtectedFaults", attributes_of("protected")),
        ("ClippedRange", dict.fromkeys(BY_NAME["clip"].names, "integer")),
    ],
)
def test_the_attributes_of_qonnx_ops(op, own):
    letters = {"integer": "i", "integers": "ints", "text": "s"}
    types = getCustomOp(helper.make_node(op, ["x"], ["y"], domain="hwfault")).get_nodeattr_types()
    assert {name: kind for name, (kind, *_) in types.items()} == {
        name: letters[how] for name, how in (COMMON | own).items()
    }


# Triton's kernels


def test_the_kernels_of_triton_know_the_numbers_and_the_operands_before_a_table():
    source = ast.parse((Path(hwfault.__file__).parent / "stream" / "cuda" / "draw.py").read_text(encoding="utf-8"))
    named = [
        [name.id for name in each.targets[0].elts]
        for each in source.body
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Tuple)
    ]
    assert [kind.name.upper() for kind in ON_WIRE] in named
    (tables,) = (f for f in source.body if isinstance(f, ast.FunctionDef) and f.name == "read_tables")
    before = dict(re.findall(r"tl\.where\(kind == (\w+), (\d+), 0\)", ast.unparse(tables)))
    counted = {kind.name.upper(): str(len(kind.operands) - 1) for kind in ON_WIRE if len(kind.operands) > 1}
    del counted["CLUSTER"]  # whose sizes say themselves how many they are
    assert before == counted
