"""ProtectedFaults in onnxruntime and in qonnx's executor: floats, refresh periods, threads, and broken nodes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp
from qonnx.transformation.infer_shapes import InferShapes

from hwfault.codes import REPRESENTATIONS, CodeFormat, Codes, decode, encode, represent
from hwfault.stream.protection import MapRows, Memory
from hwfault.stream.tables import ALWAYS
from tests.helpers.graph.ops import DOUBLE, FLOAT, assert_same, by_qonnx, model
from tests.helpers.stream.protection_calls import struck
from tests.helpers.stream.protection_cases import Case, cases, feeds, flips, node, node_session

TYPES = {FLOAT: np.float32, DOUBLE: np.float64}
REFRESH = ("inference", "batch", "held")


def periods(refresh: str, first: int, rows: int) -> np.ndarray:
    return {"inference": first + np.arange(rows), "batch": np.full(rows, first), "held": np.zeros(rows, np.int64)}[
        refresh
    ]


def expected(x: np.ndarray, case: Case, refresh: str, fmt: CodeFormat, batched: bool = True) -> np.ndarray:
    """Values on the grid of scale 1 after the faults, by the reference."""
    codes = encode(x, 1.0, 0.0, fmt)
    rows = codes.reshape(len(x) if batched else 1, -1)
    numbers = (case.sample + np.arange(len(rows))) * batched
    when = periods(refresh if batched or refresh != "inference" else "batch", case.sample, len(rows))
    after: Codes = struck(rows, case, numbers, when)[0].reshape(x.shape)
    return np.where(after == codes, x, decode(after, 1.0, 0.0, fmt, x.dtype.type))


@settings(max_examples=60, deadline=None)
@given(
    cases(most_words=80),
    st.sampled_from(REFRESH),
    st.sampled_from(tuple(TYPES)),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_onnxruntime_and_qonnx_are_the_reference(case, refresh, dtype, representation, batched, seed):
    case = replace(case, sample=case.sample % (2**32 - 1))  # a batch of two begins there
    dtype = DOUBLE if case.bits > 24 else dtype  # floats hold codes of up to 24 bits exactly
    fmt = CodeFormat(case.bits, True, REPRESENTATIONS[representation])
    rng = np.random.default_rng(seed)
    x = decode(represent(case.codes[None], fmt), 1.0, 0.0, fmt, TYPES[dtype])
    x = np.concatenate([x, rng.permutation(x, axis=1)]) if batched else x
    made = node(case, refresh, signed=1, representation=representation, batched=int(batched))
    given_values = {"x": x, **feeds(case)}
    (found,) = node_session(made, dtype).run(None, given_values)
    assert_same(found, expected(x, case, refresh, fmt, batched))
    grid = {"scale": np.array(1, TYPES[dtype]), "zeropt": np.array(0, TYPES[dtype])}
    assert_same(by_qonnx(made, given_values | grid), found)


MEMORY = Memory("secded", 64, 4)
PLAIN = Case(np.zeros(64, np.uint32), 4, MEMORY, (flips(1, MEMORY, 0.01),), 5, 7)
MAPPED = replace(PLAIN, processes=(), rows=MapRows([0, 4], [2**32 - 1] * 2, [3, 1]))


def run(case=PLAIN, x=None, *, threads=1, numbers=None, **attributes):
    x = np.zeros((2, 64), np.float32) if x is None else x
    made = node(case, **{"refresh": "held"} | attributes)
    return node_session(made, FLOAT, threads).run(None, {"x": x, **feeds(case), **(numbers or {})})[0]


def test_threads_and_the_batch_do_not_matter():
    memory = Memory("parity", 64, 5)
    case = Case(np.zeros(1, np.uint32), 5, memory, (flips(1, memory, 0.001),), 2**63 + 5, 9)
    x = np.random.default_rng(0).integers(0, 32, (3, 150_000)).astype(np.float32)
    alone = run(case, x)
    assert (alone != x).sum() > 1000
    for threads in (2, 5):
        assert_same(run(case, x, threads=threads), alone)
    for i in range(3):
        assert_same(run(replace(case, sample=9 + i), x[i : i + 1]), alone[i : i + 1])


def test_the_words_of_the_batch_s_period():
    case = replace(MAPPED, rows=replace(MAPPED.rows, threshold=2**31, site=3))
    x = np.zeros((40, 64), np.float32)
    shown = (run(case, x, refresh="inference", on_detected="due") != 0).any(axis=1)
    assert 0 < shown.sum() < 40
    for refresh in ("batch", "held"):
        shown = (run(case, x, refresh=refresh, on_detected="due") != 0).any(axis=1)
        assert shown.all() or not shown.any()


def test_shape_inference_of_qonnx():
    made = node(PLAIN)
    graph = model(made)
    for info in graph.graph.input:
        if info.name in ("number", "cells"):
            info.type.tensor_type.elem_type = TensorProto.INT64
    graph.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 3
    wrapped = ModelWrapper(graph).transform(InferShapes())
    assert wrapped.get_tensor_shape("y") == [3]
    assert getCustomOp(made).get_nodeattr("threshold") == ALWAYS


def test_the_node_to_be_broken_is_good():
    assert (run(MAPPED) == 0).all()
    assert run(MAPPED, on_detected="due")[0].tolist() == [3, *[0] * 63]


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"protection": "hamming"}, "protection is 'hamming', expected one of parity, secded, tmr"),
        ({"protection": None}, "protection is '', expected one of parity, secded, tmr"),
        ({"on_detected": "stop"}, "on_detected is 'stop', expected one of zero, due"),
        ({"data_bits": 0}, "data_bits is 0, expected 1 to 64"),
        ({"data_bits": 65}, "data_bits is 65, expected 1 to 64"),
        ({"data_bits": 2**40}, "data_bits is 1099511627776"),
        ({"data_bits": None}, "data_bits is missing"),
        ({"slot": 3}, "slot is 3, expected 4 to 64"),
        ({"slot": 65}, "slot is 65"),
        ({"bit_width": 33}, "bit_width is 33"),
        ({"representation": 3}, "representation is 3, expected 0 to 2"),
        ({"threshold": 2**32 + 1}, "threshold is 4294967297"),
        ({"site": -1}, "site is -1"),
        ({"refresh": "never"}, "refresh is 'never', expected inference, batch or held"),
    ],
)
def test_nodes_that_are_wrong_are_refused_at_loading(attributes, text):
    with pytest.raises(Exception, match=f"(?s)it.*{text}"):
        run(**attributes)


def test_programs_of_another_width_are_refused_at_loading():
    memory = Memory("secded", 8, 4)
    with pytest.raises(Exception, match=r"(?s)it.*program"):
        run(replace(PLAIN, memory=memory))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"word": [4, 0]}, "strictly ascending"),
        ({"word": [0, 16]}, "names word 16 of a tensor of 16 words"),
        ({"word": [0]}, "1, 2 and 2 rows"),
        ({"and_mask": [-1, 0]}, "and_mask has the value -1"),
        ({"number": [1]}, r"cells has shape \(0, 64\), expected \(1, 64\)"),
        ({"cells": [[0] * 64]}, r"cells has shape \(1, 64\), expected \(0, 64\)"),
        ({"number": [1], "cells": [[-1] * 63]}, r"cells has shape \(1, 63\), expected \(1, 64\)"),
        ({"number": [1], "cells": [[64 * 32] * 64]}, "names the cell 2048"),
        ({"number": [2, 1], "cells": [[-1] * 64] * 2}, "memory word in the table is 1, expected 2"),
        ({"seed": [1, 2, 3]}, "the seed has shape"),
    ],
)
def test_inputs_that_do_not_fit(numbers, text):
    with pytest.raises(Exception, match=f"(?s)it.*{text}"):
        run(MAPPED, numbers={key: np.array(value, np.int64) for key, value in numbers.items()})


def test_a_program_and_a_table():
    with pytest.raises(Exception, match="transient faults need the linear layout"):
        run(PLAIN, numbers={"number": np.array([0]), "cells": np.full((1, 64), -1)})
