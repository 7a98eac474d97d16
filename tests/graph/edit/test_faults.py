"""Faults in running graphs: against the reference, at any batch size, seed, sample and number of threads."""

from itertools import pairwise

import numpy as np
import pytest
from onnx import AttributeProto, TensorProto, helper

from hwfault.codes import CodeFormat, decode, encode
from hwfault.errors import GraphError, HwfaultError
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.stream import reference
from hwfault.stream.check import signed64
from tests.helpers.graph.networks import ALL, batch, plan
from tests.helpers.graph.ops import DOUBLE, FLOAT, assert_same, by_qonnx, load, model
from tests.helpers.graph.running import copied, faulted, faulted_session
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.values import telling

LARGE_SEEDS = (0, 1, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1)


def struck(codes, program, seed, samples, bit_width):
    """Codes (samples, words) with the faults of the reference."""
    rows = [
        reference.inject_codes(row, program=program, seed=seed, sample=int(sample), bit_width=bit_width)
        for row, sample in zip(codes, samples, strict=True)
    ]
    return np.stack(rows) if rows else codes


def by_reference(x, scale, zero_point, fmt, program, seed, samples):
    """Values with the faults of the reference; words that do not change keep their bits."""
    codes = encode(x, scale, zero_point, fmt)
    after = struck(codes.reshape(len(samples), -1), program, seed, samples, fmt.bit_width).reshape(x.shape)
    kept = (after == codes) | ~np.isfinite(x)  # what is no number stays
    return np.where(kept, x, decode(after, scale, zero_point, fmt, x.dtype.type))


def watched(name):
    """A faulted graph whose tensors before and after each fault node are outputs."""
    graph = copied(faulted(name))
    for tensor in (t for entry in fault_nodes(graph) for t in (entry.before, entry.after)):
        if tensor not in {info.name for info in graph.graph.output}:
            graph.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    return graph


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ALL)
def test_each_site_against_the_reference(name):
    graph = watched(name)
    held, constants, x = session(graph, threads=2), Constants(graph), batch(name, 5, seed=1).numpy()
    for seed, first in ((3, 0), (2**64 - 7, 2**32 - 5)):
        outputs = run(held, x, seed=seed, first_sample=first)
        tensors = dict(zip((info.name for info in graph.graph.output), outputs, strict=True))
        for entry in fault_nodes(graph):
            site = plan(name).at(entry.site).site
            fmt = CodeFormat(site.bit_width, site.signed)
            scale, zero_point = (constants.get(i) for i in entry.node.input[1:3])
            samples = np.arange(first, first + 5) if site.batched else [0]
            before = tensors[entry.before]
            expected = by_reference(before, scale, zero_point, fmt, plan(name).program(entry.site), seed, samples)
            assert_same(tensors[entry.after], expected.astype(np.float32), (entry.site, seed))
            assert before.size < 100 or (expected != before).any(), entry.site


@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_64_is_64_batches_of_one(name):
    x = batch(name, 64, seed=2).numpy()
    first = 2**32 - 64  # to the last number
    (together,) = run(faulted_session(name), x, seed=5, first_sample=first)
    for i in range(64):
        (alone,) = run(faulted_session(name), x[i : i + 1], seed=5, first_sample=first + i)
        assert_same(alone[0], together[i], i)


def test_a_batch_in_parts_of_any_size():
    x = batch("residual", 50, seed=3).numpy()
    (together,) = run(faulted_session("residual"), x, seed=6, first_sample=100)
    for cuts in ((0, 7, 50), (0, 1, 2, 40, 50), (0, 0, 25, 50, 50)):
        parts = [run(faulted_session("residual"), x[a:b], seed=6, first_sample=100 + a)[0] for a, b in pairwise(cuts)]
        assert_same(np.concatenate(parts), together, cuts)


def test_equal_inputs_have_faults_of_their_own():
    x = np.repeat(batch("digits_cnn", 1).numpy(), 16, axis=0)
    (out,) = run(faulted_session("digits_cnn"), x, seed=1)
    assert len(np.unique(out, axis=0)) > 8


def test_every_seed_of_64_bits_has_faults_of_its_own():
    x = batch("digits_cnn", 2).numpy()
    outputs = [run(faulted_session("digits_cnn"), x, seed=seed)[0] for seed in LARGE_SEEDS]
    assert len({out.tobytes() for out in outputs}) == len(LARGE_SEEDS)
    for seed, out in zip(LARGE_SEEDS, outputs, strict=True):
        feeds = {"input": x, "hwfault_seed": np.uint64(seed).astype(np.int64), "hwfault_first_sample": np.int64(0)}
        feeds = {key: np.asarray(value) for key, value in feeds.items()}
        assert_same(faulted_session("digits_cnn").run(None, feeds)[0], out)
        assert_same(run(faulted_session("digits_cnn"), x, seed=seed)[0], out)


