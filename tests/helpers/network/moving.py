"""Networks that move their samples away from axis 0 between two quantizers."""

import torch
from brevitas import nn as qnn
from torch import nn

from hwfault.laws.models import BitFlips
from hwfault.program.batch_axes import BatchAxis

FLIPS = [BitFlips(probability=0.05)]


def quant(bits=4, **rest):
    return qnn.QuantIdentity(bit_width=bits, **rest)


class Does(nn.Module):
    """A quantizer before and one behind what a function does."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = quant(), quant(), function

    def forward(self, *args, **kwargs):
        return self.b(self.function(self.a, *args, **kwargs))


def trained(model, *args, **kwargs):
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(*args, **kwargs)
    return model.eval()


def rows(x, parts):
    return x.reshape(len(x) * parts, -1)


MOVES = {  # what is done to (B, 4, 6), and where the samples lie behind it
    "frames": (lambda q, x: q(x).flatten(0, 1), BatchAxis(inner=4, rows=4)),
    "tokens first": (lambda q, x: q(x).transpose(0, 1), BatchAxis(axis=1)),
    "last": (lambda q, x: q(x).permute(1, 2, 0), BatchAxis(axis=2)),
    "time and batch": (lambda q, x: q(x).transpose(0, 1).reshape(4 * len(x), 6), BatchAxis(inner=1, rows=4)),
    "T x B x heads": (
        lambda q, x: q(x).transpose(0, 1).reshape(4, len(x), 2, 3).reshape(8 * len(x), 3),
        BatchAxis(inner=2, rows=8),
    ),
    "windows": (
        lambda q, x: q(x).reshape(len(x), 2, 2, 2, 3).permute(0, 1, 3, 2, 4).reshape(4 * len(x), 6),
        BatchAxis(inner=4, rows=4),
    ),
    "heads": (lambda q, x: q(x).transpose(0, 1).reshape(4, 2 * len(x), 3).transpose(0, 1), BatchAxis(inner=2, rows=2)),
    "axis 1 with rows": (
        lambda q, x: q(x).transpose(0, 1).reshape(4, 2 * len(x), 3),
        BatchAxis(axis=1, inner=2, rows=2),
    ),
    "a token of its own": (
        lambda q, x: torch.cat([torch.zeros(1, len(x), 6), q(x).transpose(0, 1)]).reshape(5 * len(x), 6),
        BatchAxis(inner=1, rows=5),
    ),
    "maximum": (lambda q, x: torch.where(q(x) > 0, 1.0, -1.0).flatten(0, 1), BatchAxis(inner=4, rows=4)),
    "back again": (lambda q, x: q(x).transpose(0, 1).relu().transpose(0, 1), None),
    "flat": (lambda q, x: q(x).flatten(1), None),
}

UNSAID = {  # what is done to (4, 4, 4, 4), whose shape tells nothing
    "transposed in place": lambda q, x: q(x).clone().transpose_(0, 1),
    "turned in place": lambda q, x: q(x).clone().swapaxes_(0, 2),
    "an equation": lambda q, x: torch.einsum("bhqd->hbqd", q(x)),
    "scores of heads": lambda q, x: torch.einsum("bhqd,bhkd->hbqk", q(x), q(x)),
    "operands in a list": lambda q, x: torch.einsum("bhqd,hdk->hbqk", [q(x), torch.ones(4, 4, 4)]),
    "sorted": lambda q, x: q(x).sort(0).values,
    "sorted by name": lambda q, x: torch.sort(q(x), dim=-4).values,
    "the largest": lambda q, x: torch.topk(q(x), 4, 0).values,
    "sorted samples": lambda q, x: torch.msort(q(x)),
    "strides": lambda q, x: q(x).as_strided((4, 4, 4, 4), (16, 64, 4, 1)),
    "picked by their values": lambda q, x: q(x)[order(x)],
    "selected by their values": lambda q, x: q(x).index_select(0, order(x)),
    "gathered by their values": lambda q, x: q(x).gather(dim=0, index=order(x).view(4, 1, 1, 1).expand(x.shape)),
    "taken along": lambda q, x: q(x).take_along_dim(indices=order(x).view(4, 1, 1, 1), dim=0),
    "picked from the largest": lambda q, x: q(x)[x.flatten(1)[:, 0].topk(4).indices],
    "put by their values": lambda q, x: torch.zeros(4, 4, 4, 4).index_copy(0, order(x), q(x)),
    "put in place": lambda q, x: torch.zeros(4, 4, 4, 4).index_put_((order(x),), q(x)),
    "scattered": lambda q, x: torch.zeros(4, 4, 4, 4).scatter(0, order(x).view(4, 1, 1, 1).expand(x.shape), q(x)),
    "assigned": lambda q, x: assigned(torch.zeros(4, 4, 4, 4), order(x), q(x)),
    "assigned one by one": lambda q, x: assigned(torch.zeros(4, 4, 4, 4), slice(0, 1), q(x)[3:]),
    "a permutation's matrix": lambda q, x: (torch.eye(4)[order(x)] @ q(x).flatten(1)).view(x.shape),
    "its product": lambda q, x: torch.mm(torch.eye(4).flip(0), q(x).flatten(1)).view(x.shape),
    "products along the samples": lambda q, x: nn.functional.linear(q(x).permute(1, 2, 3, 0), torch.eye(4).flip(0)),
    "between samples": lambda q, x: (q(x).flatten(1) @ q(x).flatten(1).T).view(4, 4, 1, 1).expand(x.shape),
    "copied": lambda q, x: torch.zeros(4, 4, 4, 4).copy_(q(x).flip(0)),
    "written elsewhere": lambda q, x: torch.index_select(q(x), 0, torch.tensor([2, 0, 3, 1]), out=torch.zeros(x.shape)),
    "into parts": lambda q, x: in_parts(torch.zeros(4, 4, 4, 4), q(x)),
    "into parts of their own": lambda q, x: in_parts(q(x).clone(), q(x)),
    "from a list": lambda q, x: torch.stack(q(x).unbind(0)[::-1]),
}


def order(x):
    return x.flatten(1)[:, 0].argsort()


def assigned(whole, where, part):
    whole[where] = part
    return whole


def in_parts(whole, x):
    whole[:1].copy_(x[3:])
    whole[1:].copy_(x[:3])
    return whole
