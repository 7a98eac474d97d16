"""Float checkpoints into quantized networks: every way to write one, and what is refused."""

import copy
import os
import pickle

import pytest
import torch
from brevitas import nn as qnn
from brevitas.inject.enum import ScalingImplType
from brevitas.quant import Int8WeightPerTensorFloat
from safetensors.torch import save_file
from torch import nn

from hwfault.errors import FileError
from hwfault.train import TrainConfig, save
from hwfault.train.float_weights import load_float
from tests.helpers.train.zoo import batch, fresh, lived_in

NAMES = ("tiny_cnn", "mlp", "cnv", "resnet20", "mobilenet_v1_cifar")


def trained(name="tiny_cnn", **options):
    """A float twin with weights of its own."""
    twin = lived_in(name, quantized=False, **options)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.7)
    return twin


def snapshot(network):
    return {key: tensor.clone() for key, tensor in network.state_dict().items()}


def unchanged(network, before):
    after = network.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", NAMES)
def test_all_that_a_float_twin_has_arrives(name, tmp_path):
    twin, network = trained(name), fresh(name)
    torch.save(twin.state_dict(), tmp_path / "f.pth")
    kept = snapshot(network)
    missing = load_float(network, tmp_path / "f.pth")
    state = network.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in twin.state_dict().items())
    assert set(missing) == state.keys() - twin.state_dict().keys()
    assert missing
    assert all(key.endswith("scaling_impl.value") for key in missing)
    assert all(torch.equal(state[key], kept[key]) for key in missing)


def by_torch(state, path):
    torch.save(state, path)


