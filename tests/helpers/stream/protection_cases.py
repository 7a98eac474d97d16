"""Cases of protected memories and the engines that answer them, all behind one signature."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from hwfault.codes import Codes
from hwfault.stream import native
from hwfault.stream.check import signed64
from hwfault.stream.protection import KINDS, NO_MAP, Layout, MapRows, Memory, protect_codes
from hwfault.stream.tables import ACCEPT_ALL, ALWAYS, accepts
from tests.helpers.stream import protection_oracle as oracle
from tests.helpers.stream.cases import SEEDS, Draw
from tests.helpers.stream.engines import session
from tests.helpers.stream.programs import Bit, Process, program

VECTORS = json.loads((Path(__file__).parents[2] / "stream" / "protection.json").read_text(encoding="utf-8"))
Counts = list[int]


@dataclass(frozen=True)
class Case:
    """The codes of one sample, the memory they lie in, and what strikes it."""

    codes: Codes
    bits: int
    memory: Memory
    processes: tuple[Process, ...] = ()
    seed: int = 0
    sample: int = 0
    rows: MapRows = NO_MAP
    period: int = 0
    layout: Layout | None = None

    @property
    def program(self) -> tuple[int, ...]:
        return program(self.processes)


def by_oracle(c: Case) -> tuple[Codes, Counts]:
    m, r = c.memory, c.rows
    table = () if c.layout is None else zip(c.layout.number.tolist(), map(tuple, c.layout.cells.tolist()), strict=True)
    memory = oracle.Memory(m.kind, m.data_bits, m.slot, m.due, tuple(table))
    rows = tuple(zip(r.word.tolist(), r.and_mask.tolist(), r.xor_mask.tolist(), strict=True))
    faults = oracle.Map(rows, r.threshold, r.site, c.period)
    after, counts = oracle.protect(c.codes.tolist(), memory, c.bits, c.processes, c.seed, c.sample, faults)
    return np.array(after, np.uint32), counts


def by_reference(c: Case) -> tuple[Codes, Counts]:
    after, counts = protect_codes(
        c.codes,
        c.memory,
        bit_width=c.bits,
        program=c.program,
        seed=c.seed,
        sample=c.sample,
        rows=c.rows,
        period=c.period,
        layout=c.layout,
    )
    return after, counts.tolist()


def by_native(c: Case) -> tuple[Codes, Counts]:
    after, counts = native.protect_codes(
        c.codes[None],
        c.memory,
        bit_width=c.bits,
        program=c.program,
        seed=c.seed,
        samples=[c.sample],
        rows=c.rows,
        periods=[c.period],
        layout=c.layout,
    )
    return after[0], counts.tolist()


NUMBERS = ("word", "and_mask", "xor_mask", "seed", "first_sample", "number", "cells")


def node(c: Case, refresh: str = "held", **other: Any) -> NodeProto:
    """A ProtectedFaults node; the period is that of `refresh`, so 0 if it is held. An attribute None is left out."""
    attributes = {
        "bit_width": c.bits,
        "signed": 0,
        "batched": 1,
        "protection": c.memory.kind,
        "data_bits": c.memory.data_bits,
        "slot": c.memory.slot,
        "on_detected": "due" if c.memory.due else "zero",
        "threshold": c.rows.threshold,
        "site": c.rows.site,
        "refresh": refresh,
        **other,
    }
    made = helper.make_node("ProtectedFaults", ["x", "scale", "zeropt", *NUMBERS], ["y"], name="it", domain="hwfault")
    made.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items() if v is not None)
    made.attribute.append(helper.make_attribute("program", c.program, attr_type=7))
    return made


def feeds(c: Case) -> dict[str, NDArray]:
    """The int64 inputs of a node."""
    layout = Layout(np.empty(0), np.empty((0, c.memory.data_bits))) if c.layout is None else c.layout
    numbers = (*(a.astype(np.int64) for a in (c.rows.word, c.rows.and_mask, c.rows.xor_mask)),)
    sample = np.array(c.sample % 2**32)  # an op takes no others
    return dict(zip(NUMBERS, (*numbers, np.array(signed64(c.seed)), sample, layout.number, layout.cells), strict=True))


def node_session(made: NodeProto, dtype: int = TensorProto.DOUBLE, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session of a node whose inputs, apart from scale (1) and zero point (0), are the graph's."""
    names: Mapping[str, int] = {"x": dtype, **dict.fromkeys(NUMBERS, TensorProto.INT64)}
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in names.items()]
    return session([made], inputs, dtype, {"scale": np.array(1.0), "zeropt": np.array(0.0)}, threads)


def by_onnxruntime(c: Case) -> tuple[Codes, None]:
    """A node on float64; it has no counts, and its period is the sample's number or 0."""
    assert c.period in (0, c.sample)
    made = node(c, "inference" if c.period == c.sample else "held")
    (after,) = node_session(made).run(None, {"x": c.codes[None].astype(np.float64), **feeds(c)})
    return after[0].astype(np.uint32), None