@pytest.mark.parametrize("number", [2**32, 2**32 + 3, 2**40 + 3, 2**62 + 7, 2**63 - 1, -1, -(2**63)])
def test_sample_numbers_that_the_stream_does_not_have(number):
    """n and n + 2^32 would have the same faults."""
    x = batch("digits_cnn", 4).numpy()
    with pytest.raises(
        HwfaultError, match=f"the first sample number is {number}, expected an integer from 0 to 2\\^32 - 1"
    ):
        run(faulted_session("digits_cnn"), x, seed=4, first_sample=number)
    feeds = {"input": x, "hwfault_seed": np.array(4), "hwfault_first_sample": np.array(number, np.int64)}
    with pytest.raises(
        Exception, match=f"the first sample number is {number} for a batch of ., expected numbers from 0"
    ):
        faulted_session("digits_cnn").run(None, feeds)


@pytest.mark.parametrize("batch_size", [1, 2, 30])
def test_a_batch_whose_last_number_is_one_too_many(batch_size):
    x, last = batch("digits_cnn", batch_size).numpy(), 2**32 - batch_size
    run(faulted_session("digits_cnn"), x, seed=4, first_sample=last)
    refused = {1: (HwfaultError, "number is 4294967296, expected")}
    error, text = refused.get(batch_size, (GraphError, f"number is {last + 1} for a batch of .*, expected"))
    with pytest.raises(error, match=text):
        run(faulted_session("digits_cnn"), x, seed=4, first_sample=last + 1)


def test_sample_numbers_differ_up_to_2_to_the_32():
    x = batch("digits_cnn", 1).numpy()
    numbers = (0, 1, 2**16, 2**31, 2**32 - 1)
    assert len({run(faulted_session("digits_cnn"), x, seed=4, first_sample=n)[0].tobytes() for n in numbers}) == 5


def test_parameters_have_the_same_faults_at_every_sample():
    """A network whose only faults are in its weights answers each sample in the same way wherever it stands."""
    graph = watched("digits_cnn")
    held, x = session(graph, threads=1), batch("digits_cnn", 3).numpy()
    names = [e.after for e in fault_nodes(graph) if not plan("digits_cnn").at(e.site).site.batched]
    one, other = (run(held, x, seed=9, first_sample=n, outputs=names) for n in (0, 12345))
    for a, b in zip(one, other, strict=True):
        assert_same(a, b)
    assert any((a != b).any() for a, b in zip(one, run(held, x, seed=10, outputs=names), strict=True))


