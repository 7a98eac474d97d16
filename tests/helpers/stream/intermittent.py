"""The rule of intermittent faults in plain Python integers, its known answers, and every engine that follows it.

A faulty cell (word, bit) of a site shows its fault in period t where A < T: T = floor(2^32 p_active), always where
p_active is 1, and A is output (word mod 4) of the generator under the key seed with the counter
(256 bit + ((word mod 1024) >> 2), ((word >> 10) << 6) | 62, t mod 2^32, site). Nothing of hwfault is used for that;
`python -m tests.helpers.stream.intermittent` writes intermittent.json.
"""

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from hashlib import blake2b
from pathlib import Path
from random import Random

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper
from qonnx.custom_op.registry import getCustomOp

from hwfault.codes import CodeFormat, Codes
from hwfault.graph.run.strike import strike_codes
from hwfault.program.processes import MapProcess, MapStep
from hwfault.stream.check import signed64
from hwfault.stream.fault_map import FaultMap
from tests.helpers.stream import engines
from tests.helpers.stream.capi import Format, Map, call, pointer
from tests.helpers.stream.oracle import philox
from tests.helpers.stream.values import Grid
from tests.helpers.torch_ops.operators import fault_map

FILE = Path(__file__).parents[2] / "stream" / "intermittent.json"
ALWAYS = 2**32
Cells = Sequence[tuple[int, int, int]]


