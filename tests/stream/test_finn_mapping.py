"""FINN's weight memories: the image that FINN itself would write, with qonnx's transformations as the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
from qonnx.util.basic import interleave_matrix_outer_dim_from_partitions

from hwfault.errors import ModelError
from hwfault.stream.layouts import Stored
from hwfault.stream.mapping import FinnMvau

DIVISORS = st.sampled_from([1, 2, 3])


@st.composite
def units(draw):
    """(mapping, shape, bit_width) of a weight that the unit folds."""
    pe, simd = draw(DIVISORS), draw(DIVISORS)
    taps = draw(st.sampled_from([(), (1,), (3,), (1, 1), (3, 3), (2, 3)]))
    shape = (pe * draw(DIVISORS), simd * draw(DIVISORS), *taps)
    return FinnMvau(pe=pe, simd=simd), shape, draw(st.integers(1, 8))


def finn_image(codes, pe, simd, bits):
    """The rows of all PE memories as integers (pe, depth), as FINN packs them.

    The steps of FINN's get_hw_compatible_weight_tensor and make_weight_file: interleave over PEs, SIMD innermost and
    reversed, then written as one number of which the first element is the most significant.
    """
    matrix = np.moveaxis(codes, 1, -1).reshape(len(codes), -1)  # (Co, kernel * Ci), channels fastest
    packed = interleave_matrix_outer_dim_from_partitions(matrix, pe).reshape(pe, -1, simd)
    packed = np.flip(packed, axis=-1).astype(np.int64)
    return [[sum(int(c) << bits * (simd - 1 - i) for i, c in enumerate(row)) for row in memory] for memory in packed]


def our_image(layout, codes, bits, pe):
    """The same image from the addresses of our layout."""
    word, bit = (x.ravel() for x in np.meshgrid(np.arange(codes.size), np.arange(bits), indexing="ij"))
    cell = layout.cells("w", word, bit)
    rows = [0] * layout.rows
    for r, column, w, b in zip(cell // layout.row_bits, cell % layout.row_bits, word, bit, strict=True):
        rows[r] |= (int(codes.ravel()[w]) >> int(b) & 1) << int(column)
    depth = layout.rows // pe
    return [rows[p * depth : (p + 1) * depth] for p in range(pe)]


@given(units())
def test_memory_images_equal_those_of_finn(case):
    mapping, shape, bits = case
    codes = np.random.default_rng(3).integers(0, 1 << bits, shape)
    layout = mapping.layout([Stored("w", shape, bits)])
    assert our_image(layout, codes, bits, mapping.pe) == finn_image(codes, mapping.pe, mapping.simd, bits)


def test_qonnx_flattens_convolutions_in_this_order():
    """The oracle's first step against qonnx's own lowering of a convolution."""
    weight = np.arange(4 * 3 * 2 * 2, dtype=np.float32).reshape(4, 3, 2, 2)
    value = helper.make_tensor_value_info
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[2, 2], pads=[0] * 4, strides=[1, 1], group=1)
    graph = helper.make_graph(
        [node],
        "conv",
        [value("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [value("y", TensorProto.FLOAT, [1, 4, 3, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = ModelWrapper(helper.make_model(graph)).transform(LowerConvsToMatMul())
    (lowered,) = [t for t in (numpy_helper.to_array(i) for i in model.graph.initializer) if t.shape == (12, 4)]
    assert np.array_equal(lowered.T, np.moveaxis(weight, 1, -1).reshape(4, -1))


def test_a_worked_example():
    """4 output channels, 6 inputs, PE 2, SIMD 3, 4 bits: the specification's."""
    layout = FinnMvau(pe=2, simd=3).layout([Stored("w", (4, 6), 4)])
    assert (layout.rows, layout.row_bits) == (8, 12)
    # weight (n=3, c=4), word 22: PE 1, address 1 * 2 + 1 = 3, lane 1
    assert layout.cells("w", 22, 2) == (1 * 4 + 3) * 12 + 1 * 4 + 2
    assert layout.address(int(layout.cells("w", 22, 2))) == "PE 1, address 3, lane 1, bit 2"
    assert layout.pe_of("w", 22) == 1


def test_a_worked_convolution():
    """2 output channels, 2 inputs, 1 x 3 taps, PE 1, SIMD 2: channels are fastest."""
    layout = FinnMvau(pe=1, simd=2).layout([Stored("w", (2, 2, 1, 3), 1)])
    # word 4 = (n=0, c=1, tap 1): position 1 * 2 + 1 = 3, address 1, lane 1
    assert layout.address(int(layout.cells("w", 4, 0))) == "PE 0, address 1, lane 1, bit 0"


def test_units_of_several_weights():
    layout = FinnMvau(pe=1, simd=2).layout([Stored("a", (1, 2), 2), Stored("b", (2, 2), 4)])
    assert (layout.rows, layout.row_bits) == (3, 8)  # rows as wide as the widest unit's
    assert layout.address(3) == "a: PE 0, address 0, lane 1, bit 1"
    assert layout.address(5) == "a: PE 0, address 0, column 5, not used"
    assert layout.address(8) == "b: PE 0, address 0, lane 0, bit 0"


@given(units())
def test_a_faulty_element_holds_exactly_its_channels(case):
    mapping, shape, bits = case
    layout = mapping.layout([Stored("w", shape, bits)])
    channel = np.arange(np.prod(shape)) // int(np.prod(shape[1:]))
    assert np.array_equal(layout.pe_of("w", np.arange(np.prod(shape))), channel % mapping.pe)
    assert layout.elements == (1, mapping.pe)


@pytest.mark.parametrize(
    ("mapping", "shape", "words"),
    [
        ((3, 1), (16, 4), "pe: 3 does not divide the 16 output channels of 'conv1.weight_quant'; .*: 2 or 4"),
        ((32, 1), (16, 4), "pe: 32 does not divide the 16 output channels .*: 16"),
        ((1, 4), (16, 3, 3, 3), "simd: 4 does not divide the 27 inputs of 'conv1.weight_quant'; .*: 3 or 9"),
        ((1, 1), (16,), r"stores weights .* 'conv1.weight_quant' has the shape \(16,\)"),
    ],
)
def test_weights_that_do_not_fold(mapping, shape, words):
    pe, simd = mapping
    with pytest.raises(ModelError, match=words):
        FinnMvau(pe=pe, simd=simd).layout([Stored("conv1.weight_quant", shape, 4)])
