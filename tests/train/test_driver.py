"""Faults that follow their schedules in a plain PyTorch loop: when they strike, how often, and which they are."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from hwfault.codes import CodeFormat, encode
from hwfault.laws.models import MapFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.train.driver import evaluation_seed
from tests.helpers.injection.networks import build
from tests.helpers.injection.oracle import faulty, same_bits
from tests.helpers.stream.oracle import philox
from tests.helpers.train.driven import ACT, ACTS, WEIGHT, WEIGHTS, Loop, at, kinds, masks


def test_each_fault_follows_its_own_schedule():
    """One every second step, the other every second epoch: neither strikes when only the other does."""
    loop = Loop([at(ACTS, every_steps=2), at(WEIGHTS, every_epochs=2)])
    found = {(e, s): kinds(loop.step(e, s)) for e in (1, 2) for s in range(3)}
    both, acts, weights = {"act_quant", "weight_quant"}, {"act_quant"}, {"weight_quant"}
    assert found == {(1, 0): both, (1, 1): weights, (1, 2): both, (2, 0): acts, (2, 1): set(), (2, 2): acts}


@pytest.mark.parametrize("share", [0.25, 0.8])
def test_a_share_of_steps(share):
    fault = at(ACTS, share=share)
    loop = Loop([fault])
    found = [bool(loop.step(e, s)) for e in (1, 2) for s in range(20)]
    assert found == [fault.schedule.factor(e, s, 7, 0) == 1 for e in (1, 2) for s in range(20)]
    assert 0 < sum(found) < 40


def test_phases():
    for during, (train, evaluate) in {"train": (1, 0), "eval": (0, 1), "both": (1, 1)}.items():
        loop = Loop([at(ACTS, during=during)])
        assert (bool(loop.step(1, 0)), bool(loop.evaluate(1))) == (train, evaluate)


@pytest.mark.parametrize("ramp", ["linear", "cosine"])
def test_the_rate_of_each_epoch_of_a_warm_up(ramp):
    fault = at(ACTS, ramp=ramp, ramp_epochs=3)
    loop = Loop([fault])
    found = sites(loop.model)
    for epoch in range(1, 6):
        loop.step(epoch, 0)
        t = min(epoch / 4, 1.0)
        factor = t if ramp == "linear" else (1 - math.cos(math.pi * t)) / 2
        scaled = resolve(found, [ACTS.scaled(factor)])
        (injection,) = loop.driver.injections
        assert (injection.plan.sites, injection.plan.tables) == (scaled.sites, scaled.tables)
        loop.evaluate(epoch)
        assert injection.plan.tables == resolve(found, [ACTS]).tables  # at the full rate


def test_the_words_struck_follow_the_rate():
    """In each epoch as many as its rate says: held to it word by word over all activations."""
    loop = Loop([at(ACTS, ramp="linear", ramp_epochs=1)])
    for epoch, rate in ((1, 0.1), (2, 0.2)):
        struck = [m for s in range(10) for m in masks(loop.step(epoch, s, 16), ACT)]
        hits, words = int(sum(m.sum() for m in struck)), sum(m.numel() for m in struck)
        low, high = binom.ppf([1e-7, 1 - 1e-7], words, rate)
        assert low <= hits <= high


def test_training_is_numbered_by_steps_and_samples_whatever_is_evaluated_between():
    loop, step, sample = Loop([ACTS, WEIGHTS]), 0, 0
    for epoch in (1, 2):
        for i, size in enumerate((4, 6)):
            calls = loop.step(epoch, i, size)
            for name in (ACT, WEIGHT):
                (call,) = calls.of(name)
                numbers = range(sample, sample + size)
                assert same_bits(call.after, faulty(loop.driver.plan, call, 7, numbers, step))
            step, sample = step + 1, sample + size
        loop.evaluate(epoch, (4, 3))


def test_evaluation_has_the_same_faults_each_epoch_and_others_than_training():
    loop, seed = Loop([ACTS, WEIGHTS]), evaluation_seed(7)
    assert seed != 7
    for epoch in (1, 2):
        loop.step(epoch, 0)
        calls = loop.evaluate(epoch, (4, 3))
        for call, numbers in zip(calls.of(ACT), (range(4), range(4, 7)), strict=True):
            assert same_bits(call.after, faulty(loop.driver.plan, call, seed, numbers))
        for call in calls.of(WEIGHT):
            assert same_bits(call.after, faulty(loop.driver.plan, call, seed, (), 0))


def test_two_evaluations_in_a_row_begin_at_sample_0():
    loop, seed = Loop([ACTS]), evaluation_seed(7)
    for _ in range(2):
        (call,) = loop.evaluate(1).of(ACT)
        assert same_bits(call.after, faulty(loop.driver.plan, call, seed, range(4)))


def test_cells_that_come_and_go_with_the_epoch_are_those_of_epoch_0_in_evaluation(tmp_path):
    """In training they are of each epoch's own, in evaluation the same whatever epoch it follows."""
    words = sites(build("cnn"))[1].words
    every = np.arange(4 * words)
    FaultMap.from_cells(words, 4, every // 4, every % 4, np.full(len(every), Kind.FLIP)).save(tmp_path / "m")
    fault = MapFaults(file=str(tmp_path / "m"), p_active=0.5, refresh="epoch", sites=WEIGHT)
    loop = Loop([fault])
    (process,) = loop.driver.plan.at(WEIGHT).processes

    def struck(call):
        fmt = CodeFormat(4, True)
        before, after = (encode(v.numpy(), call.scale.numpy(), 0.0, fmt) for v in (call.before, call.after))
        return (before ^ after).ravel()

    def active(seed, epoch):
        """The bits that show their fault, from the words of the generator themselves."""
        found = np.zeros(words, np.uint32)
        for word in range(words):
            for bit in range(4):
                counter = (bit * 256 + word // 4, 62, epoch, process.site_number)
                found[word] |= (philox(counter, seed)[word % 4] < 1 << 31) << bit
        return found

    for epoch in (1, 2):
        (training,), (evaluation,) = loop.step(epoch, 0).of(WEIGHT), loop.evaluate(epoch).of(WEIGHT)
        assert np.array_equal(struck(training), active(7, epoch))
        assert np.array_equal(struck(evaluation), active(evaluation_seed(7), 0))


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_seeds_of_evaluation(seed):
    assert evaluation_seed(seed) == seed ^ 0x9E3779B97F4A7C15
    assert evaluation_seed(evaluation_seed(seed)) == seed
    loop = Loop([ACTS], seed=3, eval_seed=seed)
    (call,) = loop.evaluate(1).of(ACT)
    assert same_bits(call.after, faulty(loop.driver.plan, call, seed, range(4)))


def test_evaluation_after_all_training():
    early, late = at(ACTS, until_epoch=3), at(WEIGHTS, from_epoch=2)
    loop = Loop([early, late])
    assert kinds(loop.evaluate(1)) == {"act_quant"}
    assert kinds(loop.evaluate(3)) == {"act_quant", "weight_quant"}
    assert kinds(loop.evaluate()) == {"weight_quant"}


def test_held_faults_stay_for_their_epochs():
    loop = Loop([at(ACTS, refresh_epochs=2), WEIGHTS])
    held, fresh = {}, []
    for epoch in range(1, 6):
        for step in range(2):
            calls = loop.step(epoch, step)
            (call,), (mask,) = calls.of(ACT), masks(calls, ACT)
            assert (mask == mask[0]).all()  # every sample of a batch has them at the same words
            period = (epoch - 1) // 2
            assert same_bits(call.after, faulty(loop.driver.plan, call, 7, [period] * 4))
            held.setdefault(period, []).append(mask[0])
            fresh += masks(calls, WEIGHT)
    assert {period: len(masks) for period, masks in held.items()} == {0: 4, 1: 4, 2: 2}
    assert all(torch.equal(mask, several[0]) for several in held.values() for mask in several)
    assert len({mask.numpy().tobytes() for several in held.values() for mask in several}) == 3
    assert len({mask.numpy().tobytes() for mask in fresh}) == 10


def test_held_faults_of_evaluation_are_one_mask():
    loop = Loop([at(ACTS, refresh_epochs=1)])
    seed, found = evaluation_seed(7), []
    for epoch in (1, 2):
        loop.step(epoch, 0)
        for call in loop.evaluate(epoch, (4, 3)).of(ACT):
            assert same_bits(call.after, faulty(loop.driver.plan, call, seed, [0] * len(call.after)))
            found.append((call.before != call.after)[0])
    assert all(torch.equal(mask, found[0]) for mask in found)


def test_faults_keep_their_draws_beside_held_ones():
    """A fault's draws do not depend on whether another one is held: its number in the list stays."""
    alone, beside = Loop([ACTS, WEIGHTS]), Loop([at(ACTS, refresh_epochs=3), WEIGHTS])
    assert len(beside.driver.injections) == 2
    one, other = (loop.step(1, 0).of(WEIGHT)[0] for loop in (alone, beside))
    assert same_bits(one.after, other.after)


@pytest.mark.parametrize("refresh", [None, 2])
def test_ranks_see_other_faults(refresh):
    faults = [at(ACTS, refresh_epochs=refresh), at(WEIGHTS, refresh_epochs=refresh)]
    for rank in range(2):
        loop = Loop(faults, rank=rank, world=2)
        for step in range(2):
            calls = loop.step(1, step)
            (act,), (weight,) = calls.of(ACT), calls.of(WEIGHT)
            numbers = [2 * n + rank for n in range(4 * step, 4 * step + 4)] if refresh is None else [rank] * 4
            number = 2 * step + rank if refresh is None else rank
            assert same_bits(act.after, faulty(loop.driver.plan, act, 7, numbers))
            assert same_bits(weight.after, faulty(loop.driver.plan, weight, 7, (), number))


def test_held_faults_are_those_of_one_rank_in_one_period():
    found = []
    for rank in range(2):
        loop = Loop([at(ACTS, refresh_epochs=1)], rank=rank, world=2)
        for epoch in range(1, 4):
            (call,) = loop.step(epoch, 0).of(ACT)
            number = 2 * (epoch - 1) + rank
            assert same_bits(call.after, faulty(loop.driver.plan, call, 7, [number] * 4))
            found.append((call.before != call.after)[0].numpy().tobytes())
    assert len(set(found)) == 6


@pytest.mark.parametrize("shared_out", [True, False])
def test_ranks_in_evaluation(shared_out):
    seed = evaluation_seed(7)
    for rank in range(2):
        calls = (loop := Loop([ACTS, WEIGHTS], rank=rank, world=2)).evaluate(1, shared_out=shared_out)
        (act,), (weight,) = calls.of(ACT), calls.of(WEIGHT)
        numbers = [2 * n + rank for n in range(4)] if shared_out else range(4)
        assert same_bits(act.after, faulty(loop.driver.plan, act, seed, numbers))
        assert same_bits(weight.after, faulty(loop.driver.plan, weight, seed, (), 0))
