"""The known answers of version 1.1 (vectors_1_1.json) over every engine: zero points, wide words, what is no number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from hwfault.codes import CodeFormat, encode, faulty_values
from hwfault.torch_ops import codec
from tests.helpers.stream.engines import fault_node, session
from tests.helpers.stream.triton_here import OLDEST
from tests.helpers.torch_ops import operators
from tests.slowly import thinned
from tests.stream.make_vectors_1_1 import cases

WRITTEN = json.loads(Path(__file__).with_name("vectors_1_1.json").read_text(encoding="utf-8"))["cases"]
NUMBERED = range(len(WRITTEN))
TORCH = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def numbers(values):
    return np.array([float(v) for v in values])


class Case:
    """One case's values as torch holds them, and what strikes them."""

    def __init__(self, index):
        said = WRITTEN[index]
        self.kind, self.mask, self.said = said["type"], said["mask"], said
        self.fmt = CodeFormat(said["bit_width"], said["signed"])
        self.x = torch.from_numpy(numbers(said["values"])).to(TORCH[self.kind])
        self.scale, self.zero_point = torch.tensor(said["scale"]), torch.tensor(said["zero_point"])
        self.program = (2, 77, 2, self.mask, -1)  # h = 1: every word

    @property
    def arguments(self):
        draw = torch.zeros(1, dtype=torch.int64), torch.zeros((), dtype=torch.int64), torch.tensor(self.program)
        return self.x[None], *draw, self.scale, self.zero_point, self.fmt.bit_width, self.fmt.signed

    def check(self, after):
        found, expected = torch.as_tensor(after).double().reshape(-1).numpy(), numbers(self.said["after"])
        np.testing.assert_array_equal(found, expected, err_msg=self.said["about"])


def test_the_file_is_what_exact_fractions_say():
    assert json.loads(json.dumps(list(cases()))) == WRITTEN
    assert len(WRITTEN) == 30


@pytest.mark.parametrize("index", NUMBERED)
def test_codes_in_numpy(index):
    case = Case(index)
    half = case.kind in ("float16", "bfloat16")
    values = case.x.double().numpy() if case.kind == "float64" else case.x.float().numpy()
    grid = (np.asarray(case.said["scale"]), np.asarray(case.said["zero_point"]), case.fmt)
    codes = encode(values, *grid, half=half)
    assert codes.tolist() == case.said["codes"]
    struck = faulty_values(values, codes, codes ^ np.uint32(case.mask), *grid)
    case.check(torch.from_numpy(struck).to(case.x.dtype))


@pytest.mark.parametrize("index", NUMBERED)
def test_codes_in_torch(index):
    case = Case(index)
    q = codec.integers(case.x, case.scale, case.zero_point, case.fmt)
    assert codec.code_words(q, case.fmt).tolist() == case.said["codes"]
    assert torch.equal(q.isnan(), ~case.x.isfinite())


@pytest.mark.parametrize("index", NUMBERED)
def test_the_native_library(index):
    case = Case(index)
    case.check(operators.inject(*case.arguments, False, True))
    gradient = operators.zero_faulty(torch.ones_like(case.x[None]), *case.arguments)
    assert torch.equal(gradient[0] == 0, case.x.isfinite())


@pytest.mark.parametrize("index", thinned(NUMBERED, 7))
def test_triton(index):
    pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")
    from tests.helpers.stream.triton_calls import fast_or, inject, on_device, zero_faulty

    case = Case(index)
    with fast_or():
        case.check(inject(*on_device(*case.arguments)).cpu())
        gradient = zero_faulty(*on_device(torch.ones_like(case.x[None]), *case.arguments)).cpu()
    assert torch.equal(gradient[0] == 0, case.x.isfinite())


@pytest.mark.parametrize("index", [i for i in NUMBERED if WRITTEN[i]["type"] in ("float32", "float64")])
def test_onnxruntime(index):
    case = Case(index)
    dtype = TensorProto.FLOAT if case.kind == "float32" else TensorProto.DOUBLE
    node = fault_node(0, case.program, case.fmt.bit_width, signed=int(case.fmt.signed), batched=1)
    inputs = [helper.make_tensor_value_info("x0", dtype, [1, None])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("seed0", "first_sample0")]
    constants = {"scale": np.array(case.said["scale"]), "zero_point": np.array(case.said["zero_point"])}
    feeds = {"x0": case.x[None].numpy(), "seed0": np.array(0), "first_sample0": np.array(0)}
    (y,) = session([node], inputs, dtype, constants).run(None, feeds)
    case.check(torch.from_numpy(y))