Engine = Callable[[Case], tuple[Codes, Counts | None]]
ENGINES: dict[str, Engine] = {
    "oracle": by_oracle,
    "reference": by_reference,
    "native": by_native,
    "onnxruntime": by_onnxruntime,
}


def vector_case(index: int) -> Case:
    """Case `index` of protection.json."""
    v = VECTORS["cases"][index]
    memory = Memory(v["protection"], v["data_bits"], v["slot"], v["on_detected"] == "due")
    planes = [(accepts(p["p01"], p["p10"]), p["site_number"]) for p in v["processes"]]
    processes = tuple(Bit(site, (plane,) * memory.sub_word_bits) for plane, site in planes)
    rows = MapRows(*(np.array(column) for column in (v["word"], v["and_mask"], v["xor_mask"])), *v["activity"])
    layout = Layout(np.array(v["number"]), np.array(v["cells"])) if v["number"] else None
    rest = (processes, int(v["seed"]), v["sample"], rows, v["period"], layout)
    return Case(np.array(v["codes"], np.uint32), v["bit_width"], memory, *rest)


@st.composite
def memories(draw: st.DrawFn) -> tuple[Memory, int]:
    """A memory, and the width of the code words in it: packed, padded to a power of two, or in odd slots."""
    bits = draw(st.integers(1, 32))
    slot = draw(st.sampled_from([bits, 1 << (bits - 1).bit_length()]) | st.integers(bits, 64))
    return Memory(draw(st.sampled_from(KINDS)), draw(st.integers(1, 64)), slot, draw(st.booleans())), bits


@st.composite
def cases(draw: st.DrawFn, most_words: int = 120, of_one_batch: bool = False) -> Case:
    """Any memory under transient faults, a map, both, neither, or a map under a table."""
    memory, bits = draw(memories())
    rng = Draw(draw(st.integers(0, 2**32 - 1)))
    codes = rng.codes(bits, draw(st.integers(0, most_words)))
    seed, sample = draw(st.sampled_from(SEEDS)), rng.sample()
    period = draw(st.sampled_from([0, sample]))
    if draw(st.booleans()) and codes.size and not of_one_batch:
        layout = _layout(rng, memory, codes.size, bits)
        sub_words = (int(layout.number.max()) + 1) * memory.sub_words
        return Case(codes, bits, memory, (), seed, sample, _rows(rng, memory, sub_words), period, layout)
    sub_words = memory.words(codes.size) * memory.sub_words
    count = draw(st.integers(0, 2))
    processes = tuple(rng.process(memory.sub_word_bits, max(sub_words, 1)) for _ in range(count))
    return Case(codes, bits, memory, processes, seed, sample, _rows(rng, memory, sub_words), period)


def _rows(rng: Draw, memory: Memory, sub_words: int) -> MapRows:
    """Up to 20 rows of any masks, permanent or not."""
    n = rng.integer(0, min(sub_words, 20))
    word = np.sort(rng.rng.choice(sub_words, n, replace=False)) if n else np.empty(0, np.int64)
    and_mask, xor_mask, some = (rng.codes(memory.sub_word_bits, n) for _ in range(3))
    if rng.integer(0, 1):  # few faults, so that something is corrected
        and_mask, xor_mask = and_mask | ~(np.uint32(1) << (some % memory.sub_word_bits)), xor_mask & some & ~and_mask
    return MapRows(word, and_mask, xor_mask, rng.one_of((ALWAYS, ALWAYS, 2**31, 10**9, 0)), rng.site())


def _layout(rng: Draw, memory: Memory, words: int, bits: int) -> Layout:
    """A table of up to 8 memory words, some of them twice, with cells of the tensor in any order and some left out."""
    rows = rng.integer(1, 8)
    number = np.sort(rng.rng.integers(0, 6, rows))
    cells = np.full(rows * memory.data_bits, -1)
    held = (np.arange(words)[:, None] * 32 + np.arange(bits)).ravel()
    n = rng.integer(0, min(held.size, cells.size))
    cells[rng.rng.choice(cells.size, n, replace=False)] = rng.rng.choice(held, n, replace=False)
    return Layout(number, cells.reshape(rows, memory.data_bits))


def flips(site: int, memory: Memory, p: float) -> Bit:
    """Symmetric flips of every cell of a memory."""
    return Bit(site, ((p, ACCEPT_ALL, ACCEPT_ALL),) * memory.sub_word_bits)


def patterns_case(memory: Memory, patterns: Sequence[int], data: Codes) -> Case:
    """A memory of one word for each pattern of wrong cells (bit c is cell c), with 1 bit code words as its data."""
    width = memory.sub_word_bits
    split = [p >> (width * j) & (1 << width) - 1 for p in patterns for j in range(memory.sub_words)]
    rows = MapRows(np.arange(len(split)), np.full(len(split), 2**32 - 1), np.array(split, dtype=np.uint32))
    return Case(data, 1, memory, rows=rows)
