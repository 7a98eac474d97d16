"""Fitting profiles: the measured devices' facts, what is recovered from synthetic ones, and refusals."""

import numpy as np
import pytest
import yaml

from hwfault.devices.dumps import Measurement, load_dump
from hwfault.devices.fit import fit
from hwfault.devices.fit_report import as_data, summary
from hwfault.devices.synthetic import draw_device, drawn_statistics, memory_rows
from hwfault.errors import FileError, ModelError
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import BlockColumn, Independent
from hwfault.profiles.write import write_profile
from hwfault.report.map_picture import draw_map_overview
from hwfault.stream.fault_map import FaultMap, Kind
from tests.helpers.profiles.kc705 import PATTERN, RATE, drawn, measured


def measurement(cells, kind=Kind.STUCK_AT_0, source="dump", held=(None, None), **at):
    """A measurement of cells (blocks, rows, bits)."""
    flat = cells.reshape(-1, cells.shape[-1])
    word, bit = np.nonzero(flat)
    kinds = np.full(len(word), kind) if isinstance(kind, int) else kind(len(word))
    fault_map = FaultMap.from_cells(len(flat), flat.shape[1], word, bit, kinds)
    held_1, held_0 = (flat.size if h is None else h for h in held)
    return Measurement(fault_map, flat.shape[1], cells.shape[1], held_1, held_0, len(word), flat.size, source, dict(at))


def scattered(rate, seed=0, shape=(500, 64, 8)):
    return np.random.default_rng(seed).random(shape) < rate


@pytest.fixture(scope="module")
def kc705():
    """The fit of both measured dumps."""
    points = ("0.53", "0.56")
    return fit([load_dump(measured(v), at={"voltage_v": float(v)}) for v in points], name="kc705")


def test_facts_of_the_measured_device(kc705):
    blocks, columns = kc705.blocks, kc705.columns
    assert [sum(m.by_kind()) for m in kc705.measurements] == [31, 1137]
    assert [m.listed for m in kc705.measurements] == [62, 2274]
    assert (blocks.faulty, len(blocks.counts), blocks.counts.max()) == (250, 890, 61)
    assert blocks.mean == pytest.approx(1.278, abs=5e-4)
    assert blocks.variance == pytest.approx(21.8, abs=0.05)
    assert blocks.dispersion == pytest.approx(0.0795, abs=5e-5)
    assert blocks.share_of_top(0.1) == pytest.approx(0.817, abs=5e-4)
    assert blocks.share_of_top(0.05) == pytest.approx(0.66, abs=0.01)
    assert (columns.period, columns.clustered, columns.least) == (2, 51, 5)
    assert columns.share == pytest.approx(0.638, abs=5e-4)
    assert kc705.bits.counts.tolist() == [144, 116, 168, 123, 213, 76, 149, 148]


def test_conclusions_about_the_measured_device(kc705):
    (persisting,) = kc705.persisting
    assert (persisting.faults, persisting.again) == (31, 31)
    assert kc705.independence.p < 1e-300
    assert not kc705.independent
    assert kc705.bits.naive.statistic == pytest.approx(79, abs=0.5)
    assert kc705.bits.naive.p < 1e-10
    assert not kc705.bits.differ
    profile = kc705.profile
    assert (profile.effect.stuck_at_0, profile.persistence.kind, profile.bit_weights) == (1.0, "permanent", None)
    assert profile.resolve_rate({"voltage_v": 0.53}).cells == 1137 / 7_290_880
    assert profile.resolve_rate({"voltage_v": 0.56}).cells == 31 / 7_290_880
    assert isinstance(profile.spatial, BlockColumn)


def test_devices_drawn_from_the_measured_one_are_like_it(kc705):
    rows = as_data(kc705, drawn_statistics(kc705, 200))["drawn"]
    assert [row["statistic"] for row in rows if not row["inside"]] == []
    for row in rows:
        assert abs(row["mean"] / row["measured"] - 1) < 0.12


@pytest.fixture(scope="module")
def synthetic():
    """The fit of a drawn device at two points."""
    harsh, mild = (next(drawn(1, p, first=5)) for p in (RATE, RATE / 20))
    held = {"held": (None, 0)}
    return fit(
        [measurement(harsh, **held, source="a", voltage_v=0.5), measurement(mild, **held, source="b", voltage_v=0.6)],
        name="drawn",
    )


