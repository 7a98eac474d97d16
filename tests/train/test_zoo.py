"""The zoo: sizes, sites, twins, grids, gradients, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

from hwfault.errors import HwfaultError
from hwfault.injection.attach import inject
from hwfault.laws.models import bit_errors
from hwfault.network.sites import quantizers, sites
from hwfault.train import TrainConfig, build, restore, save
from hwfault.train.networks import NETWORKS
from hwfault.train.networks.layers import BatchNorm1d, BatchNorm2d
from hwfault.train.networks.quantizers import SameGrid
from tests.helpers.train.zoo import QUICK, batch, fresh, lived_in
from tests.slowly import slow

NAMED = sorted(NETWORKS.keys() - {"digits_cnn"})
FAMILIES = ("tiny_cnn", "mlp", "cnv", "resnet20", "resnet18", "mobilenet_v1", "mobilenet_v1_cifar")
# torchvision's own counts for ImageNet; of CIFAR's with option B: 0.27, 0.47, 0.66, 0.86 and 1.73 million
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "mobilenet_v1": 4_231_976,
    "resnet20": 272_474,
    "resnet32": 466_906,
    "resnet44": 661_338,
    "resnet56": 855_770,
    "resnet110": 1_730_714,
    "cnv": 1_542_848 + 2 * (2 * (64 + 128 + 256) + 2 * 512 + 10),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_float_twin_has_as_many_parameters_as_in_the_literature(name):
    with torch.device("meta"):
        network = NETWORKS[name](quantized=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


@pytest.mark.every(2)
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMED])
def test_twins_have_the_same_parameters_and_shapes(name):
    quantized, twin = fresh(name), fresh(name, quantized=False)
    own, its = dict(quantized.named_parameters()), dict(twin.named_parameters())
    assert all(torch.equal(its[key], own[key]) for key in its)
    assert all(key.endswith("scaling_impl.value") for key in own.keys() - its.keys())
    assert twin.state_dict().keys() == quantized.state_dict().keys() - own.keys() | its.keys()
    assert not list(quantizers(twin))
    with torch.no_grad():
        assert quantized.eval()(batch(name)).shape == twin.eval()(batch(name)).shape


@pytest.mark.parametrize("name", FAMILIES)
def test_classes_and_channels(name):
    network = fresh(name, classes=3, channels=2).eval()
    x = torch.zeros((2, 2, *((8, 8) if name == "mlp" else (32, 32))))
    with torch.no_grad():
        assert network(x).shape == (2, 3)


def expected_sites(depth):
    """The sites of a CIFAR ResNet, counted from its description."""
    blocks = (depth - 2) // 2
    layers = 1 + 2 * blocks + 2 + 1  # stem, two in a block, two projections, the linear layer
    activations = 1 + 1 + 3 * blocks + 2 + 1  # input, stem, three in a block, two projections, the means
    return {"weight": layers, "activation": activations, "bias": 1}


@pytest.mark.parametrize("depth", [20, slow(56)])
def test_the_sites_of_a_residual_network(depth):
    found = sites(fresh(f"resnet{depth}", input_bits=7, weight_bits=3, act_bits=5, output_bits=6))
    kinds = [site.kind for site in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == expected_sites(depth) | {
        "activation": expected_sites(depth)["activation"] + 1  # the output
    }
    widths = {site.name: (site.bit_width, site.signed) for site in found}
    assert widths["input.act_quant"] == (7, True)
    assert widths["conv1.weight_quant"] == widths["fc.weight_quant"] == (3, True)
    assert widths["layer1.0.act1.act_quant"] == widths["layer1.0.out.act_quant"] == (5, False)
    assert widths["layer2.0.branch.act_quant"] == widths["layer2.0.downsample.2.act_quant"] == (5, True)
    assert widths["pool.quantizer.act_quant"] == (5, False)
    assert widths["fc.bias_quant"] == (16, True)
    assert widths["output.act_quant"] == (6, True)


def test_a_tensor_that_two_layers_read_is_struck_once():
    """The block's input goes to its convolution and to the sum; both see the same faulty codes."""
    network, seen = lived_in("resnet20"), {}
    block = network.layer1[1]
    block.conv1.register_forward_pre_hook(lambda _m, args: seen.update(conv=args[0]))
    block.out.register_forward_pre_hook(lambda _m, args: seen.update(total=args[0]))
    block.branch.register_forward_hook(lambda _m, _a, out: seen.update(branch=out))
    with torch.no_grad(), inject(network, bit_errors(0.1), seed=1):
        network(batch("resnet20"))
    assert torch.equal(seen["total"], seen["branch"] + seen["conv"])


