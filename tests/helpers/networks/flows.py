"""Plain networks after Brevitas' post-training flows, and its own examples without their trained weights."""

from brevitas.graph.quantize import layerwise_quantize, preprocess_for_quantize, quantize
from torch import Tensor, nn

from tests.helpers.networks.built import Built, calibrated, images, settled


class Residual(nn.Module):
    """A plain network with normalisation, a residual sum, depthwise layers and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.pool, self.out = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm(self.stem(x)))
        x = self.relu2(self.pointwise(self.depthwise(x)) + x)
        return self.out(self.pool(x).flatten(1))


def layerwise() -> Built:
    """Each layer quantized by itself."""
    return calibrated(layerwise_quantize(Residual()), images(3, 8, 8))


def whole_graph() -> Built:
    """The graph quantized as a whole, with requantizers in front of sums."""
    model = preprocess_for_quantize(Residual().eval(), equalize_iters=2)
    return calibrated(quantize(model), images(3, 8, 8))


def plain_mlp() -> Built:
    """A perceptron, quantized layer by layer."""
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 5))
    return calibrated(layerwise_quantize(model), images(16))


def fully_connected() -> Built:
    """The example TFC with 2 bits, smaller."""
    from brevitas_examples.bnn_pynq.models.FC import FC

    model = FC(10, 2, 2, 2, 1, [32, 32], in_features=(8, 8))
    return settled(model, images(1, 8, 8).sigmoid())


def binary_fully_connected() -> Built:
    """The example TFC with 1 bit."""
    from brevitas_examples.bnn_pynq.models.FC import FC

    model = FC(10, 1, 1, 1, 1, [32, 32], in_features=(8, 8))
    return settled(model, images(1, 8, 8).sigmoid())


def cnv() -> Built:
    """The example CNV with 2 bits."""
    from brevitas_examples.bnn_pynq.models.CNV import CNV

    return settled(CNV(10, 2, 2, 8, 3), images(3, 32, 32).sigmoid())


def resnet18() -> Built:
    """The example ResNet-18 for CIFAR with 4 bits, which shares an activation between blocks."""
    from brevitas_examples.bnn_pynq.models.resnet import QuantBasicBlock, QuantResNet

    model = QuantResNet(QuantBasicBlock, [1, 1, 1, 1], num_classes=10, act_bit_width=4, weight_bit_width=4)
    return settled(model, images(3, 32, 32))


def mobilenet() -> Built:
    """The example MobileNetV1 with 4 bits and few channels."""
    from brevitas_examples.imagenet_classification.models.mobilenetv1 import MobileNet

    channels = [[8], [16], [16, 16], [16, 16]]
    model = MobileNet(channels, False, act_bit_width=4, weight_bit_width=4, avg_pool_kernel_size=8, num_classes=10)
    return settled(model, images(3, 64, 64))


def super_resolution() -> Built:
    """The example ESPCN."""
    from brevitas_examples.super_resolution.models.espcn import quant_espcn_base

    return settled(quant_espcn_base(2, 4, 4), images(3, 8, 8).sigmoid())


def accumulator_aware() -> Built:
    """The example ESPCN with accumulator-aware weights."""
    from brevitas_examples.super_resolution.models.espcn import quant_espcn_a2q

    return settled(quant_espcn_a2q(2, 6, 6, 20), images(3, 8, 8).sigmoid())