def test_a_drawn_device_gives_its_own_statistics_back(synthetic):
    spatial = synthetic.profile.spatial
    assert (spatial.column_period, spatial.block_rows, spatial.row_bits) == (2, 1024, 8)
    assert spatial.block_share == pytest.approx(PATTERN.block_share, rel=0.2)
    assert spatial.dispersion == pytest.approx(PATTERN.dispersion, rel=0.5)
    assert spatial.column_share == pytest.approx(PATTERN.column_share, abs=0.15)
    assert spatial.lone_share == pytest.approx(PATTERN.lone_share, abs=0.05)
    assert synthetic.persisting[0].again == synthetic.persisting[0].faults > 0
    assert [dict(p.at) for p in synthetic.profile.rate.points] == [{"voltage_v": 0.6}, {"voltage_v": 0.5}]
    assert not synthetic.independent


def test_the_profile_survives_its_file(synthetic, tmp_path):
    write_profile(tmp_path / "p.yaml", synthetic.profile)
    assert Profile.load(tmp_path / "p.yaml") == synthetic.profile
    text = yaml.safe_load((tmp_path / "p.yaml").read_text())
    assert text["rate"]["points"][0]["n_faults"] == synthetic.persisting[0].faults
    assert text["rate"]["axes"] == [{"name": "voltage_v", "unit": "V"}]


def test_the_summary_says_what_matters(synthetic):
    told = "\n".join(summary(synthetic, drawn_statistics(synthetic, 20)))
    for words in ("REJECTED", "persistence: permanent", "a 0 reads 1 could not be seen", "bit weights: none", "drawn"):
        assert words in told


def test_independent_cells_are_taken_for_independent():
    found = fit([measurement(scattered(0.002))], name="even")
    assert found.independent
    assert isinstance(found.profile.spatial, Independent)
    assert found.columns.period == 1
    assert found.profile.persistence.source == "assumed"
    assert "would explain" in "\n".join(summary(found))


def test_the_test_for_independence_keeps_its_level():
    p = [fit([measurement(scattered(0.002, seed))], name="even").independence.p for seed in range(200)]
    assert 0 < sum(x < 0.05 for x in p) < 25


def test_blocks_alone_are_told_from_columns():
    rates = np.random.default_rng(1).gamma(0.5, 0.01, (500, 1, 1))
    found = fit([measurement(np.random.default_rng(2).random((500, 64, 8)) < rates)], name="blocks")
    assert not found.independent
    assert found.profile.spatial.lone_share is None


def test_weights_of_bit_positions():
    weights = np.array([1, 1, 1, 1, 1, 1, 1, 3])
    found = fit([measurement(np.random.default_rng(3).random((500, 64, 8)) < 0.002 * weights)], name="bits")
    assert found.bits.differ
    assert np.argmax(found.profile.bit_weights) == 7
    assert found.profile.bit_weights[7] / np.mean(found.profile.bit_weights[:7]) == pytest.approx(3, rel=0.25)


