"""Scores of flips: gradients computed anew, and networks that have none."""

import numpy as np
import torch

import hwfault as hf
from hwfault.campaigns import first_order
from hwfault.campaigns.first_order import SAMPLES, score_flips
from hwfault.train import build


def network():
    torch.manual_seed(3)
    return build("digits_cnn").eval()


def weights_of(model):
    return [site for site in hf.sites(model) if site.kind == "weight"]


def test_the_score_is_the_mean_square_of_step_times_gradient():
    model = network()
    x = torch.rand(3, 1, 8, 8)
    sites = weights_of(model)[-1:]
    found = score_flips(model, lambda i: x[i : i + 1], 3, sites)
    layer = model.classifier
    integers = layer.quant_weight().int().detach()
    scale = float(layer.quant_weight().scale)
    squares = torch.zeros(layer.weight.shape)
    for image in x:
        model.zero_grad()
        out = model(image[None])
        out = getattr(out, "value", out)
        torch.nn.functional.cross_entropy(out, out.argmax(1)).backward()
        # the last layer's gradient is that of a linear layer: (softmax - class) x input, whatever its quantizer does
        squares += layer.weight.grad.detach() ** 2
    expected = []
    for bit in range(4):
        code = integers & 15
        after = code ^ (1 << bit)
        step = scale * (torch.where(after > 7, after - 16, after) - integers)
        expected.append(float((squares / 3 * step**2).mean()))
    assert np.allclose(found, expected, rtol=0.05), "but for words at the ends, whose quantizer passes no gradient"
    assert np.array_equal(found, score_flips(model, lambda i: x[i : i + 1], 3, sites)), "the same every time"
    assert all(not module._forward_hooks for module in model.modules())


def test_a_few_samples_are_enough(monkeypatch):
    assert SAMPLES == 32
    monkeypatch.setattr(first_order, "SAMPLES", 4)
    asked = []

    def inputs(i):
        asked.append(i)
        return torch.full((1, 1, 8, 8), i / 1000)

    score_flips(network(), inputs, 1000, weights_of(network()))
    assert asked == [0, 333, 666, 999]


def test_what_has_no_score_says_why():
    model = network()
    x = torch.rand(2, 1, 8, 8)
    sites = hf.sites(model, x[:1])
    activation = next(site for site in sites if site.kind == "activation")
    assert "is no parameter of the network" in score_flips(model, lambda i: x[i : i + 1], 2, [activation])

    class Regression(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            out = self.inner(x)
            return getattr(out, "value", out).sum(1, keepdim=True)

    told = score_flips(Regression(), lambda i: x[i : i + 1], 2, weights_of(Regression()))
    assert told == "the network's outputs are no classes, so that no loss scores its flips"

    class Broken(Regression):
        @torch.no_grad()
        def forward(self, x):
            return self.inner(x)

    assert "has no gradients" in score_flips(Broken(), lambda i: x[i : i + 1], 2, weights_of(Broken()))
