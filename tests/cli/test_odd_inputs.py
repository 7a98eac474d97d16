"""Odd things that users type and files hold: each is one sentence, and none advises what does not help."""

import json

import numpy as np
import pytest
import torch

from hwfault.errors import FileError, HwfaultError, ModelError
from hwfault.files import check_picture
from hwfault.laws.models import bit_errors
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from hwfault.train.float_weights import load_float
from hwfault.train.networks import build
from tests.cli.conftest import hwfault, refused

PROFILE = "bram28-kintex7-kc705b-undervolt@voltage_v=0.53"


@pytest.mark.parametrize("name", ["x.txt", "noext", "x.onnx", "x.png.bak", ".png"])
def test_suffixes_of_pictures(tmp_path, name):
    dump = tmp_path / "d.csv"
    dump.write_text("# rows=64 row_bits=8\naddress,bit,kind\n3,1,stuck_at_0\n")
    words = "expected a name that ends in .png, .svg or .pdf"
    refused("profiles", "plot", PROFILE, "--out", tmp_path / name, words=words)
    refused("profiles", "fit", dump, "-o", tmp_path / "p.yaml", "--plot", tmp_path / name, words=words)
    refused("profiles", "draw", PROFILE, "--rows", 8, "-o", tmp_path / "m.safetensors", "--plot", name, words=words)
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]
    with pytest.raises(FileError, match="expected a name that ends in"):
        check_picture(name)


@pytest.mark.parametrize(
    "settings",
    [
        ("network_args.hidden=[1000000000]",),
        ("network_args.hidden=[100000, 100000]",),
        ("network_args.size=60000", "network_args.hidden=[64]"),
    ],
)
def test_networks_larger_than_memory(out, settings):
    given = [part for setting in settings for part in ("--set", setting)]
    words = ["network 'mlp'", "weights, expected at most 268435456"]
    refused("train", "--network", "mlp", *given, "--out", out / "run", words=words)


@pytest.mark.parametrize("name", ["tiny_cnn", "cnv", "resnet20", "mobilenet_v1"])
@pytest.mark.parametrize("key", ["classes", "channels"])
def test_more_classes_and_channels_than_any_data_has(name, key):
    with pytest.raises(ModelError, match=f"{key}: .*less than or equal to 65536"):
        build(name, **{key: 10**9})


def test_allocations_that_fail(monkeypatch):
    def fails(**_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory\nmore")

    monkeypatch.setitem(build.__globals__["NETWORKS"], "digits_cnn", fails)
    with pytest.raises(HwfaultError, match=r"cannot be made with \{\} \(.*can't allocate memory\); ask for less"):
        build("digits_cnn")


@pytest.mark.parametrize("number", ["1:30", "0b11", "1_0", "0o7", "yes"])
def test_numbers_of_yaml_1_1_are_no_counts(out, number):
    done = hwfault("train", "--set", f"network_args.bits={number}", "--out", out / "run", "--network", "nobody")
    assert done.code == 2
    config = out.parent / "c.yaml"
    config.write_text(f"epochs: {number}\n")
    if number != "0o7":
        refused("train", "--config", config, "--out", out / "run", words="epochs")


def test_memories_larger_than_any(tmp_path):
    dump = tmp_path / "d.csv"
    dump.write_text("address,bit,kind\n3,1,stuck_at_0\n")
    size = ("--rows", 9 * 10**18, "--row-bits", 8)
    refused("profiles", "fit", dump, "-o", tmp_path / "p.yaml", *size, words="expected 1 to 68719476736 cells")
    draw = ("profiles", "draw", PROFILE, "-o", tmp_path / "m.safetensors", "--row-bits", 8, "--rows")
    refused(*draw, 9 * 10**18, words="at most 2^36 cells in all")
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]


def test_pickles_are_not_advised(tmp_path):
    torch.save({"a": torch.nn.Linear(1, 1)}, tmp_path / "w.pt")
    with pytest.raises(FileError, match="torch refuses it") as caught:
        load_float(build("tiny_cnn"), tmp_path / "w.pt")
    np.save(tmp_path / "x.npy", np.array([{}], object))
    done = hwfault("run", tmp_path / "none.onnx", "--input", tmp_path / "x.npy")
    for text in (str(caught.value), done.stderr):
        assert "weights_only" not in text
        assert "allow_pickle" not in text


def _with(change):
    site = Site(name="a", kind="weight", bit_width=4, signed=True, shape=(10,))
    data = json.loads(resolve([site], bit_errors(0.01)).to_json())
    change(data)
    return json.dumps(data)


PARTS = {
    "tables": lambda data: data.update(tables=[["x"] * 200_000]),
    "sites": lambda data: data.update(sites=[0] * 200_000),
    "faults": lambda data: data.update(faults=[0] * 200_000),
    "processes": lambda data: data["sites"][0].update(processes=[{}] * 200_000),
}


@pytest.mark.parametrize("part", PARTS)
def test_plans_with_many_mistakes_tell_the_first(part):
    """Not a list of all, which takes minutes and gigabytes."""
    with pytest.raises(HwfaultError) as caught:
        FaultPlan.from_json(_with(PARTS[part]))
    assert len(str(caught.value).splitlines()) == 1
    assert f"{part}.0" in str(caught.value)


def test_time_outs_that_are_none(tmp_path):
    for value in ("nan", "inf", "1e300"):
        done = hwfault("replay", tmp_path, "--runner-command", "true", "--runner-timeout", value)
        assert done.code == 2, (value, done.stderr)
