"""qonnx's datatypes and shapes as hwfault knows them by itself, against its own, and that no qonnx is needed there."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.util.cleanup import cleanup_model

from hwfault.graph.read.grids import NoGridError, read_datatype
from hwfault.graph.read.shapes import Tensors
from tests.cli.conftest import good
from tests.cli.test_graphs_without_torch import without_torch
from tests.graph.read.test_foreign import WEIGHTS, graph
from tests.helpers.graph.ops import QONNX, quant_node
from tests.helpers.graph.running import clean, copied

INTEGERS = [f"{sign}INT{width}" for sign in ("", "U") for width in range(1, 33)]
FIXED = [f"FIXED<{width},{before}>" for width in range(1, 33) for before in range(-3, width)]


@pytest.mark.parametrize("name", ["BINARY", "BIPOLAR", "TERNARY", *INTEGERS])
def test_integers_are_qonnxs(name):
    kind = DataType[name]
    if name == "INT1":  # a sign without a magnitude
        with pytest.raises(NoGridError, match="expected 1 to 32 bits, signed ones 2 or BIPOLAR"):
            read_datatype(name)
        return
    assert read_datatype(name) == (kind.bitwidth(), kind.signed(), 1.0)


def test_fixed_point_is_qonnxs():
    for name in FIXED:
        kind = DataType[name]
        if kind.bitwidth() > 1:
            assert read_datatype(name) == (kind.bitwidth(), kind.signed(), kind.scale_factor()), name
        assert read_datatype("FIXED<8, 4>") == read_datatype("FIXED<8,4>")


@pytest.mark.parametrize("name", ["FLOAT32", "FLOAT16", "FLOAT<4,3>", "FLOAT<5,2,15>", "SCALEDINT<8>"])
def test_no_integers(name):
    assert DataType[name] is not None
    with pytest.raises(NoGridError, match=f"its datatype is {name}, expected integers or fixed point"):
        read_datatype(name)
    with pytest.raises(NoGridError, match="expected integers or fixed point"):
        read_datatype(DataType[name].name)


@pytest.mark.parametrize("name", ["", "int8", "INT", "INT8 ", "UINT-3", "FIXED<4,4>", "FIXED<4>", "FLOAT<4>", "INT٣"])
def test_names_that_qonnx_does_not_write(name):
    with pytest.raises(NoGridError, match="which qonnx does not have"):
        read_datatype(name)


@pytest.mark.parametrize("name", ["INT0", "UINT33", "INT64", "FIXED<40,3>", "FIXED<1,0>"])
def test_widths_of_no_word(name):
    with pytest.raises(NoGridError, match="expected 1 to 32 bits"):
        read_datatype(name)


# shapes


def shape_of(node, **shapes):
    """The shape that hwfault finds for y, of which the graph says nothing, and that which qonnx infers."""
    from qonnx.transformation.infer_shapes import InferShapes

    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    y = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    whole = helper.make_graph([node, helper.make_node("Relu", ["y"], ["z"])], "g", infos, [y])
    model = helper.make_model(whole, opset_imports=opsets, ir_version=8)
    inferred = ModelWrapper(copied(model)).transform(InferShapes())
    return Tensors(model).shapes.get("y"), inferred.get_tensor_shape("y")


@given(
    image=st.tuples(st.integers(5, 9), st.integers(5, 9), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
)
def test_shapes_of_windows(image, kernel, stride, dilations, pads):
    attributes = {"kernel_size": kernel, "stride": stride, "dilations": dilations, "pad_amount": pads}
    node = quant_node("Im2Col", "x", input_shape=str((1, *image)), **attributes)
    found, expected = shape_of(node, x=(1, *image))
    assert list(found) == expected


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2)])
def test_shapes_of_pools(kernel, stride):
    node = quant_node("QuantAvgPool2d", "x", kernel=kernel, stride=stride, ibits=4, obits=4, signed=0)
    found, expected = shape_of(node, x=(2, 3, 8, 7))
    assert list(found) == expected


def test_shapes_of_products():
    found, expected = shape_of(quant_node("XnorPopcountMatMul", "x w"), x=(2, 3), w=(3, 5))
    assert list(found) == expected == [2, 5]


@pytest.mark.parametrize(
    "attributes",
    [
        {"input_shape": "nonsense"},
        {"input_shape": "(1, 4, 4)"},
        {"stride": [0, 0]},
        {"stride": 1},
        {"kernel_size": [9, 9]},
        {"pad_amount": [1]},
    ],
)
def test_windows_of_which_nothing_is_known(attributes):
    whole = {"kernel_size": [2, 2], "stride": [1, 1], "input_shape": "(1, 4, 4, 2)"} | attributes
    node = quant_node("Im2Col", "x", **whole)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", info[:1], info[1:]))
    assert Tensors(model).shapes.get("y", ()) == ()


# whole commands


def channels_last():
    """A residual network's graph with its channels last, which nothing in it says that hwfault exported."""
    foreign = copied(clean("residual"))
    for record in (foreign, *foreign.graph.node):
        del record.metadata_props[:]
    tidy = cleanup_model(ModelWrapper(foreign), override_inpsize=2)
    return tidy.transform(ConvertToChannelsLastAndClean()).model


@pytest.mark.parametrize(
    "make", [pytest.param(graph, id="finn"), pytest.param(channels_last, id="channels-last", marks=pytest.mark.slow)]
)
def test_listing_and_inserting_need_no_qonnx(make, tmp_path):
    onnx.save(make(), tmp_path / "g.onnx")
    plain, again = tmp_path / "plain.onnx", tmp_path / "again.onnx"
    insert = ("insert", tmp_path / "g.onnx", "--ber", 0.01, "-o")
    done = without_torch(("sites", tmp_path / "g.onnx"), (*insert, plain))
    assert done.returncode == 0, done.stderr
    listed = good("sites", tmp_path / "g.onnx").stdout
    assert listed in done.stdout
    assert make is channels_last or all(name in listed for name in WEIGHTS)
    good(*insert, again)
    assert plain.read_bytes() == again.read_bytes()
