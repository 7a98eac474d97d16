"""Graphs from a hostile hand: one clear error each, in every way to open them, and the process lives on.

All graphs are opened in processes of their own, whose memory is limited, so that a crash is a failed test.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from hwfault.graph.run.session import load_model, run, session
from tests.fuzz.graphs import GRAPHS, f32, node

WAYS = ("plain", "ran", "sites", "carried", "cli_run", "cli_sites")
MOST = 1 << 30  # bytes that a process may take beyond its imports
Change = Callable[[ModelProto], None]


def initializer(name: str, array: np.ndarray) -> Change:
    """Another constant under that name."""

    def change(model: ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), name))

    return change


def dims(name: str, *lengths: int) -> Change:
    """Other lengths over the same bytes."""

    def change(model: ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        tensor.dims[:] = lengths

    return change


def content(name: str, bytes_more: int) -> Change:
    """More bytes than the shape says, or fewer."""

    def change(model: ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        tensor.raw_data = (tensor.raw_data + bytes(64))[: len(tensor.raw_data) + bytes_more]

    return change


def attribute(name: str, value: object) -> Change:
    """Another value, of whatever type, for an attribute of the last node."""

    def change(model: ModelProto) -> None:
        last = model.graph.node[-1]
        kept = [a for a in last.attribute if a.name != name]
        del last.attribute[:]
        last.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def reading(at: int, name: str | None) -> Change:
    """Another input at a place of the last node, or one less."""

    def change(model: ModelProto) -> None:
        inputs = model.graph.node[-1].input
        inputs[at : at + 1] = [] if name is None else [name]

    return change


def input_shape(*lengths: int) -> Change:
    """Other lengths of x."""

    def change(model: ModelProto) -> None:
        shape = model.graph.input[0].type.tensor_type.shape
        del shape.dim[:]
        for length in lengths:
            shape.dim.add().dim_value = length

    return change


def cycle(model: ModelProto) -> None:
    model.graph.node[-1].output[0] = "z"
    model.graph.node.append(node("Relu", "z", "y", ""))
    model.graph.node[0].input[0] = "y"


def external(location: str, length: int | None = None) -> Change:
    """The scale's four bytes in a file."""

    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "length": length}.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))

    return change


def empty(*lengths: int) -> Change:
    """Values of these lengths, one of them 0, in place of x."""

    def change(model: ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(lengths), "lengths"))
        model.graph.node.insert(0, node("ConstantOfShape", "lengths", "none", ""))
        model.graph.node[-1].input[0] = "none"

    return change


