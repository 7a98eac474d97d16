"""The library: each profile's numbers, how it is named, where it is found, and the page that documents its keys."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from pydantic import BaseModel

import hwfault
from hwfault.devices.draw import draw_map
from hwfault.errors import ModelError
from hwfault.profiles.library import folder, library, parse_operating_point
from hwfault.profiles.profile import Profile
from tests.helpers.profiles.kc705 import cluster_statistics

FREE = {
    "uniform-flips": {"ber": 0.01},
    "asymmetric": {"p01": 0.01, "p10": 0.02},
    "mcu": {"event_probability": 0.01},
    "stuck-mac-array": {"pe_fraction": 0.01},
}
MEASURED = {
    "bram28-kintex7-kc705b-undervolt",
    "bram28-virtex7-vc707-undervolt",
    "ddr3l-retention-1v35",
    "ddr3l-retention-70c-1v35",
    "sram14-ibm-7points",
    "sram65-lowvdd-sun2017",
}
NOT_MEASURED = {"seu-sram-iec61508-ref", "systolic-ws-256x256-stuckat"}


def test_the_library():
    assert set(library()) == FREE.keys() | MEASURED | NOT_MEASURED
    assert list(library()) == sorted(library())


@pytest.mark.parametrize("name", library())
def test_each_profile(name):
    p = Profile.load(name)
    assert p.name == name
    assert bool(p.rate.free) == (name in FREE)
    assert p.measured == (name in MEASURED)
    for point in p.rate.points:
        rate = p.resolve_rate(point.at)
        assert (rate.value, rate.region) == (p.rate.drawn(point), "measured")
        assert not rate.upper_bound
    assert Profile.parse(p.model_dump(mode="json"), "json") == p
    if name in FREE:
        assert p.resolve_rate(FREE[name]).value == pytest.approx(sum(FREE[name].values()))


def test_digests_differ():
    assert len({Profile.load(name).digest for name in library()}) == len(library())


def at(name, **point):
    return Profile.load(name).resolve_rate(point)


def test_vc707():
    counts = {0.60: 4, 0.59: 24, 0.58: 146, 0.57: 772, 0.56: 2732, 0.55: 7520, 0.54: 23706}
    for voltage, n in counts.items():
        assert at("bram28-virtex7-vc707-undervolt", voltage_v=voltage).stuck_at_0 == n / 33751040
    assert at("bram28-virtex7-vc707-undervolt", voltage_v=0.61).value == 0
    with pytest.raises(ModelError, match=r"0.54 to 0.6 V.*crashes below 0.54 V"):
        at("bram28-virtex7-vc707-undervolt", voltage_v=0.53)


def test_the_kc705_pattern():
    p = Profile.load("bram28-kintex7-kc705b-undervolt")
    s = p.spatial
    assert (s.kind, s.block_rows, s.row_bits, s.column_period, s.min_per_column) == ("block_column", 1024, 16, 2, 5)
    assert (s.block_share, s.dispersion, s.column_share) == (0.281, 0.0795, 0.638)
    assert s.at_rate == at(p.name, voltage_v=0.53).value
    assert p.rate.points[0].n_bits == 890 * s.block_rows * s.row_bits
    assert p.mapping.row_bits == 16


def test_devices_drawn_from_the_kc705_profile():
    p = Profile.load("bram28-kintex7-kc705b-undervolt")
    cells, found = at(p.name, voltage_v=0.53).cells, []
    for device in range(20):
        size = {"rows": 890 * 1024, "row_bits": 16, "shares": (0, 1, 0)}
        word, bit, _ = draw_map(p.spatial, cells, device=device, name="bram", **size).cells()
        faulty = np.zeros((890 * 1024, 16), bool)
        faulty[word, bit] = True
        found.append(cluster_statistics(faulty.reshape(890, 1024, 16)))
    mean = {key: np.mean([statistics[key] for statistics in found]) for key in found[0]}
    spread = {key: np.std([statistics[key] for statistics in found]) for key in found[0]}
    measured = {"faults": 2274, "block_share": 0.281, "top_10_percent": 0.817, "column_share": 0.638}
    for key, value in measured.items():  # one real device among many drawn ones
        assert abs(mean[key] - value) < 2 * spread[key], key
        assert spread[key] < 0.15 * value, key


def test_ddr3l():
    # flips of a module, the mean over 28 modules at 70 C and over 31 at 20 C, whatever number of rows each has
    rates = {512: 1.91e-11, 1024: 4.81e-9, 1536: 4.87e-8, 2048: 1.97e-7}
    means = {512: 0.3274, 1024: 82.69, 1536: 836.3, 2048: 3388}
    for refresh, rate in rates.items():
        one = at("ddr3l-retention-70c-1v35", refresh_interval_ms=refresh)
        two = at("ddr3l-retention-1v35", refresh_interval_ms=refresh, temperature_c=70)
        assert one.value == two.value == rate == pytest.approx(means[refresh] / 2**34, rel=5e-3)
    cold_rates = {512: 3.67e-13, 1024: 1.05e-10, 1536: 8.62e-10, 2048: 2.87e-9}
    cold_means = {512: 0.0063, 1024: 1.810, 1536: 14.82, 2048: 49.38}
    for refresh, rate in cold_rates.items():
        cold = at("ddr3l-retention-1v35", refresh_interval_ms=refresh, temperature_c=20)
        assert cold.value == rate == pytest.approx(cold_means[refresh] / 2**34, rel=5e-3)
    for refresh in (64, 256):
        assert at("ddr3l-retention-70c-1v35", refresh_interval_ms=refresh).value == 0
    with pytest.raises(ModelError, match="beyond the measured range, 512 to 2048 ms"):
        at("ddr3l-retention-70c-1v35", refresh_interval_ms=4096)


def test_seu():
    for hours in (0, 0.5, 1, 24):
        assert at("seu-sram-iec61508-ref", exposure_h=hours).value == pytest.approx(hours * 950e-9 / 2**20, rel=1e-14)
    assert at("seu-sram-iec61508-ref", exposure_h=1).value == pytest.approx(9.06e-13, rel=1e-3)
    for name in ("seu-sram-iec61508-ref", "mcu"):
        sizes = Profile.load(name).spatial.sizes
        assert sizes == pytest.approx([n / 84 for n in (65, 10, 6, 3)], abs=1e-9)
        assert sum((i + 1) * p for i, p in enumerate(sizes)) == pytest.approx(115 / 84, abs=1e-9)


def test_sram14():
    rates = (0.01212883, 0.00397706, 0.001214473, 0.00015521, 0.000126225, 4.06934e-05, 1.3119e-05)
    for i, rate in enumerate(rates):
        assert at("sram14-ibm-7points", operating_point=i).value == rate
    with pytest.raises(ModelError, match=r"operating_point = 2.5 is not among the points"):
        at("sram14-ibm-7points", operating_point=2.5)
    p = Profile.load("sram14-ibm-7points")
    assert (p.mapping.rows, p.mapping.row_bits, p.mapping.tile) == (8192, 128, "repeat")


def test_sram65():
    assert [at("sram65-lowvdd-sun2017", voltage_v=v).value for v in (0.55, 0.5)] == [0.0023, 0.0156]


@pytest.mark.parametrize("name", ["systolic-ws-256x256-stuckat", "stuck-mac-array"])
def test_arrays_take_the_fraction_as_it_is(name):
    for fraction in (0, 0.00006, 0.25, 0.5):
        assert at(name, pe_fraction=fraction).value == pytest.approx(fraction, rel=1e-15)


def test_which_profiles_are_strict():
    def strict(name):
        p = Profile.load(name)
        point = FREE.get(name) or p.rate.points[-1].at
        try:
            p.resolve_rate(point, strict_sources=True)
        except ModelError:
            return False
        return True

    backed = {"bram28-kintex7-kc705b-undervolt", "sram14-ibm-7points", "seu-sram-iec61508-ref"}
    assert {name for name in library() if strict(name)} == backed


def test_an_unknown_name():
    words = r"no profile of the library is named 'bram28-kintex7': did you mean 'bram28-kintex7-kc705b-undervolt'\?"
    with pytest.raises(ModelError, match=words + r" A profile of your own is named by its path \(./mine.yaml\)"):
        Profile.load("bram28-kintex7")


@pytest.mark.parametrize(
    ("text", "name", "point"),
    [
        ("a", "a", {}),
        ("a@v=0.5", "a", {"v": 0.5}),
        ("a@v=0.5, t=-70", "a", {"v": 0.5, "t": -70.0}),
        ("a@v=1e-3", "a", {"v": 0.001}),
        ("/home/me@work/p.yaml", "/home/me@work/p.yaml", {}),
        ("/home/me@work/p.yaml@v=1", "/home/me@work/p.yaml", {"v": 1.0}),
    ],
)
def test_operating_points(text, name, point):
    assert parse_operating_point(text) == (name, point)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a@", "'a@' is not an operating point, expected NAME@axis=value,axis=value"),
        ("a@v", "is not an operating point"),
        ("a@v=", "is not an operating point"),
        ("a@=1", "is not an operating point"),
        ("@v=1", "is not an operating point"),
        ("a@v=1,", "is not an operating point"),
        ("a@v=1V", "is not an operating point"),
        ("a@v=nan", "'a@v=nan': nan is not a finite number"),
        ("a@v=inf", "inf is not a finite number"),
        ("a@v=1,v=1", "'a@v=1,v=1': v is given twice"),
    ],
)
def test_what_is_no_operating_point(text, words):
    with pytest.raises(ModelError, match=words):
        parse_operating_point(text)


def elsewhere(package, code):
    """Runs code with hwfault imported from another place, also where an editable installation would find its own."""
    alone = f"import sys; sys.meta_path[:] = sys.meta_path[-3:]\n{code}"
    return subprocess.run(
        [sys.executable, "-c", alone], capture_output=True, text=True, cwd=package, env={"PYTHONPATH": str(package)}
    )


def copy_package(to):
    ignore = shutil.ignore_patterns("_native", "_fault_models", "__pycache__")
    shutil.copytree(Path(hwfault.__file__).parent, to / "hwfault", ignore=ignore)


def test_an_installed_package_holds_its_library(tmp_path):
    copy_package(tmp_path)
    shutil.copytree(folder(), tmp_path / "hwfault/_fault_models")
    done = elsewhere(tmp_path, "from hwfault.profiles.library import *; print(folder(), *library())")
    assert done.stdout.split() == [str(tmp_path / "hwfault/_fault_models"), *library()], done.stderr


def test_a_package_without_its_library(tmp_path):
    copy_package(tmp_path)
    (tmp_path / "fault_models").mkdir()  # of someone else
    done = elsewhere(tmp_path, "from hwfault.profiles.library import library; library()")
    assert f"FileError: hwfault was imported from {tmp_path}/hwfault, where the library of fault" in done.stderr


SCHEMA = (folder() / "SCHEMA.md").read_text(encoding="utf-8")


def records(record):
    """A record and all records that its fields hold."""
    found = {record}
    for field in record.model_fields.values():
        waiting = [field.annotation]
        while waiting:
            part = waiting.pop()
            waiting.extend(get_args(part))
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in found:
                found |= records(part)
    return found


def test_the_page_names_every_key():
    every = records(Profile)
    assert len(every) >= 18
    missing = {f"{r.__name__}.{key}" for r in every for key in r.model_fields if f"`{key}`" not in SCHEMA}
    assert not missing


def test_the_page_names_every_choice():
    choices = set()
    for record in records(Profile):
        for field in record.model_fields.values():
            waiting = [field.annotation]
            while waiting:
                part = waiting.pop()
                waiting.extend(get_args(part))
                choices |= {part} if isinstance(part, str) else set()
    assert {"derived", "events", "msb_first", "due", "power_cycle"} <= choices
    assert not {choice for choice in choices if f"`{choice}`" not in SCHEMA}


def test_the_page_s_example_is_a_profile():
    example = re.search(r"```yaml\n(.*?)```", SCHEMA, re.DOTALL)
    p = Profile.parse(yaml.safe_load(example[1]), "SCHEMA.md")
    assert p.resolve_rate({"voltage_v": 0.65, "temperature_c": 25}).upper_bound
    assert set(yaml.safe_load(example[1])) == set(Profile.model_fields)


def test_every_file_says_where_the_keys_are():
    for name in library():
        assert "SCHEMA.md" in (folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
