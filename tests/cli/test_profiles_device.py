"""`hwfault profiles fit` and `draw`, end to end, on dumps that the tests write."""

import pytest
import yaml

from hwfault.cli.profiles_device import _FORMATS
from hwfault.devices.device import places
from hwfault.devices.dumps import FORMATS
from hwfault.stream.fault_map import FaultMap
from tests.cli.conftest import files, good, refused
from tests.helpers.profiles.kc705 import RATE, drawn, hex_dump, measured


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """Dumps of a drawn device at two voltages, in the study's format."""
    folder = tmp_path_factory.mktemp("dumps")
    for voltage, rate in (("0.53", RATE), ("0.56", RATE / 30)):
        (folder / f"{voltage}.bin").write_bytes(hex_dump(next(drawn(1, rate, first=3))))
    return [f"{folder / v}.bin@voltage_v={v}" for v in ("0.53", "0.56")]


@pytest.fixture(scope="module")
def fitted(dumps, tmp_path_factory):
    """The outcome of fitting them, and the folder of what was written."""
    out = tmp_path_factory.mktemp("fit")
    made = ["-o", out / "mine.yaml", "--plot", out / "map.png", "--save-map", out / "map.safetensors"]
    return good("profiles", "fit", *dumps, *made, "--devices", 10), out


def test_fit_writes_a_profile_a_map_and_a_picture(fitted):
    done, out = fitted
    assert {str(path) for path in files(out)} == {"mine.yaml", "map.png", "map.safetensors"}
    assert "independent cells are REJECTED" in done.stdout
    assert "as well (100.0%)" in done.stdout
    profile = yaml.safe_load((out / "mine.yaml").read_text())
    assert (profile["name"], profile["spatial"]["kind"]) == ("mine", "block_column")
    fault_map = FaultMap.load(out / "map.safetensors")
    assert len(places(fault_map, 8)[0]) == profile["rate"]["points"][1]["n_faults"]
    assert good("profiles", "check", out / "mine.yaml").stdout


def test_fit_prints_json(dumps, tmp_path):
    data = good("profiles", "fit", *dumps, "-o", tmp_path / "p.yaml", "--devices", 5, "--json").json
    assert data["dumps"][1]["listed"] == 2 * data["dumps"][1]["faults"]
    assert data["persisting"][0]["again"] == data["persisting"][0]["faults"]
    assert not data["independence"]["independent"]
    assert len(data["drawn"]) == 8


def test_fit_of_a_table(tmp_path):
    (tmp_path / "cells.csv").write_text("address,bit,kind\n1,2,stuck_at_1\n5,0,stuck_at_0\n")
    size = ["--rows", 64, "--row-bits", 8, "--block-rows", 16]
    done = good("profiles", "fit", tmp_path / "cells.csv", *size, "-o", tmp_path / "my profile.yaml", "--title", "Mine")
    assert "2 faulty cells of 512" in done.stdout
    profile = yaml.safe_load((tmp_path / "my profile.yaml").read_text())
    assert (profile["name"], profile["title"]) == ("my-profile", "Mine")
    assert profile["effect"]["stuck_at_0"] == profile["effect"]["stuck_at_1"] == 0.5


def test_draw_from_the_fitted_profile(fitted, tmp_path):
    profile = f"{fitted[1] / 'mine.yaml'}@voltage_v=0.53"
    out, plot = tmp_path / "d.safetensors", tmp_path / "d.png"
    told = good("profiles", "draw", profile, "--device", 4, "-o", out, "--plot", plot, "--json").json
    fault_map = FaultMap.load(out)
    assert told["faults"] == len(places(fault_map, 8)[0])
    assert told["cells"] == fault_map.words * 8 == 890 * 1024 * 8
    assert told["provenance"]["device"] == "4"
    assert plot.stat().st_size > 20_000


def test_draw_is_nested_and_takes_blocks(fitted, tmp_path):
    cells = []
    for voltage in ("0.53", "0.545"):
        profile, out = f"{fitted[1] / 'mine.yaml'}@voltage_v={voltage}", tmp_path / f"{voltage}.safetensors"
        done = good("profiles", "draw", profile, "--blocks", 100, "-o", out)
        assert "in 102,400 rows" in done.stdout
        cells.append(set(zip(*(x.tolist() for x in places(FaultMap.load(out), 8)), strict=True)))
    assert cells[1] < cells[0]


def test_the_measured_dumps(tmp_path):
    dumps = [f"{measured(v)}@voltage_v={v}" for v in ("0.53", "0.56")]
    data = good("profiles", "fit", *dumps, "-o", tmp_path / "p.yaml", "--json").json
    assert [d["listed"] for d in data["dumps"]] == [62, 2274]
    assert all(row["inside"] for row in data["drawn"])
    assert {"again": 31, "faults": 31}.items() <= data["persisting"][0].items()


def test_the_formats_are_those_of_the_loaders():
    assert _FORMATS == FORMATS


def test_refusals_write_nothing(out, tmp_path, dumps):
    bad = tmp_path / "bad.bin"
    bad.write_bytes(b"FF\nFX" * 100)
    refused("profiles", "fit", bad, "-o", out / "p.yaml", words="line 2, column 2: 'X', expected a hexadecimal digit")
    refused("profiles", "fit", dumps[0], tmp_path / "none", "-o", out / "p.yaml", words="cannot be read")
    refused("profiles", "fit", *(d.split("@")[0] for d in dumps), "-o", out / "p.yaml", words="no operating point")
    refused("profiles", "draw", "uniform-flips@ber=0.1", "-o", out / "d.safetensors", words="are transient")
    refused("profiles", "draw", "nothing", "-o", out / "d.safetensors", words="no profile of the library")
    refused("profiles", "fit", "-o", out / "p.yaml", words="Missing argument", code=2)


def test_an_output_that_cannot_be_written(dumps, tmp_path):
    refused("profiles", "fit", dumps[0], "-o", tmp_path / "no" / "p.yaml", words="cannot be written")