def unknown_type(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 77


def no_type(model: ModelProto) -> None:
    model.graph.node[-1].attribute[0].type = AttributeProto.UNDEFINED


CASES: dict[str, tuple[str, Change]] = {
    "cycle": ("quant", cycle),
    "own_output": ("quant", reading(0, "y")),
    "dims_past_63_bits": ("quant", dims("scale", 1 << 40, 1 << 40)),
    "dims_past_64_bits": ("quant", dims("scale", 1 << 62, 4)),
    "negative_dim": ("quant", dims("scale", -1)),
    "input_past_63_bits": ("quant", input_shape(1 << 40, 4, 5, 1 << 40)),
    "empty_past_63_bits": ("threshold", empty(0, 4, 1 << 40, 1 << 40)),
    "negative_bits": ("quant", initializer("bits", f32(-4))),
    "bits_nan": ("trunc", initializer("out_bits", f32(float("nan")))),
    "negative_bit_width": ("fault_map", attribute("bit_width", -4)),
    "negative_mantissa": ("float_quant", initializer("m", f32(-3))),
    "scale_zero": ("quant", initializer("scale", np.zeros((4, 1, 1), np.float32))),
    "scale_nan": ("int_quant", initializer("scale", f32(1, float("nan"), 1))),
    "scale_infinite": ("trunc", initializer("scale", f32(float("inf")))),
    "scale_shape": ("quant", initializer("scale", np.ones((7, 1, 1), np.float32))),
    "bipolar_scale": ("bipolar", initializer("scale", f32(0))),
    "fault_scale_zero": ("fault_map", initializer("scale", np.zeros((1, 5)))),
    "fault_scale_nan": ("intermittent", initializer("scale", f32(float("nan")))),
    "fault_scale_shape": ("fault_map", initializer("scale", np.ones((1, 4)))),
    "fault_zero_point": ("fault_map", initializer("zero", np.array(np.inf))),
    "missing_input": ("quant", reading(3, None)),
    "input_from_nowhere": ("quant", reading(1, "nowhere")),
    "empty_input": ("quant", reading(1, "")),
    "missing_fault_input": ("fault_map", reading(5, None)),
    "signed_is_text": ("quant", attribute("signed", "yes")),
    "mode_is_number": ("quant", attribute("rounding_mode", 3)),
    "width_is_float": ("fault_map", attribute("bit_width", 4.0)),
    "program_is_number": ("bits", attribute("program", 5)),
    "program_is_floats": ("bits", attribute("program", [1.0, 2.0])),
    "out_scale_is_integer": ("threshold", attribute("out_scale", 2)),
    "kernel_is_number": ("largest", attribute("kernel_shape", 2)),
    "events_are_text": ("array", attribute("events", "none")),
    "wrapper_kernel_is_number": ("wrapped", attribute("kernel_shape", 2)),
    "signed_is_a_tensor": ("quant", attribute("signed", helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]))),
    "attribute_without_type": ("quant", no_type),
    "initializer_short": ("quant", content("scale", -5)),
    "initializer_long": ("quant", content("scale", 8)),
    "initializer_of_no_type": ("quant", unknown_type),
    "word_out_of_range": ("fault_map", initializer("word", np.array([0, 3, 7, 1 << 62]))),
    "masks_of_another_length": ("fault_map", initializer("and_mask", np.array([0, 3]))),
    "window_of_2_40": ("largest", attribute("kernel_shape", [1 << 20, 1 << 20])),
    "columns_of_2_50": ("im2col", attribute("pad_amount", [1 << 19] * 4)),
    "stride_of_2_62": ("array", attribute("strides", [1 << 62, 1])),
    "groups_of_2_62": ("array", attribute("group", 1 << 62)),
    "steps_of_2_62": ("array", attribute("pass_steps", 1 << 62)),
    "cell_out_of_range": ("table", initializer("cells", np.full((3, 8), 1 << 60))),
    "gain_shape": ("affine", initializer("gain", np.ones(2, np.float32))),
    "outside": ("bipolar", external("../outside.bin", 4)),
    "absolute": ("bipolar", external("/etc/hostname", 4)),
    "symlink": ("bipolar", external("link.bin", 4)),
    "symlink_folder": ("bipolar", external("folder/outside.bin", 4)),
    "no_such_file": ("bipolar", external("none.bin", 4)),
    "no_location": ("bipolar", external("")),
    "file_too_short": ("bipolar", external("short.bin", 4)),
    "length_of_2_62": ("bipolar", external("short.bin", 1 << 62)),
    "more_than_the_shape": ("bipolar", external("sparse.bin", 1 << 33)),
}
EXTERNAL = ("outside", "absolute", "symlink", "symlink_folder")
NODES = {
    name: f"the {op} of"
    for op, names in {
        "Quant": ("negative_bits", "scale_zero", "scale_shape", "signed_is_text", "mode_is_number"),
        "IntQuant": ("scale_nan",),
        "Trunc": ("bits_nan", "scale_infinite"),
        "BipolarQuant": ("bipolar_scale",),
        "FloatQuant": ("negative_mantissa",),
        "MultiThreshold": ("out_scale_is_integer",),
        "MaxPoolNHWC": ("window_of_2_40", "kernel_is_number"),
        "Im2Col": ("columns_of_2_50",),
        "FaultMap": (
            "fault_scale_zero",
            "fault_scale_shape",
            "fault_zero_point",
            "negative_bit_width",
            "width_is_float",
        ),
        "IntermittentFaults": ("fault_scale_nan",),
        "TransientFaults": ("program_is_number", "program_is_floats"),
        "ProtectedFaults": ("cell_out_of_range",),
        "Affine": ("gain_shape",),
        "ArrayFaults": ("stride_of_2_62", "groups_of_2_62", "steps_of_2_62", "events_are_text"),
    }.items()
    for name in names
}
"""Cases that the library itself refuses: its error names the node."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The graphs, and the files that they refer to."""
    outer = tmp_path_factory.mktemp("hostile")
    inner = outer / "graphs"
    inner.mkdir()
    (outer / "outside.bin").write_bytes(f32(0.5).tobytes())
    (inner / "link.bin").symlink_to(outer / "outside.bin")
    (inner / "folder").symlink_to(outer, target_is_directory=True)
    (inner / "short.bin").write_bytes(b"12")
    with open(inner / "sparse.bin", "wb") as file:
        file.truncate(1 << 34)
    for name, (graph, change) in CASES.items():
        model = GRAPHS[graph]()
        change(model)
        (inner / f"{name}.onnx").write_bytes(model.SerializeToString())
    whole = GRAPHS["bits"]().SerializeToString()
    renamed = GRAPHS["bits"]()
    renamed.graph.input[1].name = "seeeed"
    (inner / "no_utf8.onnx").write_bytes(renamed.SerializeToString().replace(b"seeeed", b"se\xe5eed"))
    for share in range(16):
        (inner / f"truncated_{share}.onnx").write_bytes(whole[: len(whole) * share // 16])
    return inner


@pytest.fixture(scope="module")
def answers(folder):
    """(graph, way) -> what the process said; it must have come to the end."""
    command = [sys.executable, "-m", "tests.graph.hostile_host", str(folder), *WAYS]
    root = Path(__file__).parents[3]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)]), "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=root, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, (lines[-1:], done.returncode, done.stderr[-3000:])
    return {(line["graph"], line["way"]): line for line in lines if "begins" not in line}