def test_asymmetry_counts_each_polarity_among_the_cells_that_could_show_it():
    cells = scattered(0.002)
    half = cells.size // 2
    n = int(cells.sum())
    kinds = lambda k: np.where(np.arange(k) < k // 4, Kind.STUCK_AT_1, Kind.STUCK_AT_0)  # noqa: E731
    found = fit([measurement(cells, kinds, held=(half, half))], name="pair")
    assert found.profile.effect.stuck_at_1 == pytest.approx(0.25, abs=0.005)
    assert found.profile.resolve_rate({}).cells == pytest.approx(n / half, rel=1e-4)
    uneven = fit([measurement(cells, kinds, held=(cells.size - half // 2, half // 2))], name="pair")
    at_0, at_1 = (n - n // 4) / (cells.size - half // 2), n // 4 / (half // 2)
    assert uneven.profile.effect.stuck_at_1 == pytest.approx(at_1 / (at_0 + at_1), abs=1e-5)
    assert uneven.profile.resolve_rate({}).cells == pytest.approx(at_0 + at_1, rel=1e-4)


def test_faults_that_come_and_go_are_intermittent():
    weak, random = scattered(0.004), np.random.default_rng(5)
    dumps = [measurement(weak & (random.random(weak.shape) < 0.6), source=f"{i}", voltage_v=0.5) for i in range(4)]
    found = fit(dumps, name="flicker")
    assert found.profile.persistence.kind == "intermittent"
    assert found.profile.persistence.p_active == pytest.approx(0.6, abs=0.06)
    (point,) = found.profile.rate.points
    assert (point.n_bits, point.n_faults) == (4 * weak.size, sum(len(m.faults()[0]) for m in dumps))


def test_a_dump_without_faults_gives_a_bound():
    found = fit([measurement(scattered(0.0))], name="none")
    rate = found.profile.resolve_rate({})
    assert rate.upper_bound
    assert rate.value == 3 / (500 * 64 * 8)
    assert "at most" in "\n".join(summary(found))


def test_several_axes():
    points = [(v, t) for v in (0.5, 0.6) for t in (25, 85)]
    dumps = [measurement(scattered(0.001 * (1 + i)), voltage_v=v, temperature_c=t) for i, (v, t) in enumerate(points)]
    found = fit(dumps, name="two-axes")
    assert found.profile.resolve_rate({"voltage_v": 0.6, "temperature_c": 85}).cells == pytest.approx(0.004, rel=0.1)


def test_points_are_the_same_in_whatever_order_their_axes_are_named():
    one = measurement(scattered(0.01, seed=1), voltage_v=0.5, temperature_c=25.0)
    other = measurement(scattered(0.012, seed=2), temperature_c=25.0, voltage_v=0.5)
    found = fit([one, other], name="repeated")
    (point,) = found.profile.rate.points
    assert point.n_faults == sum(one.by_kind()) + sum(other.by_kind())
    assert found.profile.rate.names == ("voltage_v", "temperature_c")


def test_drawn_devices_have_the_profiles_size_and_say_where_they_come_from(synthetic):
    device = draw_device(synthetic.profile, {"voltage_v": 0.5}, device=8)
    assert device.words * device.bit_width == 890 * 1024 * 8
    assert {"profile": "drawn", "device": "8", "operating_point": "voltage_v=0.5"}.items() <= device.provenance.items()
    few = draw_device(synthetic.profile, {"voltage_v": 0.5}, device=8, rows=memory_rows(synthetic.profile, None, 3))
    assert few.words == 3 * 1024
    array = draw_device(Profile.load("stuck-mac-array"), {"pe_fraction": 0.1}, device=1, row_bits=24)
    assert (array.bit_width, array.words) == (24, 256)


def test_pictures(synthetic, tmp_path):
    worst = synthetic.harshest
    draw_map_overview(tmp_path / "map.png", worst.map, worst.row_bits, worst.block_rows, title="a drawn device")
    assert (tmp_path / "map.png").stat().st_size > 20_000
    empty = measurement(scattered(0.0))
    draw_map_overview(tmp_path / "empty.svg", empty.map, 8, 64)
    with pytest.raises(FileError, match="cannot be written"):
        draw_map_overview(tmp_path / "no" / "map.png", worst.map, 8, 1024)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fit([], name="x"), "no dump was given"),
        (
            lambda: fit([measurement(scattered(0.1)), measurement(scattered(0.1, shape=(4, 64, 8)))], name="x"),
            "expected dumps of one memory",
        ),
        (
            lambda: fit([measurement(scattered(0.1), v=1.0), measurement(scattered(0.1), t=1.0)], name="x"),
            "expected a value on the same axes for each",
        ),
        (lambda: fit([measurement(scattered(0.1))] * 2, name="x"), "at no operating point"),
        (lambda: draw_device(Profile.load("uniform-flips"), {"ber": 0.1}, device=0), "its faults are transient"),
        (lambda: draw_device(Profile.load("stuck-mac-array"), {"pe_fraction": 0.1}, device=0), "give --row-bits"),
        (lambda: memory_rows(Profile.load("stuck-mac-array"), 3, None), None),
        (lambda: memory_rows(Profile.load("stuck-mac-array"), None, 3), "has no blocks"),
        (lambda: memory_rows(Profile.load("stuck-mac-array"), 3, 3), "both given"),
    ],
)
def test_refusals(make, words):
    if words is None:
        assert make() == 3
        return
    with pytest.raises(ModelError) as refused:
        make()
    assert words in str(refused.value)