def by_old_torch(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def nested(state, path):
    torch.save({"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}}, path)


def parallel(state, path):
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, path)


def wrapped(state, path):
    torch.save({f"module._orig_mod.{key}": tensor for key, tensor in state.items()}, path)


def by_safetensors(state, path):
    save_file(state, path)


def half(state, path):
    torch.save({k: t.half() if t.is_floating_point() else t for k, t in state.items()}, path)


def without_counts(state, path):
    torch.save({k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}, path)


def parameters(state, path):
    torch.save({k: nn.Parameter(t) if t.is_floating_point() else t for k, t in state.items()}, path)


@pytest.mark.parametrize(
    "write", [by_torch, by_old_torch, nested, parallel, wrapped, by_safetensors, half, without_counts, parameters]
)
def test_ways_to_write_a_checkpoint(write, tmp_path):
    twin, network = trained(), fresh("tiny_cnn")
    write(twin.state_dict(), tmp_path / "f")
    missing = load_float(network, tmp_path / "f")
    state = network.state_dict()
    for key, tensor in twin.state_dict().items():
        if write is without_counts and key.endswith("num_batches_tracked"):
            assert key in missing
        else:
            assert torch.equal(state[key], tensor.half().to(tensor.dtype) if write is half else tensor)


def test_a_run_of_the_float_twin(tmp_path):
    twin, network = trained("resnet20"), fresh("resnet20")
    save(tmp_path / "c.safetensors", twin, TrainConfig(network="resnet20", network_args={"quantized": False}))
    load_float(network, tmp_path / "c.safetensors")
    assert torch.equal(network.layer3[0].downsample[0].weight, twin.layer3[0].downsample[0].weight)


def test_names_are_torchvisions(tmp_path):
    """What a torchvision checkpoint of ResNet-18 names, written down by hand."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{n}" for n in norm)}
    for block in (f"layer{i}.{k}" for i in (1, 2, 3, 4) for k in (0, 1)):
        for k in (1, 2):
            names |= {f"{block}.conv{k}.weight", *(f"{block}.bn{k}.{n}" for n in norm)}
    for stage in (2, 3, 4):
        projection = f"layer{stage}.0.downsample"
        names |= {f"{projection}.0.weight", *(f"{projection}.1.{n}" for n in norm)}
    assert fresh("resnet18", quantized=False).state_dict().keys() == names


@pytest.mark.parametrize(
    ("bits", "scale", "expected"),
    [
        (1, "float", lambda w: w.mean()),
        (1, "power_of_two", lambda w: 2 ** w.mean().log2().round()),
        (2, "float", lambda w: 1.4 * w.mean()),
        (2, "power_of_two", lambda w: 2 ** (1.4 * w.mean()).log2().round()),
        (4, "float", lambda w: w.max() / 7),
        (4, "power_of_two", lambda w: 2 ** w.max().log2().ceil() / 8),
    ],
)
def test_scales_follow_the_new_weights(bits, scale, expected, tmp_path):
    twin, network = trained(), fresh("tiny_cnn", weight_bits=bits, scale=scale)
    before = network.features[3].quant_weight().scale
    torch.save(twin.state_dict(), tmp_path / "f.pth")
    load_float(network, tmp_path / "f.pth")
    after = network.features[3].quant_weight().scale
    assert not torch.equal(before, after)
    assert torch.allclose(after, expected(twin.features[3].weight.abs()))


class OnceFromWeights(Int8WeightPerTensorFloat):
    """A scale that is a parameter, taken from the weights when it is first needed."""

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS


def test_scales_that_are_parameters_are_taken_anew(tmp_path):
    network = nn.Sequential(qnn.QuantLinear(6, 4, bias=False, weight_quant=OnceFromWeights, weight_bit_width=4))
    network.train()
    before = network[0].quant_weight().scale.detach()
    weight = torch.linspace(-9, 5, 24).reshape(4, 6)
    torch.save({"0.weight": weight}, tmp_path / "f.pth")
    missing = load_float(network, tmp_path / "f.pth")
    assert missing == ("0.weight_quant.tensor_quant.scaling_impl.value",)
    assert all(module.training for module in network.modules())
    scale = network[0].quant_weight().scale
    assert torch.allclose(scale, torch.tensor(9 / 7))
    assert not torch.allclose(scale, before)
    assert network.state_dict()[missing[0]] == 9.0
    scale.backward()
    assert dict(network.named_parameters())[missing[0]].grad is not None


def test_activations_see_the_network_as_before(tmp_path):
    """Loading is what copying each tensor by hand would be."""
    twin, network, by_hand = trained("resnet20"), fresh("resnet20"), fresh("resnet20")
    torch.save(twin.state_dict(), tmp_path / "f.pth")
    load_float(network, tmp_path / "f.pth")
    by_hand.load_state_dict({**by_hand.state_dict(), **twin.state_dict()})
    with torch.no_grad():
        assert torch.equal(network.eval()(batch("resnet20")), by_hand.eval()(batch("resnet20")))


def test_an_optimizer_made_before_still_trains_the_network(tmp_path):
    network = fresh("tiny_cnn")
    parameters = [id(p) for p in network.parameters()]
    torch.save(trained().state_dict(), tmp_path / "f.pth")
    load_float(network, tmp_path / "f.pth")
    assert [id(p) for p in network.parameters()] == parameters


class Runs:
    """An object whose pickle creates a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def without(state, key):
    return {k: t for k, t in state.items() if k != key}


HOSTILE = {
    "missing": (lambda s: without(s, "fc.bias"), ["it has no fc.bias"]),
    "unknown": (lambda s: {**s, "head.weight": torch.zeros(1)}, ["it has an unknown head.weight"]),
    "shape": (lambda s: {**s, "fc.weight": torch.zeros(3, 64)}, ["fc.weight has shape (3, 64), expected (10, 64)"]),
    "huge": (
        lambda s: {**s, "fc.weight": torch.zeros(1).expand(1 << 40, 64)},
        ["fc.weight has shape (1099511627776, 64)"],
    ),
    "integers": (lambda s: {**s, "fc.bias": torch.zeros(10, dtype=torch.int64)}, ["fc.bias holds torch.int64"]),
    "complex": (lambda s: {**s, "fc.bias": torch.zeros(10, dtype=torch.complex64)}, ["fc.bias holds torch.complex64"]),
    "sparse": (lambda s: {**s, "fc.bias": torch.zeros(10).to_sparse()}, ["fc.bias is no ordinary tensor"]),
    "meta": (lambda s: {**s, "fc.bias": torch.zeros(10, device="meta")}, ["fc.bias is no ordinary tensor"]),
    "nan": (lambda s: {**s, "fc.bias": torch.full((10,), torch.nan)}, ["fc.bias is not finite"]),
    "quantized": (
        lambda s: {**s, **fresh("tiny_cnn").state_dict()},
        ["belongs to a quantizer", "a quantized network's"],
    ),
    "text": (lambda s: {**s, "fc.bias": "x"}, ["holds str under 'fc.bias'"]),
    "number": (lambda s: {**s, 7: torch.zeros(1)}, ["holds Tensor under 7"]),
    "long": (lambda s: {**s, "a" * 5000: torch.zeros(1)}, ["it has an unknown aaaa"]),
    "longer": (lambda s: {**s, "a" * 5000: None}, ["holds NoneType under 'aaaa"]),
    "list": (lambda s: [s], ["holds a list"]),
    "empty": (lambda s: {}, ["holds a dict"]),
    "nested": (lambda s: {"state_dict": {"state_dict": s}}, ["holds OrderedDict under 'state_dict'"]),
    "other": (lambda s: fresh("resnet20", quantized=False).state_dict(), ["it has no features.0.weight", "more;"]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_fit_leaves_the_network_alone(kind, tmp_path):
    change, texts = HOSTILE[kind]
    network = fresh("tiny_cnn")
    before = snapshot(network)
    torch.save(change(trained().state_dict()), tmp_path / "f.pth")
    with pytest.raises(FileError) as error:
        load_float(network, tmp_path / "f.pth")
    assert str(error.value).startswith(f"{tmp_path / 'f.pth'}: ")
    for text in texts:
        assert text in str(error.value)
    assert len(str(error.value)) < 1500
    assert unchanged(network, before)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"fc.bias": Runs(tmp_path / "made")}, tmp_path / "f.pth")
    (tmp_path / "raw").write_bytes(pickle.dumps(Runs(tmp_path / "made")))
    for name in ("f.pth", "raw"):
        with pytest.raises(FileError, match="not a checkpoint of tensors alone"):
            load_float(fresh("tiny_cnn"), tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("write", [by_torch, by_old_torch, by_safetensors])
def test_a_truncated_file(write, tmp_path):
    path, network = tmp_path / "f", fresh("tiny_cnn")
    write(trained().state_dict(), path)
    whole, before = path.read_bytes(), snapshot(network)
    for length in (0, 1, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"not a (checkpoint of tensors alone|complete safetensors file)"):
            load_float(network, path)
    assert unchanged(network, before)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"x" * 50, b"\x80\x02}q\x00", b"text", b"\xff" * 100])
def test_other_files(content, tmp_path):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(FileError, match="not a checkpoint of tensors alone"):
        load_float(fresh("tiny_cnn"), tmp_path / "f")


def test_no_file(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            load_float(fresh("tiny_cnn"), path)


def test_a_copy_takes_them_too(tmp_path):
    """The scales of a copied network follow the copy's weights, not the original's."""
    twin, network = trained("resnet20"), fresh("resnet20")
    torch.save(twin.state_dict(), tmp_path / "f.pth")
    copied = copy.deepcopy(network)
    before = snapshot(network)
    load_float(copied, tmp_path / "f.pth")
    assert unchanged(network, before)
    scale = copied.conv1.quant_weight().scale
    assert torch.allclose(scale, twin.conv1.weight.abs().max() / 7)