def test_one_session_serves_all_seeds_and_batches():
    """In any order, and the answers are those of a session of one's own."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        n, seed, first = int(rng.integers(0, 9)), int(rng.integers(0, 2**63)), int(rng.integers(0, 2**32))
        x = batch("convolutions", n, seed=n).numpy()
        (got,) = run(faulted_session("convolutions"), x, seed=seed, first_sample=first)
        (own,) = run(session(faulted("convolutions"), threads=1), x, seed=seed, first_sample=first)
        assert_same(got, own, (n, seed, first))


@pytest.mark.parametrize("name", ["digits_cnn", "per_channel"])
def test_threads_do_not_matter(name):
    x = batch(name, 64, seed=7).numpy()
    (expected,) = run(faulted_session(name), x, seed=2)
    for threads in (2, 4):
        held = session(faulted(name), threads=threads)
        for _ in range(3):
            assert_same(run(held, x, seed=2)[0], expected, threads)


TYPES = {"float": (FLOAT, np.float32), "double": (DOUBLE, np.float64)}


def transient(program, bit_width, signed, batched):
    inputs = ["x", "scale", "zeropt", "seed", "first_sample"]
    given = {"bit_width": bit_width, "signed": int(signed), "batched": int(batched)}
    node = helper.make_node("TransientFaults", inputs, ["y"], name="the node", domain="hwfault", **given)
    node.attribute.append(AttributeProto(name="program", type=AttributeProto.INTS, ints=program))
    return node


def grid(draw, shape, batched):
    """Shapes of scale and zero point: one value, or one for each index of an axis behind the batch."""
    axes = range(1 if batched else 0, len(shape))
    if not axes or draw.integer(0, 2) == 0:
        return (1,) * draw.integer(0, len(shape))
    axis = draw.one_of(list(axes))
    return (shape[axis], *(1,) * (len(shape) - axis - 1))


def op_case(draw, dtype, batched):
    """Values of a shape on a grid, which tell their codes of up to 32 bits, and what strikes them."""
    case, as_type = draw.case(), TYPES[dtype][1]
    shape = tuple(draw.integer(1, 6) for _ in range(draw.integer(1, 4))) if draw.integer(0, 3) else (2, 1500)
    fmt = CodeFormat(case.bit_width, bool(draw.integer(0, 1)))
    scale = np.asarray(np.exp2(draw.rng.integers(-6, 3, grid(draw, shape, batched))), as_type)
    span = 0 if fmt.bipolar else 4
    zero_point = np.asarray(draw.rng.integers(0, span + 1, grid(draw, shape, batched)), as_type)
    codes = draw.codes(case.bit_width, int(np.prod(shape))).reshape(shape)
    x = decode(codes, scale, zero_point, fmt, as_type)
    if draw.integer(0, 3) == 0:  # off the grid, and what is no number
        x = (x + draw.rng.uniform(-0.4, 0.4, shape) * scale).astype(as_type)
        x.flat[0] = draw.one_of([np.nan, np.inf, -np.inf, -0.0, 3e38])
    x = telling(x, scale, zero_point, fmt)
    first = draw.sample() % (2**32 - shape[0] + 1)
    samples = np.arange(shape[0]) + first if batched else np.zeros(1, np.int64)
    return case, fmt, x, scale, zero_point, first, samples


@pytest.mark.every(2)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_op_against_the_reference_and_in_qonnx(dtype, batched):
    draw = Draw(7 + batched)
    changed = 0
    for _ in range(60):
        case, fmt, x, scale, zero_point, first, samples = op_case(draw, dtype, batched)
        node = transient(case.program, fmt.bit_width, fmt.signed, batched)
        expected = by_reference(x, scale, zero_point, fmt, case.program, case.seed, samples)
        feeds = {"x": x, "scale": scale, "zeropt": zero_point}
        feeds |= {"seed": np.array(signed64(case.seed)), "first_sample": np.array(first, np.int64)}
        (got,) = load(model(node, TYPES[dtype][0]), threads=draw.integer(1, 2)).run(None, feeds)
        assert_same(got, expected, case)
        assert_same(by_qonnx(node, feeds), expected, case)
        changed += int((got != x).any())
    assert changed > 20


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
def test_maps_against_their_definition_and_in_qonnx(dtype, batched):
    draw = Draw(11 + batched)
    for _ in range(30):
        _, fmt, x, scale, zero_point, _, samples = op_case(draw, dtype, batched)
        words = x.size // len(samples)
        word = np.sort(draw.rng.choice(words, draw.integer(0, words), replace=False)).astype(np.int64)
        and_mask, xor_mask = (draw.codes(fmt.bit_width, word.size).astype(np.int64) for _ in range(2))
        inputs = ["x", "scale", "zeropt", "word", "and_mask", "xor_mask"]
        given = {"bit_width": fmt.bit_width, "signed": int(fmt.signed), "batched": int(batched)}
        node = helper.make_node("FaultMap", inputs, ["y"], name="the map", domain="hwfault", **given)
        codes = encode(x, scale, zero_point, fmt).reshape(len(samples), -1)
        after = codes.copy()
        for k, at in enumerate(word):
            after[:, at] = [(int(c) & int(and_mask[k])) ^ int(xor_mask[k]) for c in codes[:, at]]
        codes, after = codes.reshape(x.shape), after.reshape(x.shape)
        kept = (after == codes) | ~np.isfinite(x)
        expected = np.where(kept, x, decode(after, scale, zero_point, fmt, x.dtype.type))
        feeds = dict(zip(inputs, (x, scale, zero_point, word, and_mask, xor_mask), strict=True))
        (got,) = load(model(node, TYPES[dtype][0])).run(None, feeds)
        assert_same(got, expected)
        assert_same(by_qonnx(node, feeds), expected)


def test_sample_numbers_that_the_stream_does_not_have_in_qonnx():
    node = transient(Draw(0).process(4, 10).program(), 4, True, True)
    for rows, first, text in (
        (1, 2**32, "the first sample number is 4294967296"),
        (1, -1, "the first sample number is -1"),
        (3, 2**32 - 2, "the last sample's number is 4294967296"),
        (3, 2**32 - 3, None),
        (0, 2**32 - 1, None),
    ):
        x = np.zeros((rows, 5), np.float32)
        feeds = {"x": x, "scale": np.array(1, np.float32), "zeropt": np.array(0, np.float32)}
        feeds |= {"seed": np.array(1), "first_sample": np.array(first)}
        if text is None:
            by_qonnx(node, feeds)
            continue
        with pytest.raises(HwfaultError, match=text):
            by_qonnx(node, feeds)
    by_qonnx(transient(Draw(0).process(4, 10).program(), 4, True, False), feeds | {"x": np.zeros(5, np.float32)})


@pytest.mark.parametrize("batched", [True, False])
def test_empty_tensors_pass_through(batched):
    for shape in ((0, 3), (0,), (2, 0, 4)):
        x = np.zeros(shape, np.float32)
        node = transient(Draw(0).process(4, 10).program(), 4, True, batched)
        feeds = {"x": x, "scale": np.array(1, np.float32), "zeropt": np.array(0, np.float32)}
        feeds |= {"seed": np.array(1), "first_sample": np.array(0)}
        assert_same(load(model(node)).run(None, feeds)[0], x)
        assert_same(by_qonnx(node, feeds), x)
