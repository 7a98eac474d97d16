import pytest
import torch
from torch.nn.functional import cross_entropy

from hwfault.errors import ModelError
from hwfault.train import TrainConfig
from hwfault.train.losses import loss_of, squared_hinge


def test_squared_hinge():
    logits = torch.tensor([[2.0, -3.0, 0.5], [0.0, 0.5, -1.0]])
    # distances to the margin: (0, 0, 1.5) for class 0; (1, 0.5, 0) for class 1
    assert squared_hinge(logits, torch.tensor([0, 1])).item() == pytest.approx((1.5**2 + 1 + 0.5**2) / 6)


def test_squared_hinge_has_no_gradient_beyond_the_margin():
    logits = torch.tensor([[2.0, -3.0, 0.5]], requires_grad=True)
    squared_hinge(logits, torch.tensor([0])).backward()
    assert logits.grad.tolist() == [[0, 0, 1]]


def test_label_smoothing():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    given = loss_of(TrainConfig(label_smoothing=0.1))(logits, labels)
    smooth = torch.full((5, 4), 0.025).scatter(1, labels[:, None], 0.925)
    assert torch.allclose(given, cross_entropy(logits, smooth))
    assert not torch.allclose(given, loss_of(TrainConfig())(logits, labels))
    assert loss_of(TrainConfig(loss="squared_hinge")) is squared_hinge


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"loss": "squared_hinge", "label_smoothing": 0.1}, "label_smoothing is 0.1 with the loss squared_hinge"),
        ({"loss": "hinge"}, "loss: Input should be 'cross_entropy' or 'squared_hinge'"),
        ({"label_smoothing": 1}, "label_smoothing: Input should be less than 1"),
    ],
)
def test_wrong_losses(given, words):
    with pytest.raises(ModelError) as error:
        TrainConfig(**given)
    assert words in str(error.value)
