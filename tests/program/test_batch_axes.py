"""Where the samples of a batch lie: known answers, and a loop over rows, for NumPy and torch alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwfault.codes import CodeFormat
from hwfault.errors import ModelError, PlanError
from hwfault.graph.run.strike import strike_values
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.batch_axes import BatchAxis, arrange, grid_shape, restore
from hwfault.program.processes import Site
from hwfault.stream.reference import inject_codes
from hwfault.torch_ops import arranged

CASES = json.loads((Path(__file__).parents[1] / "stream" / "batch_axes.json").read_text())["cases"]


def in_numpy(values, batch):
    return arrange(values, batch)


def in_torch(values, batch):
    return arranged.arrange(torch.from_numpy(values), batch).numpy()


@pytest.mark.parametrize("engine", [in_numpy, in_torch])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['shape']}-{c['axis']}-{c['inner']}-{c['rows']}")
def test_known_answers(engine, case):
    batch = BatchAxis(axis=case["axis"], inner=case["inner"], rows=case["rows"])
    values = np.arange(np.prod(case["shape"])).reshape(case["shape"])
    out = engine(values, batch)
    assert out.shape == (case["shape"][case["axis"]] // case["rows"], *batch.sample_shape(case["shape"]))
    flat = out.reshape(len(out), -1)
    for element, (sample, word) in enumerate(case["words"]):
        assert flat[sample, word] == element
    assert np.array_equal(restore(out, case["shape"], batch), values)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = draw(st.integers(0, len(shape) - 1))
    groups, samples, inner = (draw(st.integers(1, 4)) for _ in range(3))
    shape[axis] = groups * samples * inner
    return tuple(shape), BatchAxis(axis=axis, inner=inner, rows=groups * inner), samples


@given(tensors())
@settings(max_examples=80, deadline=None)
def test_the_rule_row_by_row(case):
    shape, batch, samples = case
    values = np.arange(int(np.prod(shape))).reshape(shape)
    own = [[] for _ in range(samples)]
    for row in range(shape[batch.axis]):
        own[row // batch.inner % samples].append(values.take([row], batch.axis))
    expected = np.stack([np.concatenate(rows, batch.axis).reshape(-1) for rows in own])
    for engine in (in_numpy, in_torch):
        out = engine(values, batch)
        assert np.array_equal(out.reshape(samples, -1), expected)
    again = arranged.restore(torch.from_numpy(out), torch.from_numpy(values), batch)
    assert np.array_equal(again.numpy(), values)


@pytest.mark.parametrize("channel", [None, 0, 2])
def test_the_reference_strikes_each_sample_with_its_own_numbers(channel):
    batch, fmt = BatchAxis(axis=1, inner=2, rows=4), CodeFormat(4, True)
    q = np.random.default_rng(0).integers(-8, 8, (3, 20, 5))
    shape = [1, 1, 1]
    if channel is not None:
        shape[channel] = q.shape[channel]
    scale = 2.0 ** np.arange(np.prod(shape)).reshape(shape).astype(np.float32)
    site = Site(name="s", kind="activation", bit_width=4, signed=True, shape=(3, 4, 5), batch=batch)
    plan = resolve([site], [BitFlips(probability=0.2)])
    samples, (step,) = np.array([7, 3, 4, 9, 1]), plan.steps("s")
    values = (q * scale).astype(np.float32)
    rest = {"seed": 5, "samples": samples, "batched": True, "batch": batch}
    out = strike_values(step, values, scale, 0.0, fmt, **rest)
    for i, number in enumerate(samples):
        rows = [row for row in range(20) if row // 2 % 5 == i]
        codes = (q[:, rows] & 15).astype(np.uint32)
        struck = inject_codes(codes.reshape(-1), program=plan.program("s"), seed=5, sample=int(number), bit_width=4)
        expected = ((struck.reshape(codes.shape).astype(int) ^ 8) - 8) * scale
        assert np.array_equal(out[:, rows], expected)
    assert (out != values).any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="5 rows for each sample, 2 of them together"):
        BatchAxis(axis=0, inner=2, rows=5)
    with pytest.raises(PlanError, match=r"'q' have the shape \(7, 2\), which does not hold 2 rows"):
        BatchAxis(rows=2).samples_in((7, 2), "q")
    with pytest.raises(PlanError, match=r"scale of 'q' has the shape \(4, 1\).*no samples"):
        grid_shape((4, 1), (3, 4, 5), BatchAxis(axis=1), "scale", "q")
    site = {"name": "q", "bit_width": 4, "signed": True}
    with pytest.raises(ModelError, match="a weight has no batch axis"):
        Site(**site, kind="weight", batch=BatchAxis(axis=1))
    with pytest.raises(ModelError, match=r"shape \[3, 5\] has not 4 rows"):
        Site(**site, kind="activation", shape=(3, 5), batch=BatchAxis(rows=4))


def test_axis_0_is_left_unsaid_and_plans_say_which_version_they_need():
    site = Site(name="q", kind="activation", bit_width=4, signed=True, shape=(3,), batch=BatchAxis())
    assert site.batch is None
    assert "batch" not in site.model_dump(exclude_none=True)
    plain = resolve([site], [BitFlips(probability=0.1)])
    assert "stream" not in json.loads(plain.to_json())
    moved = resolve([site.model_copy(update={"batch": BatchAxis(axis=1)})], [BitFlips(probability=0.1)])
    assert json.loads(moved.to_json())["stream"] == "1.1"
    assert FaultPlan.from_json(moved.to_json()) == moved
    unsaid = moved.to_json().replace('"stream": "1.1",\n', "")
    with pytest.raises(PlanError, match=r"need version 1\.1"):
        FaultPlan.from_json(unsaid)
    with pytest.raises(PlanError, match=r"'q' to lie otherwise \(samples along axis 0\).*resolve the faults again"):
        plain.check_batch_axes([moved.at("q").site], "the network")
