"""The recorder: batches one after the other are the same as all samples at once, and the network stays what it is."""

import numpy as np
import pytest
import torch

from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.noted import Noted, join
from hwfault.proof.recorder import Recorder
from tests.helpers.graph.networks import batch, fresh, network, plan
from tests.helpers.injection.snapshot import snapshot

NAME, SAMPLES, SEED = "formats", 7, 2**63 + 1


def noted(sizes, faults=None, first=0):
    """What becomes of the samples from a first one on, in batches of these sizes."""
    x = batch(NAME, SAMPLES, 3)[first : first + sum(sizes)]
    recorder = Recorder(network(NAME), x[:1], "float")
    begins = (np.cumsum([0, *sizes]) + first).tolist()
    with recorder.attached(faults) as recording:
        pairs = zip(x.split(sizes), begins, strict=False)
        return recorder, join([recording.run(part, SEED, begin) for part, begin in pairs])


def batched(recorder):
    return [entry.site.name for entry in recorder.sites if entry.site.batched]


@pytest.mark.parametrize("faulty", [False, True])
@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [6, 1]])
def test_batches_are_the_same_samples(sizes, faulty):
    faults = plan(NAME) if faulty else None
    (recorder, whole), (_, parts) = noted([SAMPLES], faults), noted(sizes, faults)
    assert np.array_equal(whole.output, parts.output)
    for name in batched(recorder):
        for side in ("before", "after"):
            assert np.array_equal(getattr(whole, side)[f"{name}#0"], getattr(parts, side)[f"{name}#0"])
    assert len(parts.before["1.weight_quant#0"]) == len(sizes), "a row a batch"
    assert all(np.array_equal(whole.grids[key], parts.grids[key]) for key in whole.grids)


def test_one_batch_may_begin_at_any_sample():
    (recorder, whole), (_, part) = noted([SAMPLES], plan(NAME)), noted([2], plan(NAME), first=4)
    for name in batched(recorder):
        assert np.array_equal(whole.after[f"{name}#0"][4:6], part.after[f"{name}#0"])
    assert np.array_equal(whole.output[4:6], part.output)


def test_parameters_are_noted_again_where_they_may_differ():
    x = batch(NAME, 2, 3)
    recorder = Recorder(network(NAME), x, "float")
    with recorder.attached(plan(NAME)) as recording:
        first, again = recording.run(x, 1, 0), recording.run(x, 1, 2, again=True)
    assert set(first.before) - set(again.before) == {"1.weight_quant#0", "4.weight_quant#0"}


def test_no_numbers_are_counted_through_all_rows():
    def part(rows, lost):
        codes = np.zeros((rows, 10), np.uint8)
        found = {"q#0": (np.array(lost), np.full(len(lost), np.nan))} if lost else {}
        return Noted(before={"q#0": codes}, after={"q#0": codes}, lost=found, output=np.zeros((rows, 2), np.float32))

    at, values = join([part(2, [3]), part(1, []), part(3, [0, 29])]).lost["q#0"]
    assert at.tolist() == [3, 30, 59]
    assert np.isnan(values).all()
    assert not join([part(2, []), part(1, [])]).lost


def test_a_run_under_faults_says_what_is_not_the_clean_one():
    faults = resolve(sites(network(NAME)), [BitFlips(probability=0.1, sites="2.act_quant")])
    (recorder, clean), (_, faulty) = noted([SAMPLES]), noted([SAMPLES], faults)
    known = clean.clean_tensors(recorder.parameters)
    found = faulty.faulty_tensors(known)
    assert known["1.weight_quant#0.codes"].shape[0] == 1
    assert "2.act_quant#0.before" not in found
    assert "5.act_quant#0.before" in found, "what comes behind the faults"
    assert not [key for key in found if key.endswith((".scale", ".zero_point"))]
    at, after = found["2.act_quant#0.at"], found["2.act_quant#0.after"]
    assert np.array_equal(np.flatnonzero(faulty.after["2.act_quant#0"] != faulty.before["2.act_quant#0"]), at)
    assert np.array_equal(faulty.after["2.act_quant#0"].ravel()[at], after)
    # of no clean run everything is said
    assert {f"{name}#0.before" for name in batched(recorder)} <= set(faulty.faulty_tensors({}))


def test_the_network_is_left_as_it_was():
    model = fresh("biased").train()
    before = snapshot(model)
    recorder = Recorder(model, batch("biased"), "float")

    def fail():
        with recorder.attached(None) as recording:
            recording.run(batch("biased"), 0, 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert snapshot(model) == before
    assert torch.is_grad_enabled()