@pytest.mark.parametrize(
    ("name", "bits"),
    [("cnv", (5, 4, 3)), ("mlp", (5, 4, 3)), ("tiny_cnn", (5, 4, 3)), ("mobilenet_v1_cifar", (5, 4, 3))],
)
def test_bit_widths_are_those_asked_for(name, bits):
    found = sites(fresh(name, input_bits=bits[0], weight_bits=bits[1], act_bits=bits[2]))
    first, *others = [site.bit_width for site in found if site.kind == "activation"]
    assert first == bits[0]
    assert set(others) == {bits[2]}
    assert {site.bit_width for site in found if site.kind == "weight"} == {bits[1]}


def scales(network, x):
    """The scale of every quantizer in a forward."""
    found = {}

    def observe(name, _before, _after, scale, _zero_point):
        found[name] = scale

    with torch.no_grad(), inject(network, bit_errors(0.0), seed=0, observe=observe):
        network(x)
    return found


@pytest.mark.parametrize("scaling", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_power_of_two_scales(bits, scaling):
    found = scales(fresh("tiny_cnn", scale="power_of_two", scaling=scaling, weight_bits=bits), batch("tiny_cnn"))
    assert len(found) == 10
    assert all(torch.equal(torch.frexp(scale)[0], torch.full_like(scale, 0.5)) for scale in found.values())
    sizes = {name: scale.numel() for name, scale in found.items()}
    assert sizes["features.3.weight_quant"] == (32 if scaling == "per_channel" else 1)
    assert sizes["features.2.act_quant"] == 1


def on_one_grid(network, x):
    """Whether what each block adds has one scale, and not all blocks the same."""
    found, leader, grids = scales(network, x), "act1", set()
    for name, block in ((f"layer{i}.{k}", network.get_submodule(f"layer{i}.{k}")) for i in (1, 2, 3) for k in range(3)):
        leader = leader if block.downsample is None else f"{name}.downsample.2"
        if not torch.equal(found[f"{name}.branch.act_quant"], found[f"{leader}.act_quant"]):
            return False
        grids.add(float(found[f"{name}.branch.act_quant"]))
        leader = f"{name}.out"
    return len(grids) > 2


def learn(network, x, steps=3, rate=0.3):
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("scale", ["float", slow("power_of_two")])
def test_both_operands_of_a_sum_stay_on_one_grid(scale, tmp_path):
    x, spread = batch("resnet20"), torch.Generator().manual_seed(5)
    network = fresh("resnet20", scale=scale)
    for name, parameter in network.named_parameters():
        if name.endswith("scaling_impl.value"):
            parameter.data.add_(torch.randn((), generator=spread))
    learn(network, x)
    assert on_one_grid(network, x)
    twin = copy.deepcopy(network)
    learn(twin, x)
    assert on_one_grid(twin, x)
    assert on_one_grid(network, x)
    save(tmp_path / "c.safetensors", twin, TrainConfig(network="resnet20", network_args={"scale": scale}))
    loaded = fresh("resnet20", scale=scale)
    restore(tmp_path / "c.safetensors", loaded)
    restore(tmp_path / "c.safetensors", network)  # a network whose copy has lived on
    with torch.no_grad():
        expected = twin(x)
        assert torch.equal(loaded.eval()(x), expected)
        assert torch.equal(network.eval()(x), expected)
    assert on_one_grid(loaded, x)
    learn(loaded, x)
    assert on_one_grid(loaded, x)


def test_a_grid_has_no_state_of_its_own():
    network = fresh("resnet20")
    layer = network.layer1[0].branch
    assert isinstance(layer, SameGrid)
    assert not list(layer.parameters())
    assert not layer.state_dict()


@pytest.mark.every(9)
@pytest.mark.parametrize(
    "options", [{"quantized": False}, {}, slow({"scale": "power_of_two"}), {"scaling": "per_channel"}]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_training_step_moves_every_parameter(name, options):
    network = fresh(name, output_bits=8, classes=10, **options)
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for seed in (1, 2):
        loss = nn.functional.cross_entropy(network(batch(name, 4, seed)), torch.tensor([1, 2, 3, 4]))
        loss.backward()
    without = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    assert not [key for key, p in network.named_parameters() if not p.grad.isfinite().all() or not p.grad.any()]
    optimizer.step()
    assert not [key for key, p in network.named_parameters() if torch.equal(p, before[key])]


@pytest.mark.parametrize("name", ["cnv", "resnet20", "mobilenet_v1_cifar"])
def test_a_training_step_with_faults(name):
    network = fresh(name)
    with inject(network, bit_errors(0.01), seed=1):
        nn.functional.cross_entropy(network(batch(name, 4)), torch.tensor([1, 2, 3, 4])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("scaling", ["per_tensor", "per_channel"])
def test_one_bit_is_a_sign(scaling):
    network = fresh("cnv", weight_bits=1, act_bits=1, scaling=scaling)
    layer, before = network.features[3], copy.deepcopy(network.state_dict())
    quantized = layer.quant_weight().value
    mean = layer.weight.abs().mean((1, 2, 3) if scaling == "per_channel" else (0, 1, 2, 3), keepdim=True)
    assert torch.allclose(quantized, torch.where(layer.weight >= 0, mean, -mean))
    with torch.no_grad():
        network.eval()(batch("cnv"))
        assert set(network.features[:3](network.input(batch("cnv"))).unique().tolist()) == {-1.0, 1.0}
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("scaling", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("scale", ["float", "power_of_two"])
def test_two_bits_are_not_all_0_because_of_one_large_weight(scale, scaling):
    layer = fresh("cnv", weight_bits=2, scale=scale, scaling=scaling).features[3]
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = 1.0  # the others are at most 0.042
    quantized = layer.quant_weight()
    codes = quantized.value / quantized.scale
    assert set(codes.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert 0.3 < codes.abs().mean() < 0.9


@pytest.mark.parametrize(("norm", "shape"), [(BatchNorm1d, (6, 5)), (BatchNorm2d, (6, 5, 3, 3))])
def test_normalisation_is_torchs(norm, shape):
    ours, theirs = norm(5), (nn.BatchNorm1d if norm is BatchNorm1d else nn.BatchNorm2d)(5)
    random = torch.Generator().manual_seed(0)
    for layer in (ours, theirs):
        layer.load_state_dict({key: t + 0.5 for key, t in nn.BatchNorm1d(5).state_dict().items()})
    for _ in range(3):
        x = torch.randn(shape, generator=random) * 3 + 1
        assert torch.equal(ours.train()(x), theirs.train()(x))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-6)
    assert not torch.equal(ours.eval()(x), ours.train()(x))


@pytest.mark.parametrize(
    ("name", "options", "texts"),
    [
        ("cnv", {"weight_bits": 0}, ["weight_bits", "greater than or equal to 1", "(given: 0)"]),
        ("cnv", {"act_bits": 9}, ["act_bits", "less than or equal to 8", "(given: 9)"]),
        ("resnet20", {"act_bits": 1}, ["act_bits", "greater than or equal to 2", "(given: 1)"]),
        ("resnet50", {"act_bits": 1}, ["act_bits", "greater than or equal to 2"]),
        ("mobilenet_v1", {"act_bits": 1}, ["act_bits", "greater than or equal to 2"]),
        ("mobilenet_v1_cifar", {"width": 0.0}, ["width", "greater than 0"]),
        ("tiny_cnn", {"input_bits": -3}, ["input_bits", "(given: -3)"]),
        ("mlp", {"output_bits": 1}, ["output_bits", "greater than or equal to 2"]),
        ("mlp", {"hidden": [64, 0]}, ["hidden.1", "greater than or equal to 1"]),
        ("mlp", {"weight_bits": True}, ["weight_bits", "valid integer", "(given: True)"]),
        ("mlp", {"weight_bits": "4"}, ["weight_bits", "valid integer", "(given: '4')"]),
        ("mlp", {"weight_bits": 4.0}, ["weight_bits", "valid integer", "(given: 4.0)"]),
        ("cnv", {"scale": "pot"}, ["scale", "'float' or 'power_of_two'", "(given: 'pot')"]),
        ("cnv", {"scaling": "per_group"}, ["scaling", "'per_tensor' or 'per_channel'"]),
        ("cnv", {"quantized": "no"}, ["quantized", "valid boolean", "(given: 'no')"]),
        ("cnv", {"classes": 0}, ["classes", "(given: 0)"]),
        ("cnv", {"weight_bit": 4}, ["unknown key 'weight_bit'", "did you mean 'weight_bits'?"]),
        ("resnet20", {"width": 0.5}, ["unknown key 'width'"]),
    ],
)
def test_a_wrong_option_is_one_clear_error(name, options, texts):
    with pytest.raises(HwfaultError) as error:
        build(name, **options)
    assert str(error.value).startswith(f"network {name!r}: ")
    for text in texts:
        assert text in str(error.value)
