"""hwfault's ops in onnxruntime on floats against the reference: types, channels, ranks, threads, and bad graphs."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hwfault.codes import CodeFormat, decode
from hwfault.stream.check import signed64
from tests.helpers.stream.cases import Case, Draw
from tests.helpers.stream.engines import fault_node, session
from tests.helpers.stream.programs import Cluster, Mask, Random, symmetric
from tests.helpers.stream.values import Batch, Grid, numbers, telling, tells
from tests.stream.test_native import assert_same_bits, big_batch

TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


@dataclass(frozen=True)
class Tensor:
    """A batch, and the shapes of a sample and of what its scales and zero points look like in a graph."""

    batch: Batch
    shape: tuple[int, ...]
    constants: dict[str, NDArray]


def on_channels(draw: Draw, shape: tuple[int, ...], dtype: str, rows: int) -> Tensor:
    """A batch of samples of a shape, whose scale and zero point are one for each index of one axis, or one for all.

    Its values tell their codes, of which up to 32 bits may be struck.
    """
    case = draw.case()
    axis, words = draw.integer(0, len(shape) - 1), int(np.prod(shape))
    n, behind = shape[axis], shape[axis + 1 :]
    fmt = CodeFormat(case.bit_width, bool(draw.integer(0, 1)))
    scale = np.exp2(draw.rng.uniform(-8, 3, draw.one_of((1, n)))).astype(np.float32).astype(np.float64)
    zero_point = draw.rng.integers(0, 1 if fmt.bipolar else 5, draw.one_of((1, n))).astype(np.float64)
    grid = Grid(fmt, scale, int(np.prod(behind)), zero_point, int(np.prod(behind)))
    x = telling(numbers(draw, grid, (rows, words), dtype), *grid.along(words), fmt)
    first = draw.sample() % (2**32 - rows)
    one = [1] * draw.integer(0, len(shape))  # a single value comes with any number of axes
    along = {"scale": scale, "zero_point": zero_point}
    constants = {k: v.reshape(one if v.size == 1 else [-1, *[1] * len(behind)]) for k, v in along.items()}
    return Tensor(Batch(x, np.arange(rows, dtype=np.int64) + first, dtype, grid, case), shape, constants)


def run(t: Tensor, *, batched=1, threads=1):
    """x through a TransientFaults node, in its shape."""
    b, fmt = t.batch, t.batch.grid.fmt
    node = fault_node(0, b.case.program, fmt.bit_width, signed=int(fmt.signed), batched=batched)
    x = b.x.reshape(-1, *t.shape) if batched and b.x.size else b.x.reshape(*b.x.shape[:batched], *t.shape)
    inputs = [helper.make_tensor_value_info("x0", TYPES[b.dtype], [None] * x.ndim)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("seed0", "first_sample0")]
    made = session([node], inputs, TYPES[b.dtype], t.constants, threads)
    first = int(b.samples[0]) if b.samples.size else 3
    feeds = {"x0": x, "seed0": np.array(signed64(b.case.seed)), "first_sample0": np.array(first)}
    (y,) = made.run(None, feeds)
    assert y.shape == x.shape
    return y.reshape(b.x.shape)


@pytest.mark.parametrize(
    ("dtype", "value", "told"),
    [
        ("float32", 2.0**22 * 0.1, True),
        ("float32", 1.0, True),
        ("float32", 2.0**25 * 0.1, False),
        ("float64", 2.0**25 * 0.1, True),
    ],
)
def test_values_that_do_not_tell_their_codes_are_refused(dtype, value, told):
    """At a scale of 0.1 float32 has one number for several of the integers around 2^25; any tells that none is hit."""
    case = Case(np.zeros(3, np.uint32), (symmetric(9, [1e-6] * 32),), 1, 0, 32)
    grid = Grid(CodeFormat(32, True), np.array([np.float32(0.1)], np.float64), 1, np.zeros(1), 1)
    x = np.array([[0.0, value, np.nan]], np.dtype(dtype))
    constants = {"scale": grid.scale.reshape(()), "zero_point": np.zeros(())}
    t = Tensor(Batch(x, np.zeros(1, np.int64), dtype, grid, case), (3,), constants)
    if told:
        run(t)
    else:
        with pytest.raises(Exception, match="cannot tell from the value of another code of 32 bits"):
            run(t)


def test_the_words_that_are_refused_are_those_that_do_not_tell_their_codes():
    """One value of each draw, of 21 to 32 bits, signed or not, on its grid or a little off."""
    draw, outcomes = Draw(8), []
    for _ in range(60):
        fmt = CodeFormat(draw.integer(21, 32), bool(draw.integer(0, 1)))
        scale, zero_point = np.float32(np.exp2(draw.rng.uniform(-8, 3))), np.float32(draw.one_of((0, 0, 3, 0.7)))
        code = draw.codes(fmt.bit_width, 1) >> np.uint32(draw.one_of((0, 0, 2, 6)))
        x = decode(code, scale, zero_point, fmt)
        if draw.integer(0, 4) == 0:
            x = x + scale * np.float32(0.25)
        case = Case(np.zeros(1, np.uint32), (symmetric(9, [1e-6] * fmt.bit_width),), 1, 0, fmt.bit_width)
        grid = Grid(fmt, np.array([scale], np.float64), 1, np.array([zero_point], np.float64), 1)
        constants = {"scale": grid.scale.reshape(()), "zero_point": grid.zero_point.reshape(())}
        t = Tensor(Batch(x[None], np.zeros(1, np.int64), "float32", grid, case), (1,), constants)
        outcomes.append(bool(tells(x, scale, zero_point, fmt).all()))
        if outcomes[-1]:
            run(t)
            continue
        with pytest.raises(Exception, match=f"cannot tell from the value of another code of {fmt.bit_width} bits"):
            run(t)
    assert 15 < sum(outcomes) < 45


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(7,), (3, 400), (2, 3, 5, 41), (1, 1, 2100), (16, 1)])
def test_activations(dtype, shape):
    draw = Draw(len(shape) * 100 + shape[0])
    for rows in (0, 1, 1, 2, 3, 5):
        t = on_channels(draw, shape, dtype, rows)
        assert_same_bits(run(t), t.batch.injected(), t.batch)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(5,), (8, 3, 3, 3), (40, 70)])
def test_parameters_are_one_sample_of_number_0(dtype, shape):
    draw = Draw(sum(shape))
    for _ in range(6):
        t = on_channels(draw, shape, dtype, 1)
        zeroth = replace(t.batch, samples=np.zeros(1, np.int64))
        assert_same_bits(run(t, batched=0), zeroth.injected(), zeroth)


@pytest.mark.parametrize("dtype", TYPES)
def test_threads_do_not_matter(dtype):
    big = big_batch(dtype, rows=5, words=100 * 1024 + 13)
    big = replace(big, samples=big.samples - 3)  # an op takes numbers below 2^32 only
    flat = Grid(big.grid.fmt, np.array([0.25]), 1, np.array([1.0]), 1)
    t = Tensor(replace(big, grid=flat), big.x.shape[1:], {"scale": flat.scale, "zero_point": flat.zero_point})
    expected = t.batch.injected()
    for threads in (1, 2, 5):
        assert_same_bits(run(t, threads=threads), expected, t.batch)


def test_one_batch_is_its_samples_one_by_one():
    t = on_channels(Draw(4), (3, 300), "float32", 64)
    bits = t.batch.grid.fmt.bit_width
    case = replace(t.batch.case, processes=(symmetric(3, [0.01] * bits),))
    t = replace(t, batch=replace(t.batch, case=case))
    together = run(t)
    for i in range(64):
        alone = replace(t.batch, x=t.batch.x[i : i + 1], samples=t.batch.samples[i : i + 1])
        assert_same_bits(run(replace(t, batch=alone))[0], together[i], alone)


MAP_INPUTS = ["x", "scale", "zero_point", "word", "and_mask", "xor_mask"]


def run_map(b: Batch, rows, *, bit_width=None, batched=1, threads=1):
    fmt = b.grid.fmt
    attributes = {"bit_width": bit_width or fmt.bit_width, "signed": int(fmt.signed), "batched": batched}
    node = helper.make_node("FaultMap", MAP_INPUTS, ["y"], name="the map", domain="hwfault", **attributes)
    inputs = [helper.make_tensor_value_info("x", TYPES[b.dtype], [None] * b.x.ndim)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, [None]) for name in MAP_INPUTS[3:]]
    constants = {"scale": b.grid.scale, "zero_point": b.grid.zero_point}
    made = session([node], inputs, TYPES[b.dtype], constants, threads)
    return made.run(None, {"x": b.x, **dict(zip(MAP_INPUTS[3:], map(np.array, rows), strict=True))})[0]


@pytest.mark.parametrize("dtype", TYPES)
def test_maps(dtype):
    draw = Draw(8)
    for rows in (1, 2, 4, 0):
        b = on_channels(draw, (300,), dtype, rows).batch
        mask = b.grid.fmt.mask
        word = np.sort(draw.rng.choice(300, 80, replace=False))
        and_mask, xor_mask = (draw.codes(b.grid.fmt.bit_width, 80).astype(np.int64) for _ in range(2))
        and_mask[:20], xor_mask[:20] = mask, 0
        before = b.grid.encode(b.x, dtype)
        after = before.copy()
        after[:, word] = (before[:, word] & and_mask.astype(np.uint32)) ^ xor_mask.astype(np.uint32)
        expected = np.where((before == after) | ~np.isfinite(b.x), b.x, b.grid.decode(after, dtype))
        for threads in (1, 3):
            assert_same_bits(run_map(b, (word, and_mask, xor_mask), threads=threads), expected, b)


PLAIN = Batch(
    np.ones((2, 5), np.float32),
    np.arange(2),
    "float32",
    Grid(CodeFormat(4, False), np.ones(1), 1, np.zeros(1), 1),
    None,
)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (([5], [15], [1]), "word 5 of a tensor of 5 words"),
        (([-1], [15], [1]), "word -1"),
        (([1, 1], [15, 15], [1, 1]), "ascending"),
        (([2, 1], [15, 15], [1, 1]), "ascending"),
        (([1], [15, 15], [1]), "1, 2 and 1 rows, expected the same number"),
        (([1], [-1], [1]), "and_mask has the value -1"),
        (([1], [15], [2**32]), "xor_mask has the value 4294967296"),
        (([1], [15], [16]), "beyond the bit width"),
    ],
)
def test_maps_that_do_not_fit(rows, text):
    with pytest.raises(Exception, match=f"(?s)the map.*{text}"):
        run_map(PLAIN, tuple(np.array(part, np.int64) for part in rows))


def broken(**changes):
    """A session of one node with something wrong."""
    node = fault_node(0, changes.pop("program", Random(1, 0.1).program()), 4, signed=0, batched=1)
    drop = changes.pop("drop", None)
    for attribute in list(node.attribute):
        if attribute.name in (drop, *changes):
            node.attribute.remove(attribute)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in changes.items())
    inputs = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [None, None])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in ("seed0", "first_sample0")]
    return session([node], inputs, TensorProto.FLOAT, {"scale": 1.0, "zero_point": 0.0})


def test_the_node_to_be_broken_is_good():
    broken(bit_width=5).run(
        None, {"x0": np.ones((1, 3), np.float32), "seed0": np.array(1), "first_sample0": np.array(1)}
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"drop": "program"}, "program"),
        ({"drop": "bit_width"}, "bit_width"),
        ({"drop": "signed"}, "signed"),
        ({"drop": "batched"}, "batched"),
        ({"bit_width": 0}, "bit_width is 0, expected 1 to 32"),
        ({"bit_width": 33}, "bit_width is 33, expected 1 to 32"),
        ({"bit_width": 2**40}, "bit_width is 1099511627776"),
        ({"program": (3, 1, 2, 1)}, "program ends"),
        ({"program": (9, 1, 2, 1, 5)}, "kind = 9, expected 0 to 4"),
        ({"program": symmetric(1, [0.1] * 3).program()}, "program"),
        ({"program": Mask(1, 0.1, 16).program()}, "a mask = 16, expected 1 to 15"),
        ({"program": Cluster(1, "bit", (), (0.1,) * 5).program()}, "left over"),
    ],
)
def test_nodes_that_are_wrong_are_refused_at_loading(changes, text):
    with pytest.raises(Exception, match=f"(?s)node0.*{text}"):
        broken(**changes)


@pytest.mark.parametrize(
    ("feeds", "text"),
    [
        ({"seed0": np.array([1, 2])}, r"the seed has shape \(2\), expected one value"),
        ({"first_sample0": np.zeros(0, np.int64)}, r"the first sample number has shape \(0\), expected one value"),
    ],
)
def test_numbers_that_are_not_one(feeds, text):
    given = {"x0": np.ones((1, 3), np.float32), "seed0": np.array(1), "first_sample0": np.array(1), **feeds}
    with pytest.raises(Exception, match=f"(?s)node0.*{text}"):
        broken().run(None, given)


@pytest.mark.parametrize("scale", [np.ones(3), np.ones((2, 1)), np.ones((2, 5)), np.ones((1, 1, 1, 5)), np.ones(0)])
def test_scales_that_are_not_one_for_each_channel(scale):
    node = fault_node(0, Random(1, 0.1).program(), 4, signed=0, batched=1)
    inputs = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [None, None])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("seed0", "first_sample0")]
    made = session([node], inputs, TensorProto.FLOAT, {"scale": scale, "zero_point": 0.0})
    feeds = {"x0": np.ones((2, 5), np.float32), "seed0": np.array(1), "first_sample0": np.array(1)}
    with pytest.raises(Exception, match=r"(?s)node0.*the scale has shape.*\(2, 5\), expected one value"):
        made.run(None, feeds)