def activity(seed: int, site: int, period: int, word: int, bit: int) -> int:
    """A."""
    counter = (256 * bit + word % 1024 // 4, word // 1024 * 64 + 62, period % 2**32, site)
    return philox(counter, seed)[word % 4]


def threshold(p: float) -> int:
    """T."""
    return int(Fraction(p) * 2**32)


def struck(codes: Sequence[int], cells: Cells) -> list[int]:
    """Codes with every cell's fault: 0 flip, 1 stuck at 0, 2 stuck at 1."""
    after = list(codes)
    for word, bit, kind in cells:
        stored = codes[word] >> bit & 1
        after[word] += ((1 - stored, 0, 1)[kind] - stored) << bit
    return after


@dataclass(frozen=True)
class Case:
    """One sample in one period."""

    cells: tuple[tuple[int, int, int], ...]
    words: int
    bit_width: int
    site: int
    seed: int
    period: int
    threshold: int

    @property
    def rows(self) -> FaultMap:
        word, bit, kind = zip(*self.cells, strict=True) if self.cells else ((), (), ())
        return FaultMap.from_cells(self.words, self.bit_width, word, bit, kind)

    @property
    def active(self) -> list[tuple[int, int, int]]:
        """The cells that show their fault, by the rule above."""
        where = (self.seed, self.site, self.period)
        return [(w, b, k) for w, b, k in self.cells if activity(*where, w, b) < self.threshold]

    def codes(self, seed: int = 0) -> Codes:
        rng = np.random.default_rng(seed)
        return rng.integers(0, 2**self.bit_width, self.words, dtype=np.uint64).astype(np.uint32)

    def after(self, codes: Codes) -> list[int]:
        return struck(codes.tolist(), self.active)

    def process(self, refresh: str = "inference") -> MapProcess:
        numbers = {"threshold": self.threshold, "site_number": self.site}
        return MapProcess(fault=0, map=self.rows, refresh=refresh, **numbers)


Engine = Callable[[Codes, Case], Codes]


def by_reference(codes: Codes, case: Case) -> Codes:
    step = MapStep(case.process())
    return strike_codes(step, codes[None], case.seed, np.array([case.period]), True)[0]


def by_c(codes: Codes, case: Case) -> Codes:
    values = codes[None].astype(np.float64)
    out = np.empty_like(values)
    given = MapArguments(case, [case.period], plain_grid(case.bit_width))
    call("apply_map", 1, values, out, given.map, given.format, 1)
    return out[0].astype(np.uint32)


def by_torch(codes: Codes, case: Case) -> Codes:
    values, one = torch.from_numpy(codes[None].astype(np.float64)), torch.ones((), dtype=torch.float64)
    masks = torch.from_numpy(np.stack([case.rows.and_mask, case.rows.xor_mask]).view(np.int32))
    numbers = (case.bit_width, False, 0, case.threshold, case.site, False, True)
    draw = (torch.tensor([case.period]), torch.tensor(signed64(case.seed)), torch.from_numpy(case.rows.word), masks)
    return fault_map(values, *draw, one, 0 * one, *numbers)[0].numpy().astype(np.uint32)


def by_onnxruntime(codes: Codes, case: Case) -> Codes:
    return run_node(node(case), feeds(case, codes[None].astype(np.float64)))[0].astype(np.uint32)


def by_qonnx(codes: Codes, case: Case) -> Codes:
    return run_in_qonnx(node(case), feeds(case, codes[None].astype(np.float64)))[0].astype(np.uint32)


ENGINES: dict[str, Engine] = {
    "reference": by_reference,
    "C": by_c,
    "torch": by_torch,
    "onnxruntime": by_onnxruntime,
    "qonnx": by_qonnx,
}


def plain_grid(bits: int) -> Grid:
    """Codes as they are."""
    return Grid(CodeFormat(bits, False), np.ones(1), 1, np.zeros(1), 1)


class MapArguments:
    """The C structs of a call, and the arrays that they point into."""

    def __init__(self, case: Case, periods: Sequence[int] | None, on: Grid, representation: int = 0) -> None:
        rows = self.rows = case.rows
        self.periods = None if periods is None else np.array(periods, np.int64)
        batch = 1 if periods is None else len(periods)
        pointers = (pointer(rows.word), pointer(rows.and_mask), pointer(rows.xor_mask), len(rows))
        where = None if self.periods is None else pointer(self.periods)
        self.struct = Map(batch, case.words, *pointers, case.threshold, case.seed, case.site, where)
        self.on = on
        scale = pointer(on.scale), on.scale.size, on.scale_inner
        zero_point = pointer(on.zero_point), on.zero_point.size, on.zero_point_inner
        self._format = Format(*scale, *zero_point, on.fmt.bit_width, on.fmt.signed, representation)
        self.map, self.format = ctypes.addressof(self.struct), ctypes.addressof(self._format)


INPUTS = ("x", "scale", "zeropt", "word", "and_mask", "xor_mask", "seed", "first_sample")


def node(case: Case, *, signed: int = 0, batched: int = 1, **attributes: object) -> NodeProto:
    numbers = {"bit_width": case.bit_width, "signed": signed, "batched": batched}
    numbers |= {"threshold": case.threshold, "site": case.site, **attributes}
    return helper.make_node("IntermittentFaults", INPUTS, ["y"], name="the node", domain="hwfault", **numbers)


def feeds(case: Case, x: np.ndarray, scale: object = 1, zero_point: object = 0) -> dict[str, np.ndarray]:
    """The inputs of a node, `period` being the first sample's number."""
    rows, numbers = case.rows, (case.seed, case.period % 2**32)  # an op takes no other periods
    columns = (rows.word, rows.and_mask.astype(np.int64), rows.xor_mask.astype(np.int64))
    return dict(
        zip(INPUTS, (x, np.asarray(scale, x.dtype), np.asarray(zero_point, x.dtype), *columns), strict=False)
    ) | dict(zip(INPUTS[6:], (np.array(signed64(n % 2**64)) for n in numbers), strict=True))


def run_node(one: NodeProto, given: Mapping[str, np.ndarray], threads: int = 1) -> np.ndarray:
    """What onnxruntime makes of a node."""
    kind = helper.np_dtype_to_tensor_dtype(given["x"].dtype)
    infos = [
        helper.make_tensor_value_info(name, kind if i < 3 else TensorProto.INT64, None) for i, name in enumerate(INPUTS)
    ]
    return engines.session([one], infos, kind, {}, threads).run(None, dict(given))[0]


def run_in_qonnx(one: NodeProto, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """What qonnx's executor makes of a node."""
    context = dict(given)
    getCustomOp(one).execute_node(context, None)
    return context["y"]


def site_number(name: str, process: int) -> int:
    return int.from_bytes(blake2b(f"{name}#{process}".encode(), digest_size=4).digest(), "little")


@cache
def known() -> dict[str, list[dict]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def case_of(vector: Mapping) -> Case:
    """A case of intermittent.json."""
    cells = tuple(map(tuple, vector["cells"]))
    numbers = {key: int(vector[key]) for key in ("seed", "period", "threshold")}
    return Case(cells, vector["words"], vector["bit_width"], vector["site_number"], **numbers)


EXTREME_SEEDS, EXTREME_PERIODS = (0, 1, 2**32, 2**63, 2**64 - 1), (0, 1, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**63 - 1)


def _case(rng: Random, i: int) -> dict:
    bits, words = 1 + i if i < 32 else rng.randint(1, 32), rng.choice((1, 5, 1000, 1024, 1025, 3000))
    places = sorted({(rng.randrange(words), rng.randrange(bits)) for _ in range(rng.randint(0, 20))})
    cells = [[w, b, rng.randrange(3)] for w, b in places]
    name, k = rng.choice(("features.0.weight_quant", "input.act_quant", "é")), rng.randrange(4)
    p = rng.choice((0.0, 2.0**-32, 0.1, 1 / 3, 0.5, 0.75, 1 - 2.0**-33, 1.0))
    seed = rng.choice((*EXTREME_SEEDS, rng.getrandbits(64)))
    period = rng.choice((*EXTREME_PERIODS, rng.randrange(10_000)))
    vector = {"site": name, "process": k, "site_number": site_number(name, k), "seed": str(seed), "period": str(period)}
    vector |= {"p_active": p, "threshold": threshold(p), "bit_width": bits, "words": words, "cells": cells}
    return vector | {"active": [[w, b] for w, b, _ in case_of(vector).active]}


def write() -> None:
    rng = Random(1)
    words = [0, 1, 2, 3, 4, 1023, 1024, 2**20 + 5, 2**36 - 1]
    words += [rng.randrange(5000) for _ in range(7)]
    draws = [
        {"seed": rng.choice((*EXTREME_SEEDS, rng.getrandbits(64))), "site": rng.getrandbits(32), "word": word}
        | {"period": rng.choice(EXTREME_PERIODS), "bit": rng.randrange(32)}
        for word in words
    ]
    activities = [
        draw | {"activity": activity(**draw)} | {key: str(draw[key]) for key in ("seed", "period")} for draw in draws
    ]
    cases = [_case(rng, i) for i in range(40)]
    about = (
        "Known answers of intermittent faults, written by tests/helpers/stream/intermittent.py from the rule's text. "
        "activity: "
        "the word that is compared with the threshold. cells: [word, bit, kind], kind 0 flip, 1 stuck at 0, 2 stuck at "
        "1; active: [word, bit] of those that show their fault in the period. seed and period are decimal strings."
    )
    parts = [
        f'"{key}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]"
        for key, rows in (("activities", activities), ("cases", cases))
    ]
    FILE.write_text(f'{{"about": {json.dumps(about)},\n{parts[0]},\n{parts[1]}}}\n', encoding="utf-8")


if __name__ == "__main__":
    write()
