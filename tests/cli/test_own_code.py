"""Mistakes in the user's own code, and in data: each is one clear error through the commands."""

import shutil

import pytest

from tests.cli.conftest import good, hwfault, refused
from tests.helpers.train import files

BROKEN = "tests.helpers.train.small:broken"
SAID = [f"{BROKEN}' raised Broken: on purpose (", "small.py, line ", "mend that code, or name another"]


def test_networks_and_data_that_raise(run, out):
    train = ("train", "--epochs", 1, "--out", out / "run")
    refused(*train, "--network", BROKEN, words=["network '", *SAID])
    refused(*train, "--data", BROKEN, words=["data '", *SAID])
    refused("sites", BROKEN, words=["network '", *SAID])
    refused("evaluate", run, "--data", BROKEN, "--out", out, words=["data '", *SAID])


@pytest.mark.parametrize(("option", "what"), [("--augment", "augmentation"), ("--transform", "transform")])
def test_transforms_and_augmentations_that_raise(tmp_path, option, what):
    said = f"the {what} raised Broken: on purpose ("
    refused("train", "--epochs", 1, option, BROKEN, "--out", tmp_path / "run", words=[said, *SAID[1:]])
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_module_with_a_mistake(out, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hwfault_test_slip.py").write_text("x = 1\nraise Exception('slip')\n")
    words = ["network 'hwfault_test_slip:network': the module cannot be imported (Exception: slip (", "slip.py, line 2"]
    refused("train", "--network", "hwfault_test_slip:network", "--out", out / "run", words=words)


@pytest.mark.parametrize("key", ["seed", "spec"])
def test_arguments_that_the_run_itself_has(out, key):
    words = f"network_args has the key '{key}', expected others"
    refused("train", "--set", f"network_args.{key}=3", "--out", out / "run", words=words)


@pytest.fixture
def cifar(tmp_path):
    files.write_cifar10(tmp_path / "cifar", n_train=20, n_test=10)
    return tmp_path / "cifar"


def training(folder, out, *rest, data="cifar10"):
    where = ("--data", data, "--data-folder", folder)
    return "train", "--network", "tiny_cnn", *where, "--epochs", 1, "--out", out / "run", *rest


def test_a_data_set_that_is_cut_short(cifar, out):
    path = cifar / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    refused(*training(cifar, out), words=[str(path), "expected records of 3073 bytes; it is cut short"])
    path.unlink()
    refused(*training(cifar, out), words=[str(cifar), "data_batch_3.bin is missing", "Nothing is downloaded"])


def test_labels_out_of_range(cifar, out):
    path = cifar / "data_batch_3.bin"
    path.write_bytes(bytes([10]) + path.read_bytes()[1:])
    refused(*training(cifar, out), words=f"{path}: sample 0 has the label 10, expected 0 to 9")


def test_more_labels_than_the_network_has_outputs(cifar, tmp_path):
    words = ["outputs of shape (20, 3) for a batch of 20", "the data's 10 classes or more"]
    refused(*training(cifar, tmp_path, "--set", "network_args.classes=3"), words=words)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_cut_short(tmp_path, workers):
    files.write_image_folder(tmp_path / "images", n_train=1, n_val=1)
    path = next((tmp_path / "images" / "train" / "dog").iterdir())
    path.write_bytes(path.read_bytes()[:60])
    rest = ("--set", "image_size=16", "--workers", workers)
    words = f"{path}: is not an image that can be decoded"
    refused(*training(tmp_path / "images", tmp_path, *rest, data="image_folder"), words=words)


def test_what_compare_cannot_read(run, out, tmp_path):
    good("evaluate", run, "--rates", 0, "--seeds", 0, "--out", tmp_path / "measured")
    results = tmp_path / "measured" / "results.json"
    words = [str(results), "expected a run's folder or its checkpoint (.safetensors)"]
    refused("compare", results, run, "--out", out, words=words)
    results.write_text("not JSON {")
    refused("compare", run, results, "--out", out, words=words)
    refused("compare", tmp_path / "measured", "--out", out, words="checkpoint.safetensors: cannot be read")
    shutil.copy(run / "last.ckpt", tmp_path / "last.ckpt")
    refused("compare", tmp_path / "last.ckpt", "--out", out, words="is a pickle (torch.save)")


def test_profiles_outside_of_their_range(run, out):
    profile = "bram28-kintex7-kc705b-undervolt"
    for command in (["train", "--out", out / "run"], ["evaluate", run], ["evaluate", run, "--out", out]):
        refused(
            *command, "--faults", f"{profile}@voltage_v=0.1", words="voltage_v = 0.1 lies beyond the measured range"
        )
        refused(*command, "--faults", f"{profile}@volt=0.55", words="volt")
        refused(*command, "--faults", "bram28@voltage_v=0.55", words="no profile of the library is named 'bram28'")


def test_nothing_is_measured_before_all_of_it_is_known_to_fit(run):
    fits = "bram28-kintex7-kc705b-undervolt@voltage_v=0.55"
    done = hwfault("evaluate", run, "--faults", fits, "--faults", fits.replace("0.55", "0.1"), "--seeds", "0-1")
    assert done.code == 2
    assert "voltage_v = 0.1 lies beyond" in done.stderr
    assert "evaluating" not in done.stderr


def test_a_network_that_cannot_be_exported(run, out, tmp_path, monkeypatch, capfd):
    monkeypatch.syspath_prepend(tmp_path)
    code = "import torch\nfrom hwfault.train.networks import digits_cnn\ndef network(**given):\n"
    code += "    network = digits_cnn(**given)\n"
    code += "    network.register_forward_hook(lambda _network, _inputs, out: torch.special.bessel_j0(out))\n"
    code += "    return network\n"
    (tmp_path / "of_bessel.py").write_text(code)
    exported = ("export", run, "--network", "of_bessel:network", "--json", "--out", out / "graph.onnx")
    refused(*exported, words="ONNX of opset 17 has nothing for the operator 'aten::special_bessel_j0'")
    assert capfd.readouterr() == ("", "")  # PyTorch's C++ prints past Python
