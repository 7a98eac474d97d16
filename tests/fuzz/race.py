"""Many sessions and calls at once, under ThreadSanitizer (`make race`): no race, and the results of one thread."""

import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import byref
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.stream import native
from tests.fuzz.cases import plain_session
from tests.fuzz.graphs import BITS, BURSTS, HWFAULT, MIXED, NUMBERS, QUANT, ROWS, STRIKE, Constants, graph, node
from tests.fuzz.worker import use_given_library
from tests.helpers.stream.programs import ALL, Bit, program

SESSIONS, THREADS, RUNS = 8, 4, 2
SHAPE = (2, 64, 64)
BATCH = 32  # so many blocks that the ops share them out to threads


def everything() -> ModelProto:
    """A graph through every fault op, behind the quantizers and MultiThreshold."""
    weights = (np.arange(4 * 2 * 9).reshape(4, 2, 3, 3) % 5 - 2).astype(np.float32)
    own: Constants = QUANT | ROWS | {"w": weights, "steps": np.arange(-8, 7, dtype=np.float32)[None]}
    own |= {"number": np.zeros(0, np.int64), "cells": np.zeros((0, 8), np.int64), "one": np.float32(1)}
    rows, drawn = "word and_mask xor_mask", "seed sample"
    cells = list(program((Bit(5, ((0.01, ALL, ALL),) * 13),)))
    memory: dict[str, Any] = {"protection": "secded", "data_bits": 8, "slot": 4, "on_detected": "zero"}
    array: dict[str, Any] = {"strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1], "order": [], "width": 9}
    array |= {"events": [2, 1, 3, 0, 2, 1, 511, 4], "step": 2, "pass_steps": 4, "overflow": "saturate"}
    nodes = [
        node("Quant", "x scale zero bits", "q", signed=1, narrow=0),
        *(
            node("TransientFaults", f"{x} scale zero {drawn}", y, HWFAULT, program=list(program(processes)), **STRIKE)
            for x, y, processes in (("q", "t0", BITS), ("t0", "t1", MIXED), ("t1", "t2", BURSTS))
        ),
        node("FaultMap", f"t2 scale zero {rows}", "m", HWFAULT, **STRIKE),
        node("IntermittentFaults", f"m scale zero {rows} {drawn}", "i", HWFAULT, threshold=1 << 31, site=7, **STRIKE),
        node(
            "ProtectedFaults",
            f"i scale zero {rows} {drawn} number cells",
            "p",
            HWFAULT,
            program=cells,
            **memory,
            **STRIKE,
        ),
        node("MultiThreshold", "p steps", "h", out_bias=-8.0),
        node("Quant", "w one zero bits", "v", signed=1, narrow=0),  # of constants: kept from the first run on
        node("Conv", "h v", "acc", "", pads=[1, 1, 1, 1]),
        node("ArrayFaults", "acc h v", "a", HWFAULT, **array),
        node("BipolarQuant", "a one", "b"),
        node("Mul", "a b", "y", ""),
    ]
    return graph(nodes, ("N", *SHAPE), own, NUMBERS)


def inputs(which: int) -> dict[str, NDArray[Any]]:
    """The inputs of a session: every one has a seed of its own."""
    x = np.random.default_rng(which).normal(0, 2, (BATCH, *SHAPE)).astype(np.float32)
    return {"x": x, "seed": np.array(which), "sample": np.array(100 * which)}


def called(threads: int) -> NDArray[np.float32]:
    """What hwfault_inject makes of a tensor on its own threads, or those of the host's pool."""
    x = np.random.default_rng(5).normal(0, 2, (4, 1 << 18)).astype(np.float32)
    out, samples, numbers = np.empty_like(x), np.arange(4), np.array(program(BITS))
    one, zero = np.ones(1), np.zeros(1)
    draw = native.draw(9, samples.ctypes.data, *x.shape, numbers.ctypes.data, numbers.size)
    on = native.format(one.ctypes.data, 1, 1, zero.ctypes.data, 1, 1, 4, True)
    native.library().hwfault_inject(0, x.ctypes.data, out.ctypes.data, byref(draw), byref(on), threads, None)
    return out


def main() -> None:
    """Exit code 1 if a result is not, to the bit, that of one thread; ThreadSanitizer has its own for a race."""
    use_given_library()
    content = everything().SerializeToString()
    alone = plain_session(content, 1)
    expected = [alone.run(None, inputs(which))[0] for which in range(SESSIONS)]
    one_thread = called(1)
    sessions = [plain_session(content, THREADS) for _ in range(SESSIONS)]
    begin = Barrier(SESSIONS * THREADS + THREADS)

    def run(which: int, made: onnxruntime.InferenceSession) -> int:
        given = inputs(which)
        begin.wait()
        return sum(made.run(None, given)[0].tobytes() != expected[which].tobytes() for _ in range(RUNS))

    def call() -> int:
        begin.wait()
        return sum(called(THREADS).tobytes() != one_thread.tobytes() for _ in range(RUNS))

    with ThreadPoolExecutor(SESSIONS * THREADS + THREADS) as pool:
        runs = [pool.submit(run, which, made) for which, made in enumerate(sessions) for _ in range(THREADS)]
        runs += [pool.submit(call) for _ in range(THREADS)]
        wrong = sum(future.result() for future in runs)
    print(f"{SESSIONS} sessions, {THREADS} callers each, {THREADS} threads each: {wrong} of {len(runs) * RUNS} differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
