"""What the Triton kernels are asked wrongly, and that they compile for devices where none is at hand."""

import os
import subprocess
import sys

import pytest
import torch

from tests.helpers.stream.triton_here import OLDEST

pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")

from hwfault.errors import PlanError
from tests.helpers.stream.programs import symmetric
from tests.helpers.stream.triton_calls import fault_map, inject, on_device, zero_faulty
from tests.slowly import thinned


def arguments(**changed):
    given = {
        "x": torch.zeros(2, 3, 4),
        "samples": torch.arange(2),
        "seed": torch.tensor(1),
        "program": torch.tensor(symmetric(9, [0.01] * 4).program()),
        "scale": torch.tensor(1.0),
        "zero_point": torch.tensor(0.0),
    }
    return (*on_device(*(given | changed).values()), 4, False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples": torch.arange(3)}, r"3 sample numbers for a tensor of shape \(2, 3, 4\), expected one an element"),
        ({"samples": torch.arange(2.0)}, r"samples is torch.float32 on .*, expected torch.int64"),
        ({"seed": torch.tensor(1, dtype=torch.int32)}, r"seed is torch.int32 on .*, expected torch.int64"),
        ({"program": torch.zeros(3)}, r"program is torch.float32 on .*, expected torch.int64"),
        ({"scale": torch.ones(3, 4)}, r"a scale of shape \(3, 4\) for values of shape \(2, 3, 4\)"),
        ({"scale": torch.ones(2, 1, 1)}, r"a scale of shape \(2, 1, 1\)"),
        ({"zero_point": torch.ones(5)}, r"a zero point of shape \(5,\)"),
        ({"zero_point": torch.ones(1, 1, 1, 3)}, r"a zero point of shape \(1, 1, 1, 3\)"),
    ],
)
def test_transient_faults(changed, message):
    with pytest.raises(PlanError, match=message):
        inject(*arguments(**changed))


def test_a_gradient_that_is_not_of_the_values():
    x, *rest = arguments()
    for gradient in (x[:, :2], x.double()):
        with pytest.raises(PlanError, match=r"a gradient \(2, .* for values \(2, 3, 4\).* expected the same"):
            zero_faulty(gradient, x, *rest)


def test_a_map_whose_masks_do_not_fit():
    x, samples, seed, _, *grid = arguments()
    word = on_device(torch.tensor([1, 4]))
    for masks in (torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 1, dtype=torch.int32)):
        with pytest.raises(PlanError, match=r"and_mask of shape .* for 2 rows, expected \(2,\)"):
            fault_map(x, samples, seed, word, on_device(masks), *grid, 0, 2**32, 1)


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hwfault.stream.cuda import launch
from tests.slowly import thinned

DEVICE, FLOAT = "{device}", {{"fp32": tl.float32, "fp16": tl.float32, "i16": tl.float32, "fp64": tl.float64}}


def build(kernel, dtype, zero, known, words, options, **more):
    names = kernel.arg_names
    kinds = {{name: "*i64" for name in ("samples", "period", "seed", "program", "word")}}
    kinds |= {{name: "*" + dtype for name in ("source", "out", "stored")}} | {{"words": words}}
    kinds |= {{name: "*i32" for name in ("and_mask", "xor_mask")}}
    kinds |= {{name: "*fp32" for name in ("scale", "zero_point")}} | {{"threshold": "i64", "site": "i64"}}
    known = {{"ZERO": zero, "KNOWN": known, "NUMBER": FLOAT[dtype], **more}}
    known |= {{name: value for name, value in options.items() if name in names}}
    signature = {{name: "constexpr" if name in known else kinds.get(name, "i32") for name in names}}
    constants = {{(names.index(name),): value for name, value in known.items()}}
    aligned = {{(names.index(name),): [["tt.divisibility", 16]] for name in ("source", "out", "stored", "words")}}
    chosen = {{name: value for name, value in options.items() if name not in names}} | {{"enable_fp_fusion": False}}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", int(DEVICE), 32), options=chosen).asm["ptx"]


for dtype, zero, known, words in {cases}:
    ptx = build(launch.strike_kernel, dtype, zero, known, words, launch.STRIKE)
    wide = "ld.global.v4" in ptx and "st.global.v4" in ptx or dtype == "fp64"
    exact = not known or ("div.rn.f64" if dtype == "fp64" else "div.rn.f32") in ptx
    fused = "fma.rn" in ptx
    for drawn, sampled in ((False, False), (True, False), (False, True)):
        build(launch.map_kernel, dtype, zero, known, words, launch.MAP, DRAWN=drawn, SAMPLED=sampled)
    print(dtype, "good" if wide and exact and not fused else (wide, exact, fused))
"""
CASES = {
    "80": [("fp32", False, True, "i32"), ("i16", True, True, "i64")],
    "90": [("fp16", False, True, "i64"), ("fp64", False, True, "i32"), ("fp32", True, False, "i32")],
}


@pytest.mark.parametrize("device", thinned(CASES, 2))
def test_the_kernels_compile(device):
    """Triton's compiler needs no GPU; it refuses much that its interpreter takes."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    code = COMPILE.format(device=device, cases=CASES[device])
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split("\n")[:-1] == [f"{dtype} good" for dtype, *_ in CASES[device]]
