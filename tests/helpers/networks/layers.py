"""Networks of Brevitas' layers, built in ways that put samples, runs and parameters in unusual places."""

import torch
from brevitas import nn as qnn
from brevitas import quant
from brevitas.graph.quantize import layerwise_quantize
from torch import Tensor, nn

from tests.helpers.networks.built import BATCH, Built, calibrated, images, settled


def heads_first() -> Built:
    """Brevitas' attention on (tokens, batch, features), as PyTorch's default has it."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = qnn.QuantMultiheadAttention(16, 4, batch_first=False, packed_in_proj=True)
            self.out = qnn.QuantLinear(16, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.transpose(0, 1)
            found, _ = self.attention(tokens, tokens, tokens)
            return self.out(found.mean(0))

    return settled(Attention(), images(6, 16))


def batch_first() -> Built:
    """PyTorch's own attention on (batch, tokens, features), quantized layer by layer."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.out = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            found, _ = self.attention(x, x, x)
            return self.out(found.mean(1))

    x = images(6, 16)
    return calibrated(layerwise_quantize(Attention()), x)


class Block(nn.Module):
    """A transformer's encoder block."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.norm1(x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """A small ViT: patches by a convolution, a class token, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.blocks = nn.Sequential(Block(16, 4), Block(16, 4))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1)
        return self.head(self.blocks(x)[:, 0])


def vision_transformer() -> Built:
    """A small ViT, quantized layer by layer."""
    return calibrated(layerwise_quantize(VisionTransformer()), images(3, 8, 8))


