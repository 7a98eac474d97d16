"""Quant, IntQuant and BipolarQuant in onnxruntime against qonnx's own executor, to the bit."""

from itertools import product

import numpy as np
import pytest
from onnx import helper

from tests.helpers.graph.ops import FLOAT, QONNX, assert_same, by_qonnx, load, model, quant_node, quant_session

MODES = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
BITS = (*range(1, 33), 0.5, 1.5, 2.3, 4.75, 7.999, 11.1)
SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 0.5, -0.5, 1e-41, 3e38, -3e38, -1.0, 1.0], np.float32)


def broadcast(rng, shape):
    """A shape that broadcasts to `shape`: one value, one for each index of an axis, or any mixture, of any rank."""
    kind = rng.integers(4)
    if kind == 0 or not shape:
        return (1,) * rng.integers(0, 2 + len(shape))
    if kind == 1:
        axis = rng.integers(len(shape))
        return tuple(n if i == axis else 1 for i, n in enumerate(shape))
    small = tuple(n if rng.random() < 0.5 else 1 for n in shape)
    return small if kind == 2 else small[rng.integers(len(shape)) :]


def values(rng, shape, scale, zero_point, bits):
    """Values on the grid, at its ties, beyond its ends, and none of these."""
    span = 2.0 ** min(bits, 24)
    q = rng.uniform(-1.2 * span, 1.2 * span, shape) if rng.random() < 0.5 else rng.normal(size=shape) * 4
    q = np.where(rng.random(shape) < 0.6, np.round(2 * q) / 2, q)
    with np.errstate(all="ignore"):
        x = ((q - zero_point) * scale).astype(np.float32)
    special = rng.random(shape) < 0.1
    return np.where(special, rng.choice(SPECIAL, shape), x).astype(np.float32)


def case(rng):
    """One case: x, scale, zeropt and bits."""
    shape = tuple(rng.integers(1, 6, rng.integers(0, 5)).tolist())
    if rng.random() < 0.05:
        shape = ((0,), (2, 0, 3), (0, 4), (1, 0))[rng.integers(4)]
    bits = float(rng.choice(BITS))
    grid = [-0.25, 1e-20, 2.0**-30] if rng.random() < 0.03 else [0.5, 0.125, 0.3, 1.7, 0.01, 2.0, 1 / 3]
    scale = rng.choice(grid, broadcast(rng, shape)).astype(np.float32)
    zero_point = rng.choice([0, 0, 0, 3, -2, 128, 0.5, 7.25], broadcast(rng, shape)).astype(np.float32)
    x = values(rng, shape, scale, zero_point, bits)
    return {"x": x, "scale": scale, "zeropt": zero_point, "bits": np.array(bits, np.float32)}


@pytest.mark.parametrize("mode", MODES)
def test_random_cases(mode):
    rng = np.random.default_rng(MODES.index(mode))
    for signed, narrow in product((0, 1), (0, 1)):
        node = quant_node(signed=signed, narrow=narrow, rounding_mode=mode)
        for _ in range(110):
            feeds = case(rng)
            expected = np.asarray(by_qonnx(node, feeds), np.float32)
            for threads in (1, 2):
                (got,) = quant_session(signed, narrow, mode, threads).run(None, feeds)
                assert_same(got, expected, (signed, narrow, mode, threads, feeds))


@pytest.mark.parametrize("mode", MODES)
def test_every_width(mode):
    """The ends of the range, and a step beyond them, for each bit width."""
    for signed, narrow, bits in product((0, 1), (0, 1), BITS):
        node = quant_node(signed=signed, narrow=narrow, rounding_mode=mode)
        ends = np.array([-(2.0 ** (bits - 1)), 2.0 ** (bits - 1), 2.0**bits, 0.0])
        x = np.add.outer(ends, np.array([-2, -1.5, -1, -0.75, -0.5, 0, 0.5, 0.75, 1, 1.5])).astype(np.float32)
        feeds = {"x": x, "scale": np.float32([1]), "zeropt": np.float32([0]), "bits": np.array(bits, np.float32)}
        (got,) = quant_session(signed, narrow, mode, 1).run(None, feeds)
        assert_same(got, by_qonnx(node, feeds), (signed, narrow, mode, bits))


@pytest.mark.parametrize("axes", [(), (1,), (3,), (0, 2), (0, 1, 2, 3)])
def test_tensors_that_threads_share(axes):
    """Larger than what one thread takes at a time, with runs that its border cuts."""
    rng = np.random.default_rng(len(axes))
    shape = (3, 70, 50, 9)
    along = tuple(n if i in axes else 1 for i, n in enumerate(shape))
    feeds = {
        "x": (rng.normal(size=shape) * 3).astype(np.float32),
        "scale": rng.uniform(0.1, 1, along).astype(np.float32),
        "zeropt": rng.integers(-2, 3, along).astype(np.float32),
        "bits": np.array(4, np.float32),
    }
    expected = by_qonnx(quant_node(signed=1, narrow=0, rounding_mode="ROUND"), feeds)
    assert len(np.unique(expected)) > 10
    for threads in (1, 2, 4):
        assert_same(quant_session(1, 0, "ROUND", threads).run(None, feeds)[0], expected, threads)


SAMPLE = {
    "x": np.linspace(-12, 12, 193, dtype=np.float32).reshape(1, 193),
    "scale": np.array(0.5, np.float32),
    "zeropt": np.array(1, np.float32),
    "bits": np.array(4, np.float32),
}


