"""Sums over the batches of an epoch: known answers, alone and with another rank."""

import math
import multiprocessing

import pytest
import torch

from hwfault.train.totals import Totals

LABELS = torch.tensor([0, 1, 1])
LOGITS = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]])


def filled(*losses):
    totals = Totals(4, torch.device("cpu"))
    for loss in losses:
        totals.add(torch.tensor(loss), LOGITS, LABELS)
    return totals


def test_means_weigh_samples_alike():
    totals = filled(1.0)
    totals.add(torch.tensor(5.0), LOGITS[:1], LABELS[:1])
    assert totals.means() == ((3 * 1.0 + 5.0) / 4, 3 / 4)


def test_there_are_no_means_of_no_batches():
    assert all(map(math.isnan, filled().means()))


def test_the_first_loss_that_is_not_finite():
    assert filled(1.0, 2.0).first_not_finite() is None
    assert filled(1.0, -math.inf, math.inf).first_not_finite() == (1, -math.inf)
    step, loss = filled(math.nan, math.inf).first_not_finite()
    assert step == 0
    assert math.isnan(loss)


OF_RANKS = [  # losses of rank 0 and of rank 1, and the first that is not finite
    ([1.0, 2.0, 3.0], [1.0, math.inf, 3.0], (1, math.inf)),
    ([1.0, 2.0, -math.inf], [1.0, math.inf, 3.0], (1, math.inf)),
    ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], None),
]


def of_a_rank(rank, store, answers):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    answers.put((rank, [filled(*case[rank]).first_not_finite() for case in OF_RANKS]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_tell_the_same_loss_whosever_it_is(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    ranks = [context.Process(target=of_a_rank, args=(r, tmp_path / "store", answers)) for r in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    found = [case[2] for case in OF_RANKS]
    assert dict(answers.get() for _ in ranks) == {0: found, 1: found}