def windows() -> Built:
    """Attention within windows that are folded into the batch, as in Swin."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block, self.head = nn.Linear(8, 16), Block(16, 4), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            batch, windows, tokens, _ = x.shape
            seen = self.block(self.embed(x).reshape(batch * windows, tokens, 16))
            return self.head(seen.reshape(batch, windows * tokens, 16).mean(1))

    # bias correction of Brevitas takes axis 0 of an output for the batch
    return calibrated(layerwise_quantize(Windows()), images(3, 4, 8), corrected=False)


def frames() -> Built:
    """A convolution on the frames of a film, which are folded into the batch, time first."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = qnn.QuantIdentity(return_quant_tensor=False)
            self.conv = qnn.QuantConv2d(3, 4, 3, bias=False, weight_bit_width=4)
            self.act = qnn.QuantReLU(bit_width=4)
            self.out = qnn.QuantLinear(4, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            batch, times = x.shape[:2]
            seen = self.act(self.conv(self.input(x.transpose(0, 1).flatten(0, 1))))
            return self.out(seen.mean((2, 3)).unflatten(0, (times, batch)).mean(0))

    return settled(Frames(), images(4, 3, 6, 6))


def tokens() -> Built:
    """Words by number, embedded by a quantized table."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = qnn.QuantEmbedding(50, 16, weight_quant=quant.Int8WeightPerTensorFloat, weight_bit_width=4)
            self.act = qnn.QuantIdentity(bit_width=6)
            self.out = qnn.QuantLinear(16, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.embed(x)).mean(1))

    model = Tokens()
    x = torch.randint(0, 50, (BATCH, 7))
    return settled(model, x)


def shared_quantizer() -> Built:
    """One requantizer for both branches of a residual sum, called three times."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.requant = qnn.QuantIdentity(bit_width=6, return_quant_tensor=True)
            self.conv = qnn.QuantConv2d(3, 3, 3, padding=1, bias=False, weight_bit_width=4)
            self.out = qnn.QuantLinear(3 * 36, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.requant(x)
            both = self.requant(self.conv(x)) + x
            return self.out(self.requant(both).flatten(1))

    return settled(Shared(), images(3, 6, 6))


def unrolled() -> Built:
    """One layer and one activation, applied three times in a row."""

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = qnn.QuantIdentity()
            self.layer = qnn.QuantLinear(16, 16, bias=False, weight_bit_width=4)
            self.act = qnn.QuantReLU(bit_width=4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.input(x)
            for _ in range(3):
                x = self.act(self.layer(x))
            return x

    return settled(Unrolled(), images(16))


def tied() -> Built:
    """An autoencoder whose two layers have one weight."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = qnn.QuantIdentity()
            self.first = qnn.QuantLinear(16, 16, bias=False, weight_bit_width=4)
            self.act = qnn.QuantReLU(bit_width=4)
            self.second = qnn.QuantLinear(16, 16, bias=False, weight_bit_width=4)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.act(self.first(self.input(x))))

    return settled(Tied(), images(16))


def transposed() -> Built:
    """Transposed convolutions in one and two dimensions."""
    model = nn.Sequential(
        qnn.QuantIdentity(),
        qnn.QuantConvTranspose2d(3, 8, 3, bias=False, weight_quant=quant.Int8WeightPerChannelFloat, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4),
        nn.Flatten(2),
        qnn.QuantConvTranspose1d(8, 4, 3, stride=2, bias=False, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4),
        nn.Flatten(),
        qnn.QuantLinear(4 * 73, 5, bias=False),
    )
    return settled(model, images(3, 4, 4))


def volumes() -> Built:
    """Three dimensions of positions."""
    model = nn.Sequential(
        qnn.QuantIdentity(),
        qnn.QuantConv3d(2, 4, 3, bias=False, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4),
        nn.Flatten(),
        qnn.QuantLinear(4 * 8, 5, bias=False),
    )
    return settled(model, images(2, 4, 4, 4))


def truncated() -> Built:
    """Average pooling that truncates its sums, as FINN's networks end."""
    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 8, 3, bias=False, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        qnn.TruncAvgPool2d(3, trunc_quant=quant.TruncTo8bit, bit_width=4),
        nn.Flatten(),
        qnn.QuantLinear(8 * 4, 10, bias=False, weight_bit_width=4),
    )
    return settled(model, images(3, 8, 8))


def tanh_and_sigmoid() -> Built:
    """The bounded activations."""
    model = nn.Sequential(
        qnn.QuantIdentity(),
        qnn.QuantLinear(16, 16, bias=False, weight_bit_width=4),
        qnn.QuantTanh(bit_width=5),
        qnn.QuantLinear(16, 16, bias=False, weight_bit_width=4),
        qnn.QuantSigmoid(bit_width=5),
        qnn.QuantLinear(16, 16, bias=False, weight_bit_width=4),
        qnn.QuantHardTanh(bit_width=5, min_val=-1.0, max_val=1.0),
        qnn.QuantLinear(16, 5, bias=False, weight_bit_width=4),
    )
    return settled(model, images(16))


def quantized_outputs() -> Built:
    """Layers that quantize their own inputs and outputs."""
    own = {
        "input_quant": quant.Int8ActPerTensorFloat,
        "output_quant": quant.Int8ActPerTensorFloat,
        "bias_quant": quant.Int8BiasPerTensorFloatInternalScaling,
        "weight_bit_width": 4,
    }
    model = nn.Sequential(
        qnn.QuantConv2d(3, 4, 3, bias=True, **own),
        nn.ReLU(),
        nn.Flatten(),
        qnn.QuantLinear(4 * 16, 5, bias=True, **own),
    )
    return settled(model, images(3, 6, 6))


def concatenated() -> Built:
    """Two branches with one quantizer, laid side by side."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = qnn.QuantIdentity(return_quant_tensor=True)
            self.left = qnn.QuantConv2d(3, 4, 3, bias=False, weight_bit_width=4)
            self.right = qnn.QuantConv2d(3, 4, 3, bias=False, weight_bit_width=4)
            self.act = qnn.QuantReLU(bit_width=4)
            self.out = qnn.QuantLinear(8 * 16, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.input(x)
            return self.out(torch.cat([self.act(self.left(x)), self.act(self.right(x))], dim=1).flatten(1))

    return settled(Branches(), images(3, 6, 6))
