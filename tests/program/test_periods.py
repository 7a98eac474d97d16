"""Which refresh period each sample has, and with what faults change, by the table of the specification."""

import numpy as np
import pytest
import torch

from hwfault.injection.clock import Clock
from hwfault.program.periods import changes_of, periods, refresh_in_graph, refresh_of_node

# docs/hardware-faults.md, intermittent faults: refresh, the periods of an activation's elements, that of a parameter
NUMBERS = np.array([7, 8, 9])
SPECIFIED = {
    "inference": ([7, 8, 9], [7]),
    "batch": ([7, 7, 7], [7]),
    "epoch": ([4, 4, 4], [4]),
    "power_cycle": ([0, 0, 0], [0]),
    "number": ([7, 8, 9], [0]),  # not a refresh: the numbers under which the stream draws
}


@pytest.mark.parametrize("refresh", SPECIFIED)
def test_the_table_of_the_specification(refresh):
    activation, parameter = SPECIFIED[refresh]
    assert periods(refresh, NUMBERS, True, epoch=4).tolist() == activation
    assert periods(refresh, NUMBERS[:1], False, epoch=4).tolist() == parameter


def test_a_step_is_that_of_a_parameter():
    assert periods("number", NUMBERS[:1], False, step=5).tolist() == [5]
    assert periods("number", NUMBERS, True, step=5).tolist() == [7, 8, 9]
    clock = Clock(torch.device("cpu"))
    clock.resume(5, 7)
    clock.tick(torch.nn.Identity().train(), (torch.zeros(3, 2),))
    assert clock.of_periods(None, "number").tolist() == [5]
    assert clock.of_periods(3, "number").tolist() == [7, 8, 9]


def test_evaluation_and_graphs_have_the_epoch_0():
    assert periods("epoch", NUMBERS, True).tolist() == [0, 0, 0]


def test_samples_in_the_midst_of_a_batch_know_where_it_began():
    assert periods("batch", np.array([9]), True, first=7).tolist() == [7]
    assert periods("inference", np.array([0]), False, first=7).tolist() == [7]
    assert periods("inference", np.array([9]), True, first=7).tolist() == [9]


@pytest.mark.parametrize("refresh", SPECIFIED)
@pytest.mark.parametrize("batched", [True, False])
def test_no_samples_have_no_periods(refresh, batched):
    assert periods(refresh, NUMBERS[:0], batched).tolist() == []


@pytest.mark.parametrize(
    ("refresh", "activation", "parameter"),
    [
        ("inference", "sample", "batch"),
        ("batch", "batch", "batch"),
        ("epoch", "epoch", "epoch"),
        ("power_cycle", "never", "never"),
        ("number", "sample", "step"),
    ],
)
def test_with_what_periods_change(refresh, activation, parameter):
    assert (changes_of(refresh, True), changes_of(refresh, False)) == (activation, parameter)


@pytest.mark.parametrize("refresh", SPECIFIED)
@pytest.mark.parametrize("batched", [True, False])
def test_networks_have_the_same_periods(refresh, batched):
    """The clock of an injection counts on the device, by the same rule."""
    clock = Clock(torch.device("cpu"))
    clock.set_next_sample(7)
    clock.epoch = 4
    clock.tick(torch.nn.Identity().eval(), (torch.zeros(3, 2),))
    found = clock.of_periods(3 if batched else None, refresh).tolist()
    assert found == periods(refresh, NUMBERS if batched else NUMBERS[:1], batched, epoch=4).tolist()


def test_how_graphs_say_it():
    said = {refresh: refresh_in_graph(refresh, True) for refresh in SPECIFIED}
    refreshes = {"inference": "inference", "batch": "batch", "epoch": "held", "power_cycle": "held"}
    assert said == refreshes | {"number": "inference"}
    assert {refresh: refresh_in_graph(refresh, False) for refresh in said} == refreshes | {"number": "held"}
    for refresh, word in said.items():
        # a graph knows no epochs: its periods are those of epoch 0
        assert periods(refresh_of_node(word), NUMBERS, True).tolist() == periods(refresh, NUMBERS, True).tolist()
    with pytest.raises(ValueError, match="refresh is 'epoch', expected batch, held, inference"):
        refresh_of_node("epoch")
