"""Networks that put their samples elsewhere than along axis 0: attention, a small ViT, windows, frames.

All scales are powers of two, so that sums are exact; what is not, softmax and normalization, is quantized right behind.
"""

import warnings
from functools import cache

import torch
from brevitas import nn as qnn
from torch import Tensor, nn

from hwfault.train.networks import FixedPointActivation, FixedPointWeight
from tests.helpers.graph.networks import ACTS, WEIGHTS, SignedActivation

FEATURES, HEADS = 8, 2


class Signed(SignedActivation):
    """Six bits for values in [-4, 4)."""

    bit_width = 6
    min_val, max_val = -4.0, 4.0


class Shares(FixedPointActivation):
    """Six bits for values in [0, 1)."""

    bit_width = 6
    max_val = 1.0


def signed() -> nn.Module:
    return qnn.QuantIdentity(act_quant=Signed, return_quant_tensor=True)


def linear(inputs: int, outputs: int) -> nn.Module:
    return qnn.QuantLinear(inputs, outputs, bias=False, **WEIGHTS)


def attention(batch_first: bool) -> nn.Module:
    """Brevitas' attention; inside it tokens are in front, and heads are folded into the samples."""
    inputs = ("in_proj_input", "out_proj_input", "q_scaled", "k_transposed", "v")
    weights = ("in_proj_weight", "out_proj_weight")
    given = {f"{name}_quant": Signed for name in inputs} | {f"{name}_quant": FixedPointWeight for name in weights}
    given |= {"attn_output_weights_quant": Shares, "in_proj_bias_quant": None, "out_proj_bias_quant": None}
    widths = {f"{name}_bit_width": 4 for name in weights}
    return qnn.QuantMultiheadAttention(FEATURES, HEADS, bias=False, batch_first=batch_first, **given, **widths)


class Block(nn.Module):
    """A transformer's encoder block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(FEATURES), nn.LayerNorm(FEATURES)
        self.before, self.middle, self.sum = signed(), signed(), signed()
        self.attention = attention(batch_first=True)
        self.mlp = nn.Sequential(linear(FEATURES, 12), qnn.QuantReLU(**ACTS), linear(12, FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.before(self.norm1(x)).value
        x = self.middle(x + self.attention(seen, seen, seen)[0]).value
        return self.sum(x + self.mlp(self.norm2(x))).value


class TokensFirst(nn.Module):
    """Attention on (tokens, samples, features), as PyTorch's default has it."""

    def __init__(self) -> None:
        super().__init__()
        self.input, self.attention, self.act = signed(), attention(batch_first=False), signed()
        self.out = linear(5 * FEATURES, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.input(x).value.transpose(0, 1)
        found, _ = self.attention(tokens, tokens, tokens)
        return self.out(self.act(found).value.transpose(0, 1).flatten(1))


class VisionTransformer(nn.Module):
    """A small ViT: patches by a convolution, a class token, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.input = signed()
        self.patches = qnn.QuantConv2d(2, FEATURES, 4, stride=4, bias=False, **WEIGHTS)
        self.token = nn.Parameter(torch.randn(1, 1, FEATURES))
        self.blocks = nn.Sequential(Block(), Block())
        self.head = linear(FEATURES, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(self.input(x)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1)
        return self.head(self.blocks(x)[:, 0])


class Frames(nn.Module):
    """A convolution on the frames of a film and a layer on their means, time first in axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.input = signed()
        self.conv = qnn.QuantConv2d(2, 3, 3, bias=False, **WEIGHTS)
        self.act = qnn.QuantReLU(**ACTS)
        self.mix = linear(3 * 16, 6)
        self.last = signed()
        self.out = linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        samples, times = x.shape[:2]
        seen = self.act(self.conv(self.input(x.transpose(0, 1).flatten(0, 1))))
        seen = self.last(self.mix(seen.flatten(1))).value
        return self.out(seen.reshape(times, samples, 6).transpose(0, 1).flatten(1))


class Windows(nn.Module):
    """Attention within windows that are folded into axis 0 behind their sample, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.input, self.block, self.out = signed(), Block(), linear(12 * FEATURES, 3)

    def forward(self, x: Tensor) -> Tensor:
        samples, windows, tokens, features = x.shape
        seen = self.block(self.input(x).value.reshape(samples * windows, tokens, features))
        return self.out(seen.reshape(samples, windows * tokens * features))


NETWORKS = {
    "tokens first": (TokensFirst, (5, FEATURES)),
    "vision transformer": (VisionTransformer, (2, 8, 8)),
    "frames": (Frames, (4, 2, 6, 6)),
    "windows": (Windows, (3, 4, FEATURES)),
}


@cache
def network(name: str) -> nn.Module:
    """A network in evaluation mode with weights all over the range, made once; torch's random state is left alone."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Brevitas says of names of axes
        torch.manual_seed(0)
        made = NETWORKS[name][0]()
        for module in made.modules():
            if isinstance(module, qnn.QuantLinear | qnn.QuantConv2d):
                nn.init.uniform_(module.weight, -0.9, 0.9)
    return made.eval()


def batch(name: str, n: int = 8, seed: int = 0) -> Tensor:
    """Inputs of a network, in [-4, 4)."""
    return torch.rand(n, *NETWORKS[name][1], generator=torch.Generator().manual_seed(seed)) * 8 - 4
