"""Trunc and FloatQuant in onnxruntime against qonnx's own executor, to the bit, over all of their attributes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.run.test_quant import MODES, SPECIAL, broadcast
from tests.helpers.graph.ops import assert_same, by_qonnx, load, model, quant_node

TRUNC = {1: "x scale zeropt in_bits out_bits", 2: "x scale zeropt in_bits out_scale out_bits"}
FLOATQUANT = "x scale exponent_bits mantissa_bits bias largest"

modes = st.sampled_from([*MODES, *(mode.lower() for mode in MODES)])
flags = st.integers(0, 1)
seeds = st.integers(0, 1 << 32)


def shape_of(rng):
    return tuple(rng.integers(1, 7, rng.integers(0, 5)).tolist())


def spread(rng, values, shape):
    """Values, of which some are special."""
    return np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape), values).astype(np.float32)


def trunc_case(rng, version):
    shape = shape_of(rng)
    scale = rng.choice([0.5, 0.125, 0.3, 1.7, 1.0, 2.0**-20, -0.25], broadcast(rng, shape)).astype(np.float32)
    zero_point = rng.choice([0, 0, 3, -2, 0.5, 128], broadcast(rng, shape)).astype(np.float32)
    q = np.round(rng.normal(size=shape) * rng.choice([4, 100, 5000]) * 2) / 2
    feeds = {"x": spread(rng, (q - zero_point) * scale, shape), "scale": scale, "zeropt": zero_point}
    widths = [1, 2, 3, 4, 7, 8, 9, 16, 24, 31, 32]
    feeds["in_bits"] = rng.choice(widths, broadcast(rng, shape) if version == 1 else ()).astype(np.float32)
    feeds["out_bits"] = rng.choice(widths, broadcast(rng, shape)).astype(np.float32)
    if version == 2:
        ratio = 2.0 ** rng.integers(-3, 12, broadcast(rng, shape)) * rng.choice([1, 1, 1.1, 0.8])
        feeds["out_scale"] = np.asarray(scale.ravel()[0] * ratio, np.float32)
    return feeds


@pytest.mark.parametrize("version", [1, 2])
@given(mode=modes, signed=flags, narrow=flags, seed=seeds)
def test_trunc(version, mode, signed, narrow, seed):
    rng = np.random.default_rng(seed)
    attributes = {"rounding_mode": mode} | ({"signed": signed, "narrow": narrow} if version == 2 else {})
    node = quant_node("Trunc", TRUNC[version], **attributes)
    session = load(model(node), 1 + seed % 2)
    for _ in range(10):
        feeds = trunc_case(rng, version)
        expected = np.asarray(by_qonnx(node, feeds, version))
        if expected.shape == feeds["x"].shape:  # qonnx lets a scale of higher rank enlarge the values
            assert_same(session.run(None, feeds)[0], expected, (attributes, feeds))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", [(3, 70, 50, 9), (2, 70001)], ids=str)
@pytest.mark.parametrize("axes", [(), (1,), (3,), (0, 1, 2, 3)], ids=str)
def test_trunc_of_tensors_that_threads_share(version, axes, shape):
    rng = np.random.default_rng(len(axes))
    along = tuple(n if i in axes else 1 for i, n in enumerate(shape))
    feeds = {
        "x": (rng.integers(-500, 500, shape) * 0.25).astype(np.float32),
        "scale": rng.choice([0.25, 0.5, 1], along).astype(np.float32),
        "zeropt": rng.integers(-2, 3, along).astype(np.float32),
        "in_bits": np.array(10, np.float32),
        "out_scale": rng.choice([2.0, 4.0], along).astype(np.float32),
        "out_bits": np.array(6, np.float32),
    }
    node = quant_node("Trunc", TRUNC[version], rounding_mode="ROUND")
    feeds = {name: feeds[name] for name in node.input}
    expected = by_qonnx(node, feeds, version)
    assert len(np.unique(expected)) > 10
    for threads in (1, 2, 4):
        assert_same(load(model(node), threads).run(None, feeds)[0], expected)


def test_truncs_defaults_are_those_of_qonnx():
    feeds = trunc_case(np.random.default_rng(0), 2) | {"x": np.linspace(-9, 9, 50, dtype=np.float32)}
    feeds |= {key: np.ravel(feeds[key])[:1] for key in ("scale", "zeropt", "out_scale", "out_bits", "in_bits")}
    written = quant_node("Trunc", TRUNC[2], rounding_mode="FLOOR", signed=1, narrow=0)
    (got,) = load(model(quant_node("Trunc", TRUNC[2]))).run(None, feeds)
    assert_same(got, by_qonnx(written, feeds))


FORMATS = [(4, 3, 7, 448.0), (5, 2, 15, 57344.0), (3, 2, 3, 28.0), (2, 1, 1, 6.0), (4, 3, 8, 240.0), (8, 7, 127, 3e38)]
FORMATS += [
    (5, 10, 15, 65504.0),
    (8, 23, 127, np.inf),
    (0, 3, 0, 10.0),
    (3, 0, 3, 100.0),
    (1, 5, 0, 0.3),
    (6, 9, 31, 4e9),
]


def floats(rng, shape, largest):
    """Values over all exponents, at ties and powers of two, and around the largest."""
    with np.errstate(over="ignore"):
        exponents = np.exp2(rng.uniform(-40, 20, shape)).astype(np.float32)
        powers = np.exp2(rng.integers(-30, 30, shape)) * rng.choice([1, 1 - 2**-24, 1 + 2**-23, 1.0625, 1.1875], shape)
        ends = np.float32(min(largest, 1e38)) * rng.choice([0.99, 1, 1.01, 1.5, 2], shape)
    values = np.choose(rng.integers(0, 3, shape), [exponents, powers, ends]) * rng.choice([-1, 1], shape)
    return spread(rng, values, shape)


@given(
    mode=modes,
    format_=st.sampled_from(FORMATS),
    bias=st.none() | st.integers(-4, 130),
    flags=st.tuples(flags, flags, flags, flags).filter(lambda f: any(f[:3])),
    seed=seeds,
)
def test_floatquant(mode, format_, bias, flags, seed):
    rng = np.random.default_rng(seed)
    names = ("saturation", "has_inf", "has_nan", "has_subnormal")
    node = quant_node("FloatQuant", FLOATQUANT, rounding_mode=mode, **dict(zip(names, flags, strict=True)))
    session = load(model(node), 1 + seed % 2)
    exponent_bits, mantissa_bits, own_bias, largest = format_
    numbers = (exponent_bits, mantissa_bits, own_bias if bias is None else bias, largest)
    for _ in range(10):
        shape = shape_of(rng) or (1,)  # qonnx fails on single values that do not saturate
        scale = rng.choice([1.0, 0.5, 0.3, 1.7, -2.0], broadcast(rng, shape)).astype(np.float32)
        feeds = {"x": floats(rng, shape, largest), "scale": scale}
        feeds |= {name: np.array(n, np.float32) for name, n in zip(FLOATQUANT.split()[2:], numbers, strict=True)}
        expected = by_qonnx(node, feeds)
        if expected.shape == shape:
            assert_same(session.run(None, feeds)[0], expected, (numbers, feeds))


def test_floatquant_at_every_power_of_two():
    """Where the exponent of a value is found by a logarithm that is rounded."""
    powers = np.exp2(np.arange(-126, 127, dtype=np.float32))
    near = (powers.view(np.int32)[:, None] + np.arange(-16, 17)).astype(np.int32).view(np.float32)
    for mantissa_bits in (2, 7, 23):
        node = quant_node("FloatQuant", FLOATQUANT, has_inf=0, has_nan=0, has_subnormal=1, saturation=1)
        numbers = dict(zip(FLOATQUANT.split()[2:], (8, mantissa_bits, 127, np.inf), strict=True))
        feeds = {"x": near, "scale": np.array(1, np.float32)}
        feeds |= {name: np.array(n, np.float32) for name, n in numbers.items()}
        assert_same(load(model(node)).run(None, feeds)[0], by_qonnx(node, feeds), mantissa_bits)


def one(*values):
    return np.array(values[0] if len(values) == 1 else values, np.float32)


TRUNC_FEEDS = {"x": one(1, 2), "scale": one(0.5), "zeropt": one(0), "in_bits": one(8), "out_bits": one(4)}
FLOAT_FEEDS = {"x": one(1, 2), "scale": one(0.5), "exponent_bits": one(4), "mantissa_bits": one(3), "bias": one(7)}
FLOAT_FEEDS["largest"] = one(448)


@pytest.mark.parametrize(
    ("op", "changes", "text"),
    [
        ("Trunc", {"scale": one(0)}, r"the scale holds 0\.0+, expected numbers that are finite and not 0"),
        ("Trunc", {"scale": one(np.nan)}, "the scale holds -?nan"),
        ("Trunc", {"scale": one(1, 2, 3)}, r"the scale of shape \(3\) does not broadcast to values of shape \(2\)"),
        ("Trunc", {"in_bits": one(-1)}, r"the input bit width is -1\.0+, expected a number of bits, 0 or more"),
        ("Trunc", {"out_bits": one(np.inf)}, "the output bit width is inf"),
        ("Quant", {"bits": one(-3)}, r"the bit width is -3\.0+, expected a number of bits, 0 or more"),
        ("Quant", {"bits": one(np.nan)}, "the bit width is -?nan"),
        ("Quant", {"scale": one(0)}, r"the scale holds 0\.0+, expected numbers that are finite and not 0"),
        ("Quant", {"scale": one(1, np.inf)}, "the scale holds inf"),
        ("FloatQuant", {"scale": one(1, 0)}, "the scale holds 0"),
        ("FloatQuant", {"mantissa_bits": one(-1)}, "the mantissa's bit width is -1"),
        ("FloatQuant", {"exponent_bits": one(3, 4)}, r"the exponent's bit width has shape \(2\), expected one value"),
        ("FloatQuant", {"bias": one(np.inf)}, "the exponent bias is inf, expected a whole number"),
        ("FloatQuant", {"mantissa_bits": one(2.5)}, "the mantissa's bit width is 2.5.*, expected a whole number"),
        ("FloatQuant", {"largest": one(0)}, "the largest value is 0.*, expected more than 0"),
    ],
)
def test_inputs_that_nobody_can_use(op, changes, text):
    given = {"Trunc": TRUNC_FEEDS, "FloatQuant": FLOAT_FEEDS}.get(op)
    given = given or {"x": one(1, 2), "scale": one(0.5), "zeropt": one(0), "bits": one(4)}
    with pytest.raises(Exception, match=f"(?s){op}.*the node.*{text}"):
        load(model(quant_node(op, " ".join(given)))).run(None, given | changes)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "text"),
    [
        ("Trunc", TRUNC[1], {"rounding_mode": "STOCHASTIC"}, f"'STOCHASTIC', expected one of {', '.join(MODES)}"),
        ("Trunc", TRUNC[2], {"signed": 2}, "the attribute signed holds 2, expected 0 to 1"),
        ("Trunc", TRUNC[2], {"narrow": "no"}, "the attribute narrow is no integer"),
        ("FloatQuant", FLOATQUANT, {"rounding_mode": 3}, "the attribute rounding_mode is no text"),
        ("FloatQuant", FLOATQUANT, {"has_subnormal": 0.5}, "the attribute has_subnormal is no integer"),
        ("FloatQuant", FLOATQUANT, {"saturation": 0}, "the attribute saturation is 0 and has_inf and has_nan"),
    ],
)
def test_attributes_that_nobody_can_execute(op, inputs, attributes, text):
    with pytest.raises(Exception, match=f"(?s){op}.*the node.*{text}"):
        load(model(quant_node(op, inputs, **attributes)))


@pytest.mark.parametrize(("op", "inputs"), [("Trunc", "x scale zeropt in_bits"), ("FloatQuant", "x scale")])
def test_missing_inputs(op, inputs):
    with pytest.raises(Exception, match="the node"):
        load(model(quant_node(op, inputs)))
