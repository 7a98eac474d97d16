"""What a CUDA device computes against the CPU, bit for bit: known answers, random cases, whole networks."""

import copy

import numpy as np
import torch
from torch import Tensor

from hwfault.arithmetic.exact import exact_on_cuda
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.stream import native
from hwfault.train import networks
from tests.benchmarks.gpu import Report, device
from tests.helpers.injection.networks import batch, build
from tests.helpers.stream import triton_calls
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.programs import VECTORS, vector_process
from tests.helpers.stream.triton_calls import (
    DEVICE,
    DTYPES,
    by_triton,
    native_inject,
    on_device,
    rows_of,
    same_bits,
    tensors,
)
from tests.helpers.torch_ops import operators

_FAULTS = [BitFlips(probability=1e-2), BitFlips(p01=1e-2, p10=2e-2), WordFaults(probability=1e-2)]


def equality(report: Report, count: int) -> None:
    """Known answers and random cases of codes, of values and gradients, and of networks."""
    known_answers(report)
    codes(report, count)
    values(report, max(count // 10, 1))
    maps(report, max(count // 10, 1))
    whole_networks(report)


def known_answers(report: Report) -> None:
    """Those of vectors.json."""
    for index, case in enumerate(VECTORS["cases"]):
        stored, faults = np.array(case["codes"], np.uint32), vector_process(index).program()
        expected = stored.copy()
        for word, code in case["changed"]:
            expected[word] = code
        after = by_triton(stored, faults, int(case["seed"]), case["sample"], case["bit_width"])
        if not np.array_equal(after, expected):
            report.differs(f"case {index} of vectors.json on {device()}")
            return
    report.line(f"known answers: {len(VECTORS['cases'])} of vectors.json, all equal")


def codes(report: Report, count: int) -> None:
    """Codes of one sample under up to three processes."""
    draw = Draw(20)
    for _ in range(count):
        case = draw.case()
        draws = {"program": case.program, "seed": case.seed, "samples": [case.sample], "bit_width": case.bit_width}
        (expected,) = native.inject_codes(case.codes[None], **draws)
        after = by_triton(case.codes, case.program, case.seed, case.sample, case.bit_width)
        if not np.array_equal(after, expected):
            report.differs(f"this case of codes, between the native library and {device()}: {case}")
            return
    report.line(f"random cases of codes: {count}, all equal to the native library")


def values(report: Report, count: int) -> None:
    """Values of every type, forward and backward."""
    draw = Draw(21)
    for k in range(count):
        dtype, bits = DTYPES[k % len(DTYPES)], draw.one_of((1, 2, 4, 8, 8, 17, 32))
        given = tensors(draw, dtype, (2, 3, 5, 40), k % 3 > 0, bits, k % 2 == 0, k % 5 > 2, k % 3)
        gradient = torch.ones_like(given[0])
        forward = same_bits(triton_calls.inject(*on_device(*given)).cpu(), native_inject(*given))
        zeroed = triton_calls.zero_faulty(*on_device(gradient, *given)).cpu()
        if not (forward and same_bits(zeroed, operators.zero_faulty(gradient, *given))):
            report.differs(f"values of {dtype} with {bits} bits, native library and {device()}: {given}")
            return
    report.line(f"random cases of values and gradients: {count}, all equal to the native library")


def maps(report: Report, count: int) -> None:
    """Fault maps, permanent and intermittent, forward and backward."""
    draw = Draw(22)
    for k in range(count):
        dtype, bits = DTYPES[k % len(DTYPES)], draw.one_of((1, 2, 4, 8))
        x, period, seed, _, *grid = tensors(draw, dtype, (2, 3, 5, 80), k % 3 > 0, bits, k % 2 == 0, k % 5 > 2, k % 3)
        rows = rows_of(draw, 1200, bits, draw.one_of((0.01, 0.2, 1.0)), flips_only=False)
        given = (period, seed, *rows, *grid, draw.one_of((2**31, 2**32)), draw.site())
        gradient = torch.ones_like(x)
        forward = same_bits(
            triton_calls.fault_map(*on_device(x, *given)).cpu(), operators.fault_map(x, *given, False, True)
        )
        zeroed = triton_calls.zero_map(*on_device(gradient, x, *given)).cpu()
        if not (forward and same_bits(zeroed, operators.zero_map(gradient, x, *given))):
            report.differs(f"a map on values of {dtype} with {bits} bits, native library and {device()}: {given}")
            return
    report.line(f"random cases of fault maps: {count}, all equal to the native library")


def whole_networks(report: Report, images: int = 16) -> None:
    """Networks whose sums are exact: each logit under the same faults, on the CPU and on the device."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(images, 3, 32, 32, generator=generator) * 2 - 1
    found = {"a small network of powers of two": (build("power_of_two"), batch(images))}
    for name in ("cnv", "resnet20"):
        found[f"{name}, scales that are powers of two"] = (networks.build(name, scale="power_of_two"), x)
    for title, (model, inputs) in found.items():
        model.eval()(inputs)  # Brevitas' scales are made in the first forward
        expected, after = outputs(model, inputs), outputs(copy.deepcopy(model).to(DEVICE), inputs.to(DEVICE)).cpu()
        if same_bits(expected, after):
            report.line(f"{title}: {after.numel()} logits under faults, all equal to the CPU's")
        else:
            report.differs(f"{title}: {int((expected != after).sum())} of {after.numel()} logits")


@torch.no_grad()
def outputs(model: torch.nn.Module, x: Tensor) -> Tensor:
    with exact_on_cuda(), inject(model, _FAULTS, seed=1):
        out: Tensor = model(x)
    return out
