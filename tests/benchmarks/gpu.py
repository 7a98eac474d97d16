"""`make bench-gpu`: on a CUDA device, first equality with the native library, then injection against a copy.

Prints what it measures and writes it to `results/gpu-NAME.txt`. `--tune` times the kernel under other settings as well,
`--elements` and `--cases` make it smaller.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_TARGET = 0.90  # of the copy's bandwidth, up to a word rate of 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 28, help="of the tensor that faults are injected into")
    parser.add_argument("--cases", type=int, default=10_000, help="random cases of the equality test")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tune", action="store_true", help="also time the kernel under other settings")
    options = parser.parse_args()
    refuse_without_a_gpu()
    report = Report()
    report.line(device())
    equality(report, options.cases)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        bandwidth(report, options.elements, dtype, options.rounds)
    if options.tune:
        tune(report, options.elements, options.rounds)
    report.write()


def refuse_without_a_gpu() -> None:
    if not torch.cuda.is_available():
        sys.exit(
            f"bench-gpu measures on a CUDA device, but torch {torch.__version__} finds none here; run it on a machine "
            "with an NVIDIA GPU and a CUDA build of torch (`make test` shows equality under Triton's interpreter)"
        )
    try:
        from triton import knobs
    except ImportError:
        sys.exit("bench-gpu measures Triton kernels, but triton is not installed; run `pip install triton`")
    if knobs.runtime.interpret:
        sys.exit("bench-gpu measures on a GPU, but TRITON_INTERPRET is set, which runs kernels on the CPU; unset it")


def device() -> str:
    import triton

    properties = torch.cuda.get_device_properties(0)
    memory = f"{properties.total_memory / 2**30:.0f} GiB, {properties.multi_processor_count} SMs"
    versions = f"torch {torch.__version__}, Triton {triton.__version__}, CUDA {torch.version.cuda}"
    return f"{properties.name} ({memory}), {versions}"


class Report:
    """Lines that are printed as they come, and kept."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def line(self, text: str) -> None:
        print(text, flush=True)
        self._lines.append(text)

    def write(self) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")
        path = Path(__file__).parent / "results" / f"gpu-{name}.txt"
        path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        print(f"written to {path}")


