import pytest
import torch
from torch import nn

from hwfault.errors import ModelError
from hwfault.train import TrainConfig
from hwfault.train.optimizers import clip_weights, frozen_modules, frozen_parameters, optimizer_of


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizers_have_what_is_configured(name):
    given = optimizer_of(network(), TrainConfig(optimizer=name, learning_rate=0.3, weight_decay=0.2, momentum=0.7))
    assert type(given).__name__.lower() == name
    (group,) = given.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)
    assert group.get("momentum", 0.7) == 0.7


def test_sgd_without_momentum():
    (group,) = optimizer_of(network(), TrainConfig(optimizer="sgd", momentum=0)).param_groups
    assert group["momentum"] == 0


def test_weights_are_clipped_and_nothing_else():
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-3)
    model[2][1].weight.requires_grad_(False)
    clip_weights(model, 0.5)
    assert {float(p.detach().unique()) for p in (model[0].weight, model[2][0].weight)} == {-0.5}
    assert {float(p.detach().unique()) for p in (model[0].bias, model[1].weight, model[2][1].weight)} == {-3}


@pytest.mark.parametrize(
    ("globs", "names"),
    [
        ((), []),
        (["0"], ["0.weight", "0.bias"]),
        (["2"], ["2.0.weight", "2.0.bias", "2.1.weight", "2.1.bias"]),
        (["*.bias", "1"], ["0.bias", "1.weight", "1.bias", "2.0.bias", "2.1.bias"]),
        (["2.?.weight"], ["2.0.weight", "2.1.weight"]),
    ],
)
def test_globs_freeze_parameters_and_what_is_in_modules(globs, names):
    assert frozen_parameters(network(), globs) == names


def test_modules_are_frozen_with_all_their_own_parameters():
    model = network()
    assert frozen_modules(model, frozen_parameters(model, ["1"])) == [model[1]]
    assert frozen_modules(model, frozen_parameters(model, ["*.weight"])) == []


def test_globs_that_freeze_nothing_or_everything():
    with pytest.raises(ModelError, match=r"freeze: no parameter matches '2\.2': did you mean '2\.\d"):
        frozen_parameters(network(), ["0", "2.2"])
    with pytest.raises(ModelError, match="match every parameter"):
        frozen_parameters(network(), ["*"])