NAMES = [*CASES, "no_utf8", *(f"truncated_{share}" for share in range(16))]


@pytest.mark.parametrize("name", NAMES)
def test_hwfault_answers_with_an_error_of_its_own(answers, name):
    for way in WAYS[1:]:
        found = answers[name, way]
        assert found["error"] in ("", "HwfaultError"), (way, found)
        assert found["taken"] < MOST, (way, found)
    assert len(answers[name, "ran"]["text"]) > 20
    assert answers[name, "cli_run"]["error"] == "HwfaultError"


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_alone_lives_on(answers, name):
    found = answers[name, "plain"]
    assert found["taken"] < MOST, found
    if name in NODES:
        assert NODES[name] in found["text"]
    assert found["error"].startswith("onnxruntime.") or name in ACCEPTED


ACCEPTED = {"signed_is_a_tensor"}
"""What the library cannot see through onnxruntime's functions: it runs with the attribute's default."""


@pytest.mark.parametrize("name", EXTERNAL)
def test_files_outside_of_the_folder_are_not_read(answers, name):
    for way in WAYS[1:]:
        assert "expected one in the graph's own folder or below it" in answers[name, way]["text"]


def test_a_tensor_without_a_length_is_as_long_as_its_shape(tmp_path):
    """And not all that follows in its file, which may be larger than the memory."""
    model = GRAPHS["bipolar"]()
    external("whole.bin")(model)
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    with open(tmp_path / "whole.bin", "wb") as file:
        file.write(f32(0.5).tobytes())
        file.truncate(1 << 34)
    (tensor,) = load_model(tmp_path / "g.onnx").graph.initializer
    assert tensor.raw_data == f32(0.5).tobytes()
    assert run(session(tmp_path / "g.onnx"), np.ones((1, 4), np.float32))[0].tolist() == [[0.5] * 4]


EMPTY = """
import resource, sys
import numpy as np
from tests.fuzz.cases import plain_session
from tests.fuzz.graphs import GRAPHS, fitting
from tests.graph.run.test_hostile_graphs import EMPTY_SHAPES
from tests.process import mapped_memory, peak_memory

plain_session(GRAPHS["bits"]().SerializeToString())  # all imports are done
most, before = mapped_memory() + (12 << 30), peak_memory()
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for name, (shape, attributes, result) in EMPTY_SHAPES.items():
    model = GRAPHS[name]()
    for dim, letter in zip(model.graph.input[0].type.tensor_type.shape.dim, "abcd"):
        dim.dim_param = letter
    for attribute in model.graph.node[-1].attribute:
        if attribute.name in attributes:
            attribute.s = attributes[attribute.name]
    made = plain_session(model.SerializeToString())
    feeds = fitting(made) | {"x": np.empty(shape, np.float32)}
    print(name, made.run(None, feeds)[0].shape == result, flush=True)
print(peak_memory() - before)
"""
LONG = 1 << 30
EMPTY_SHAPES: dict[str, tuple[tuple[int, ...], dict[str, bytes], tuple[int, ...]]] = {
    "average": ((LONG, 1 << 20, 4, 0), {"data_layout": b"NHWC"}, (LONG, (1 << 20) - 1, 3, 0)),
    "largest": ((LONG, 1 << 20, 4, 0), {}, (LONG, 1 << 19, 2, 0)),
    "im2col": ((LONG, 1 << 20, 4, 0), {}, (LONG, (1 << 20) + 1, 2, 0)),
    "bits": ((1 << 31, 0), {}, (1 << 31, 0)),
    "bipolar": ((1 << 40, 0), {}, (1 << 40, 0)),
    "float_quant": ((0, 1 << 40), {}, (0, 1 << 40)),
}
"""Of each graph: the values' shape, attributes, and the result's shape."""


def test_values_that_are_none_take_no_time_and_no_memory():
    """Tensors of 0 values whose other lengths would keep a loop busy for years, or a list of them fill the memory."""
    root = Path(__file__).parents[3]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", EMPTY], capture_output=True, text=True, check=False, env=env, cwd=root, timeout=300
    )
    *ran, taken = done.stdout.split("\n")[:-1] or [""]
    assert (ran, done.returncode) == ([f"{name} True" for name in EMPTY_SHAPES], 0), (done.stdout, done.stderr[-2000:])
    assert int(taken) < MOST