@pytest.mark.parametrize("mode", [*(m.lower() for m in MODES), "Round", "hAlF_uP"])
def test_the_mode_in_any_case(mode):
    node = quant_node(signed=1, narrow=1, rounding_mode=mode)
    (got,) = load(model(node)).run(None, SAMPLE)
    assert_same(got, by_qonnx(node, SAMPLE))
    assert_same(got, quant_session(1, 1, mode.upper(), 1).run(None, SAMPLE)[0])


def test_the_modes_are_not_all_one():
    outputs = [quant_session(1, 0, mode, 1).run(None, SAMPLE)[0].tobytes() for mode in MODES]
    assert len(set(outputs)) == len(MODES) - 1  # HALF_EVEN is another name of ROUND


@pytest.mark.parametrize("left_out", ["signed", "narrow", "rounding_mode", "all"])
def test_defaults_are_qonnxs(left_out):
    given = {"signed": 0, "narrow": 0, "rounding_mode": "FLOOR"}
    given = {} if left_out == "all" else {k: v for k, v in given.items() if k != left_out}
    written = {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"} | given
    (got,) = load(model(quant_node(**given))).run(None, SAMPLE)
    assert_same(got, by_qonnx(quant_node(**written), SAMPLE))


def test_intquant_is_quant():
    attributes = {"signed": 0, "narrow": 1, "rounding_mode": "CEIL"}
    (got,) = load(model(quant_node("IntQuant", **attributes))).run(None, SAMPLE)
    assert_same(got, by_qonnx(quant_node(**attributes), SAMPLE))


def test_a_version_of_the_domain_other_than_1():
    """Brevitas stamps version 2."""
    graph = model(quant_node(signed=1, narrow=0, rounding_mode="ROUND"))
    for opset in graph.opset_import:
        opset.version = 2 if opset.domain == QONNX else opset.version
    assert_same(load(graph).run(None, SAMPLE)[0], quant_session(1, 0, "ROUND", 1).run(None, SAMPLE)[0])


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 4), (0,), (2, 0), (300, 400)])
@pytest.mark.parametrize("threads", [1, 2])
def test_bipolar(shape, threads):
    rng = np.random.default_rng(len(shape))
    node = quant_node("BipolarQuant", "x scale")
    session = load(model(node), threads)
    for _ in range(1 if np.prod(shape) > 1000 else 20):
        x = rng.choice([*SPECIAL, 0.1, -0.1, 7, -9], shape).astype(np.float32)
        feeds = {"x": x, "scale": rng.choice([0.5, 0.3, 2.0, -1.0], broadcast(rng, shape)).astype(np.float32)}
        expected = np.asarray(by_qonnx(node, feeds), np.float32)
        if expected.shape == shape:  # qonnx lets a scale of higher rank enlarge the values
            assert_same(session.run(None, feeds)[0], expected, feeds)


@pytest.mark.parametrize("mode", ["STOCHASTIC_ROUND", "ROUND_TO_ZERO", "", "ROUND "])
@pytest.mark.parametrize("op", ["Quant", "IntQuant"])
def test_an_unknown_mode_is_refused_when_the_session_is_made(op, mode):
    with pytest.raises(Exception, match=rf"\b{op}\b.*'the node'.*'{mode}', expected one of {', '.join(MODES)}"):
        load(model(quant_node(op, signed=1, narrow=0, rounding_mode=mode)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scale": np.ones((1, 192), np.float32)}, r"the scale of shape \(1, 192\) does not broadcast.*\(1, 193\)"),
        ({"zeropt": np.ones((2, 193), np.float32)}, r"the zero point of shape \(2, 193\) does not broadcast"),
        ({"scale": np.ones((2, 1, 1), np.float32)}, r"the scale of shape \(2, 1, 1\) does not broadcast"),
        ({"bits": np.ones(2, np.float32)}, r"the bit width has shape \(2\), expected one value"),
        ({"bits": np.ones(0, np.float32)}, r"the bit width has shape \(0\), expected one value"),
    ],
)
def test_inputs_that_do_not_fit(changes, text):
    with pytest.raises(Exception, match=f"(?s)Quant.*the node.*{text}"):
        quant_session(1, 0, "ROUND", 1).run(None, SAMPLE | changes)


def test_leading_axes_of_one_do_not_enlarge_the_values():
    """qonnx would answer with a tensor of higher rank; the op's output has the type and shape of its input."""
    grown = SAMPLE | {"scale": SAMPLE["scale"].reshape(1, 1, 1, 1), "zeropt": SAMPLE["zeropt"].reshape(1, 1, 1)}
    session = quant_session(1, 0, "ROUND", 1)
    assert_same(session.run(None, grown)[0], session.run(None, SAMPLE)[0])


def test_one_session_takes_any_rank():
    """Nothing of one run is left for the next."""
    session = quant_session(1, 0, "ROUND", 1)
    node = quant_node(signed=1, narrow=0, rounding_mode="ROUND")
    for shape in ((2, 3), (4,), (1, 2, 3, 4, 5, 6), (2, 3)):
        feeds = SAMPLE | {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)}
        assert_same(session.run(None, feeds)[0], by_qonnx(node, feeds))


def test_quants_of_one_graph_do_not_share_their_attributes():
    nodes = [
        helper.make_node("Quant", ["x", "scale", "zeropt", "bits"], [f"y{i}"], domain=QONNX, **attributes)
        for i, attributes in enumerate(
            [
                {"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"},
                {"signed": 0, "narrow": 1, "rounding_mode": "CEIL"},
            ]
        )
    ]
    graph = model(nodes[0])
    graph.graph.node.append(nodes[1])
    graph.graph.output.append(helper.make_tensor_value_info("y1", FLOAT, None))
    for node, got in zip(nodes, load(graph).run(None, SAMPLE), strict=True):
        assert_same(got, by_qonnx(node, SAMPLE))
