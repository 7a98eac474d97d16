import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hwfault.errors import FileError
from hwfault.laws.models import bit_errors
from hwfault.train import TrainConfig, build, restore, save, train
from hwfault.train.checkpoint import load
from tests.helpers.train import small

OWN = "tests.helpers.train.small:network"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def state_of(network):
    return {key: tensor.clone() for key, tensor in network.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_what_is_saved_is_loaded(path):
    config = TrainConfig(faults=bit_errors(0.1), network_args={"bits": 3})
    network = build("digits_cnn", seed=5, bits=3).eval()
    save(path, network, config)
    back, back_config = load(path)
    assert back_config == config
    assert equal(state_of(back), state_of(network))
    assert not back.training
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(back(x), network(x))
    assert os.listdir(path.parent) == [path.name]


def test_learned_scales_come_back(path):
    network, config = build(OWN), TrainConfig(network=OWN, epochs=2, batch_size=16)
    train(network, small.data(), config)
    save(path, network, config)
    x = small.data().test_x
    assert torch.equal(load(path, network=OWN)[0](x), network(x))
    fresh = build(OWN, seed=9)
    assert restore(path, fresh) == config
    assert torch.equal(fresh.eval()(x), network(x))


def test_tensors_that_share_memory(path):
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, layer)
    save(path, twice, TrainConfig())
    fresh = nn.Linear(2, 2)
    restore(path, nn.Sequential(fresh, fresh))
    assert torch.equal(fresh.weight, layer.weight)


class Wandering(nn.Linear):
    """A layer whose buffer is made anew, in another place, when a state is loaded; `to` says where it was sent."""

    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("gathered", torch.zeros(2))
        self.sent = []

    def _load_from_state_dict(self, state, prefix, *rest):
        self.gathered = torch.empty(2, device="meta")
        super()._load_from_state_dict(state, prefix, *rest)

    def to(self, device):
        self.sent.append((device, self.gathered.device))
        self.gathered = torch.zeros(2, device=device)
        return self


@pytest.mark.filterwarnings("ignore:for .*gathered. copying from a non-meta parameter")
@pytest.mark.parametrize("other", [False, True])
def test_a_network_stays_on_its_device(path, other):
    save(path, nn.Sequential(Wandering(), *[nn.Linear(2, 2)] * other), TrainConfig())
    network = Wandering()
    whole = nn.Sequential(network)
    whole.to = network.to  # not a module's own, which sends no child by its `to`
    if other:
        with pytest.raises(FileError, match="another network's"):
            restore(path, whole)
    else:
        restore(path, whole)
    assert network.sent == [(torch.device("cpu"), torch.device("meta"))]
    assert network.gathered.device.type == "cpu"


def test_code_that_a_file_names_is_not_run(path):
    save(path, build(OWN), TrainConfig(network="no_such_module:f"))
    with pytest.raises(FileError, match=r"code that a file names is not run.*--network no_such_module:f"):
        load(path)


def test_a_header_of_128_bytes_is_no_pickle(path):
    starts = set()
    for length in range(0, 300, 8):
        save_file({"x": torch.zeros(1)}, path, metadata={"filler": "x" * length})
        starts.add(path.read_bytes()[0])
        with pytest.raises(FileError, match=r"has no hwfault\.config"):
            load(path)
    assert 0x80 in starts


def test_pickles(path):
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(FileError, match="is a pickle"):
        load(path)
    torch.save({"x": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(FileError, match="is a pickle"):
        load(path)


def test_every_truncation(path):
    save(path, build("digits_cnn"), TrainConfig())
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="may be truncated"):
            load(path)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({}, "has no hwfault.config"),
        ({"hwfault.config": "{}"}, "has no hwfault.formats"),
        ({"hwfault.config": "not json", "hwfault.formats": "{}"}, "metadata is wrong"),
        ({"hwfault.config": "[" * 100_000, "hwfault.formats": "{}"}, "metadata is wrong"),
        ({"hwfault.config": '{"epoch": 3}', "hwfault.formats": "{}"}, "did you mean 'epochs'"),
        ({"hwfault.config": "{}", "hwfault.formats": "3"}, "metadata is wrong"),
    ],
)
def test_strange_metadata(path, metadata, text):
    save_file({"x": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(FileError) as error:
        load(path)
    assert text in str(error.value)


def test_no_file_and_a_folder(tmp_path, path):
    for wrong in (path, tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            load(wrong)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"width": 9}, "0.weight has shape (8, 4), expected (9, 4)"),
        ({"bits": 3}, "0.weight_quant is 4 bit signed, expected 3 bit signed"),
    ],
)
def test_a_checkpoint_of_another_network(path, arguments, text):
    save(path, build(OWN), TrainConfig(network=OWN))
    other = build(OWN, seed=1, **arguments)
    before = state_of(other)
    with pytest.raises(FileError) as error:
        restore(path, other)
    assert text in str(error.value)
    assert equal(state_of(other), before)


def test_a_checkpoint_with_other_tensors_leaves_the_network_alone(path):
    save(path, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), TrainConfig())
    other = nn.Sequential(nn.Linear(2, 2), nn.PReLU(2))
    before = state_of(other)
    with pytest.raises(FileError, match=r"another network's.*it has an unknown 1\.bias"):
        restore(path, other)
    assert equal(state_of(other), before)


def test_an_old_file_survives_a_failed_write(path, monkeypatch):
    save(path, build("digits_cnn"), TrainConfig())
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        save(path, build("digits_cnn", seed=1), TrainConfig())
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    assert json.loads(TrainConfig().to_json())["network"] == "digits_cnn"