def equality(report: Report, count: int) -> None:
    """Known answers and random cases on the device, against vectors.json and the native library."""
    from tests.stream.cases import Draw
    from tests.stream.engines import by_native
    from tests.stream.programs import VECTORS, vector_process
    from tests.stream.triton_calls import by_triton

    for index, case in enumerate(VECTORS["cases"]):
        codes, faults = np.array(case["codes"], np.uint32), vector_process(index).program()
        expected = codes.copy()
        for word, code in case["changed"]:
            expected[word] = code
        after = by_triton(codes, faults, int(case["seed"]), case["sample"], case["bit_width"])
        if not np.array_equal(after, expected):
            sys.exit(f"case {index} of vectors.json differs on {device()}")
    report.line(f"known answers: {len(VECTORS['cases'])} of vectors.json, all equal")
    draw = Draw(20)
    for _ in range(count):
        case = draw.case()
        given = (case.codes, case.program, case.seed, case.sample, case.bit_width)
        if not np.array_equal(by_triton(*given), by_native(*given)):
            sys.exit(f"this case differs between the native library and {device()}: {case}")
    report.line(f"random cases of codes: {count}, all equal to the native library")
    values(report, max(count // 10, 1))


def values(report: Report, count: int) -> None:
    """Values of every type, forward and backward, against the native library, bit for bit."""
    from hwfault.inject import ops
    from hwfault.stream import cuda
    from tests.stream.cases import Draw
    from tests.stream.triton_calls import DTYPES, native_inject, same_bits, tensors

    draw = Draw(21)
    for k in range(count):
        dtype, bits = DTYPES[k % len(DTYPES)], draw.one_of((1, 2, 4, 8, 8, 17, 32))
        given = tensors(draw, dtype, (2, 3, 5, 40), k % 3 > 0, bits, k % 2 == 0, k % 5 > 2, k % 3)
        moved = tuple(a.cuda() if isinstance(a, Tensor) else a for a in given)
        gradient = torch.ones_like(given[0])
        forward = same_bits(cuda.inject(*moved).cpu(), native_inject(*given))
        backward = same_bits(cuda.zero_faulty(gradient.cuda(), *moved).cpu(), ops.zero_faulty(gradient, *given))
        if not (forward and backward):
            sys.exit(f"values of {dtype} with {bits} bits differ between the native library and {device()}: {given}")
    report.line(f"random cases of values and gradients: {count}, all equal to the native library")


def bandwidth(report: Report, elements: int, dtype: torch.dtype, rounds: int) -> None:
    """Injection, its backward pass and fault maps against a copy of the same tensor."""
    x = torch.randint(0, 16, (elements,), device="cuda", dtype=torch.int8).to(dtype) * 0.5
    runs = variants(x)
    report.line(f"{elements} values of {dtype}, 4 bits; bandwidth against a device-to-device copy (median of {rounds})")
    copy, *rest = measured(runs, rounds).items()
    moved = 2 * elements * x.element_size()
    report.line(f"    {copy[0]:<44} {moved / copy[1] / 1e6:8.0f} GB/s")
    for name, time in rest:
        target = (
            f"   (to reach: {_TARGET:.0%})" if name in {f"inject, word rate {r:g}" for r in (0, 1e-4, 1e-3)} else ""
        )
        report.line(f"    {name:<44} {moved / time / 1e6:8.0f} GB/s {copy[1] / time:8.1%} of the copy{target}")


def variants(x: Tensor) -> dict[str, Callable[[], object]]:
    from hwfault.profiles.models import BitFlips, WordFaults
    from hwfault.stream import cuda
    from hwfault.stream.tables import ALWAYS

    out = torch.empty_like(x)
    runs: dict[str, Callable[[], object]] = {"copy": lambda: out.copy_(x)}
    for rate in (0.0, 1e-4, 1e-3, 1e-2, 1e-1):
        faults = WordFaults(probability=rate, effect="msb")
        runs[f"inject, word rate {rate:g}"] = injector(x, faults)
    for rate in (1e-4, 1e-3, 1e-2, 1e-1):
        runs[f"inject, bit error rate {rate:g}"] = injector(x, BitFlips(probability=rate))
    program, numbers, grid = arguments(BitFlips(probability=1e-3))
    runs["gradient, bit error rate 0.001"] = lambda: cuda.zero_faulty(x, None, *numbers, program, *grid, 4, False)
    rows = cells(x.numel(), 1e-3)
    runs["permanent map, 0.001 of the words"] = lambda: cuda.fault_map(
        x, *numbers, *rows, *grid, 4, False, 0, ALWAYS, 1
    )
    runs["intermittent map, 0.001 of the words, p = 0.5"] = lambda: cuda.fault_map(
        x, *numbers, *rows, *grid, 4, False, 0, ALWAYS // 2, 1
    )
    runs["a uniform number for each bit, rate 0.001"] = lambda: naive(x, out, 1e-3)
    return runs


def arguments(faults: object) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A site's program, sample number and seed, scale and zero point, on the device."""
    from hwfault.plan import Site, resolve

    site = Site(name="x", kind="activation", bit_width=4, signed=False)
    program = torch.tensor(resolve([site], [faults]).program("x"), dtype=torch.int64, device="cuda")
    numbers = torch.tensor([0], device="cuda"), torch.tensor(0, device="cuda")
    return program, numbers, (torch.tensor(0.5, device="cuda"), torch.tensor(0.0, device="cuda"))


def injector(x: Tensor, faults: object) -> Callable[[], object]:
    from hwfault.stream import cuda

    program, numbers, grid = arguments(faults)
    return lambda: cuda.inject(x, *numbers, program, *grid, 4, False)


def cells(words: int, share: float) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(1)
    word = np.unique(rng.integers(0, words, int(share * words)))
    bit = np.uint32(1) << rng.integers(0, 4, len(word)).astype(np.uint32)
    masks = np.stack([~bit, np.zeros_like(bit)]).view(np.int32)
    return torch.from_numpy(word).cuda(), torch.from_numpy(masks).cuda()


def naive(x: Tensor, out: Tensor, rate: float) -> None:
    """Bit flips as they are written first: a tensor of uniform numbers for each bit (part by part, for memory)."""
    for part, into in zip(x.split(1 << 26), out.split(1 << 26), strict=True):
        code = (part / 0.5).round().to(torch.int32)
        for bit in range(4):
            code ^= (torch.rand(part.shape, device=part.device) < rate).to(torch.int32) << bit
        into.copy_(code.to(part.dtype) * 0.5)


def measured(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, by the device's clock; in turn, so that a change of clocks meets all."""
    for run in runs.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(all_) for name, all_ in times.items()}


def tune(report: Report, elements: int, rounds: int) -> None:
    """The kernel of transient faults under other settings: hits in lanes, words at a time, registers, warps."""
    from hwfault.profiles.models import BitFlips
    from hwfault.stream.cuda import launch

    x = torch.randint(0, 16, (elements,), device="cuda", dtype=torch.int8).float() * 0.5
    out, usual = torch.empty_like(x), dict(launch.STRIKE)
    copy = measured({"copy": lambda: out.copy_(x)}, rounds)["copy"]
    runs = {f"{rate:g}": injector(x, BitFlips(probability=rate)) for rate in (0.0, 1e-4, 1e-3, 1e-2, 1e-1)}
    report.line(f"settings, bandwidth of the copy's at bit error rates {', '.join(runs)}")
    for lanes, wide, registers, warps in SETTINGS:
        launch.STRIKE.update(LANES=lanes, WIDE=wide, maxnreg=registers, num_warps=warps)
        shares = " ".join(f"{copy / time:7.1%}" for time in measured(runs, rounds).values())
        report.line(f"    lanes {lanes:>3} wide {wide:>4} registers {registers:>3} warps {warps}   {shares}")
    launch.STRIKE.update(usual)


SETTINGS = (
    (32, 256, 128, 1),
    (32, 256, 96, 1),
    (32, 256, 80, 1),
    (32, 256, 168, 1),
    (32, 256, 255, 1),
    (32, 128, 128, 1),
    (32, 128, 96, 1),
    (32, 512, 255, 1),
    (64, 256, 128, 1),
    (64, 256, 255, 1),
    (64, 512, 128, 2),
    (32, 512, 128, 2),
    (32, 1024, 128, 4),
    (64, 1024, 128, 4),
)


if __name__ == "__main__":
    main()
