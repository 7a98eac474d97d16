"""The rule of faults of single samples in plain Python integers, its known answers, and every engine that follows it.

A cell (sample, word, bit, kind) strikes the sample of that number (mod 2^32) alone: kind 0 flips the bit, 1 makes it 0,
2 makes it 1. Engines take a row for each (sample, word): 2^31 sample + word and both masks, with 2^33 in the place of
an activity's threshold. `python -m tests.helpers.stream.sampled` writes sampled.json.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch

from hwfault.codes import Codes
from hwfault.graph.run.strike import strike_codes
from hwfault.program.processes import MapStep, SampledProcess
from hwfault.stream.sampled_map import SampledMap
from tests.helpers.stream.capi import call
from tests.helpers.stream.intermittent import MapArguments, feeds, node, plain_grid, run_in_qonnx, run_node
from tests.helpers.torch_ops.operators import fault_map

FILE = Path(__file__).parents[2] / "stream" / "sampled.json"
SAMPLED = 2**33
EXTREME = (0, 1, 2**31 - 1, 2**31, 2**32 - 1)
"""Numbers of samples at which a shift or a sign goes wrong."""


def struck(codes: Sequence[Sequence[int]], cells: Sequence[Sequence[int]], numbers: Sequence[int]) -> list[list[int]]:
    """The codes of samples with these numbers after the cells' faults."""
    after = [list(row) for row in codes]
    for row, number in zip(after, numbers, strict=True):
        for sample, word, bit, kind in cells:
            if sample == number % 2**32:
                row[word] = (row[word] ^ 1 << bit, row[word] & ~(1 << bit), row[word] | 1 << bit)[kind]
    return after


class Rows(NamedTuple):
    """The columns that engines take."""

    word: np.ndarray
    and_mask: np.ndarray
    xor_mask: np.ndarray

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True)
class Case:
    """Samples one behind the other, the first with the number `period`; no seed has a say."""

    cells: tuple[tuple[int, int, int, int], ...]
    words: int
    bit_width: int
    period: int
    seed: int = 2**63 + 5
    site: int = 0xC0FFEE
    threshold: int = SAMPLED

    @property
    def rows(self) -> Rows:
        masks: dict[int, list[int]] = {}
        for sample, word, bit, kind in self.cells:
            kept, flipped = masks.setdefault(2**31 * sample + word, [2**32 - 1, 0])
            kept, flipped = (kept, kept & ~(1 << bit))[kind > 0], (flipped | 1 << bit, flipped)[kind == 1]
            masks[2**31 * sample + word] = [kept, flipped]
        keys = sorted(masks)
        columns = np.array([masks[key] for key in keys], np.uint32).reshape(-1, 2)
        return Rows(np.array(keys, np.int64), columns[:, 0].copy(), columns[:, 1].copy())

    def codes(self, samples: int, seed: int = 0) -> Codes:
        numbers = np.random.default_rng(seed).integers(0, 2**self.bit_width, (samples, self.words), dtype=np.uint64)
        return numbers.astype(np.uint32)

    def after(self, codes: Codes) -> list[list[int]]:
        return struck(codes.tolist(), self.cells, [self.period + i for i in range(len(codes))])

    def process(self) -> SampledProcess:
        sample, word, bit, kind = np.array(self.cells, np.int64).reshape(-1, 4).T
        rows = SampledMap.from_cells(self.words, self.bit_width, sample, word, bit, kind)
        return SampledProcess(fault=0, site_number=self.site, map=rows)


Engine = Callable[[Codes, Case], Codes]


def by_numpy(codes: Codes, case: Case) -> Codes:
    return strike_codes(MapStep(case.process()), codes, case.seed, case.period + np.arange(len(codes)), True)


def by_c(codes: Codes, case: Case) -> Codes:
    out = np.empty(codes.shape)
    given = MapArguments(case, [case.period + i for i in range(len(codes))], plain_grid(case.bit_width))
    call("apply_map", 1, codes.astype(np.float64), out, given.map, given.format, 1)
    return out.astype(np.uint32)


def arguments(codes: Codes, case: Case) -> tuple:
    """Values, and what the operators and kernels of maps take for them."""
    rows, one = case.rows, torch.ones((), dtype=torch.float64)
    masks = torch.from_numpy(np.stack([rows.and_mask, rows.xor_mask]).view(np.int32))
    when = torch.arange(len(codes)) + case.period, torch.tensor(5), torch.from_numpy(rows.word), masks
    numbers = (case.bit_width, False, 0, case.threshold, case.site)
    return torch.from_numpy(codes.astype(np.float64)), *when, one, 0 * one, *numbers


def by_torch(codes: Codes, case: Case) -> Codes:
    return fault_map(*arguments(codes, case), False, True).numpy().astype(np.uint32)


def by_onnxruntime(codes: Codes, case: Case) -> Codes:
    return run_node(node(case), feeds(case, codes.astype(np.float64))).astype(np.uint32)


def by_qonnx(codes: Codes, case: Case) -> Codes:
    return run_in_qonnx(node(case), feeds(case, codes.astype(np.float64))).astype(np.uint32)


ENGINES: dict[str, Engine] = {
    "NumPy": by_numpy,
    "C": by_c,
    "torch": by_torch,
    "onnxruntime": by_onnxruntime,
    "qonnx": by_qonnx,
}


@cache
def known() -> list[dict]:
    return json.loads(FILE.read_text(encoding="utf-8"))["cases"]


def case_of(vector: Mapping) -> Case:
    """A case of sampled.json."""
    return Case(tuple(map(tuple, vector["cells"])), vector["words"], vector["bit_width"], vector["first_sample"])


def random_case(rng: Random, bits: int, samples: int, most: int = 30) -> Case:
    words = rng.choice((1, 5, 1000, 1024, 1025, 3000))
    first = rng.choice((*(min(number, 2**32 - samples) for number in EXTREME), rng.randrange(10_000)))
    # most of them in the samples that are there, some before and behind, some at the ends of the range
    near = range(max(first - 2, 0), min(first + samples + 2, 2**32))
    places = {
        (rng.choice(near) if rng.random() < 0.9 else rng.choice(EXTREME), rng.randrange(words), rng.randrange(bits))
        for _ in range(rng.randrange(most + 1))
    }
    return Case(tuple((*place, rng.randrange(3)) for place in sorted(places)), words, bits, first)


def write() -> None:
    rng, samples = Random(1), 4
    vectors = []
    for i in range(40):
        case = random_case(rng, 1 + i % 32, samples)
        codes = case.codes(samples, i)
        after = np.array(case.after(codes), np.uint32).reshape(codes.shape)
        changed = np.argwhere(codes != after).tolist()
        own = {"first_sample": case.period, "bit_width": case.bit_width, "words": case.words, "cells": case.cells}
        vectors.append(own | {"changed": [[n, w, int(codes[n, w]), int(after[n, w])] for n, w in changed]})
    about = (
        "Known answers of faults of single samples, written by tests/helpers/stream/sampled.py from the rule's text. "
        "cells: "
        "[sample, word, bit, kind], kind 0 flip, 1 stuck at 0, 2 stuck at 1. changed: [element of the batch, word, "
        "code before, code after] of the words that change in a batch of 4 samples, the first of which has the number "
        "first_sample; the codes are those of numpy.random.default_rng(number of the case)."
    )
    rows = ",\n".join(map(json.dumps, vectors))
    FILE.write_text(f'{{"about": {json.dumps(about)},\n"cases": [\n{rows}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    write()
