"""Pictures of profiles: what they draw, seen in matplotlib's own objects, and that files come out of it."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN, CARETDOWNBASE

from hwfault.errors import FileError
from hwfault.profiles.curve import point_interval
from hwfault.profiles.library import library
from hwfault.profiles.profile import Profile
from hwfault.report.map_pictures import memory_size
from hwfault.report.profile_pictures import (
    block_counts,
    draw_blocks,
    draw_curve,
    draw_map_picture,
    draw_profile,
    element_panel,
    map_panels,
)
from hwfault.stream.fault_map import FaultMap
from tests.helpers.profiles.profiles import curve, rates


@pytest.fixture
def axes():
    return Figure().add_subplot()


def memory(cells, *, words=4096, bits=16, kind=1):
    cells = np.asarray(cells, dtype=np.int64)
    return FaultMap.from_cells(words, bits, cells // bits, cells % bits, np.full(len(cells), kind))


def points(axes):
    """The markers of the axes, as (x, y)."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "o"]
    return {(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)}


def test_the_curve_goes_through_its_points(axes):
    p = Profile.load("bram28-kintex7-kc705b-undervolt")
    draw_curve(axes, p.rate, {"voltage_v": 0.545})
    expected = {(q.at["voltage_v"], q.measured) for q in p.rate.points}
    assert points(axes) == expected | {(0.545, p.resolve_rate({"voltage_v": 0.545}).value)}
    assert axes.get_yscale() == "log"
    low, high = axes.get_xlim()
    assert low < 0.53 < 0.60 < high
    assert {text.get_text() for text in axes.texts} == {"fail-free", "crashes"}
    drawn = max(axes.get_lines(), key=lambda line: len(line.get_xdata()))
    assert drawn.get_xdata()[-1] == np.nextafter(0.6, 0)
    assert drawn.get_ydata()[-1] == p.rate.points[0].measured
    bars = [segment for bar in axes.collections for segment in bar.get_segments()]
    low, high = point_interval(p.rate, p.rate.points[0])
    assert any(np.allclose(bar[:, 1], (low, high), rtol=1e-12) for bar in bars)


def test_what_was_not_seen_is_an_arrow(axes):
    draw_curve(axes, curve([(0.6, {"n_faults": 0, "n_bits": 1000}), (0.5, {"n_faults": 30, "n_bits": 1000})]).rate)
    assert points(axes) == {(0.5, 0.03)}
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["measured, 95 % interval", "none seen: at most 3/N"]
    arrows = [line for line in axes.get_lines() if line.get_marker() in (CARETDOWN, CARETDOWNBASE)]
    assert [float(line.get_xdata()[0]) for line in arrows] == [0.6]


def test_a_line_for_each_value_of_other_axes(axes):
    p = Profile.load("ddr3l-retention-1v35")
    draw_curve(axes, p.rate)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["temperature_c = 20", "temperature_c = 70"]
    assert axes.get_xlabel() == "refresh_interval_ms (ms)"


def test_no_line_between_labels(axes):
    draw_curve(axes, Profile.load("sram14-ibm-7points").rate)
    assert [len(line.get_xdata()) for line in axes.get_lines()] == [7]
    assert list(axes.get_xticks()) == list(range(7))


def test_linear_rates_on_a_linear_axis(axes):
    draw_curve(axes, rates([(0, 0.0), (1, 0.5)], interpolation="linear").rate)
    assert axes.get_yscale() == "linear"


def test_faulty_cells_lie_where_they_are(axes):
    m = FaultMap.from_cells(8, 8, [0, 3, 7], [1, 5, 0], [0, 1, 2])
    draw_map_picture(axes, m, row_bits=16)
    found = {c.get_label(): (c.get_offsets().tolist(), to_hex(c.get_facecolor()[0])) for c in axes.collections}
    assert found["flip"][0] == [[0, 1]]
    assert found["stuck at 0"][0] == [[1, 13]]
    assert found["stuck at 1"][0] == [[3, 8]]
    assert len({colour for _, colour in found.values()}) == 3
    assert axes.get_title(loc="left") == "3 of 64 cells faulty"


def test_one_block_of_a_memory(axes):
    draw_map_picture(axes, memory([5, 1024 * 16 + 17, 1024 * 16 + 40]), 16, 1024, 1)
    assert axes.collections[0].get_offsets().tolist() == [[1, 1], [2, 8]]
    assert axes.get_title(loc="left") == "block 1: 2 of 16,384 cells faulty"


def test_many_faults_become_a_density(axes):
    draw_map_picture(axes, memory(np.arange(0, 65536, 2)), row_bits=16)
    shares = axes.collections[0].get_array()
    assert shares.shape == (16, 256)
    assert set(shares.ravel().tolist()) == {0.0, 1.0}
    assert shares[::2].all()


def test_no_fault_at_all(axes):
    draw_map_picture(axes, memory([]), row_bits=16)
    assert [text.get_text() for text in axes.texts] == ["no fault"]


def test_blocks_are_counted(axes):
    m = memory([0, 1, 16383, 16384, 65535])
    counts = block_counts(m, 16, 1024)
    assert counts.tolist() == [3, 1, 0, 1]
    draw_blocks(axes, counts)
    shown = axes.images[0].get_array()
    assert shown.compressed().tolist() == [3, 1, 1]
    assert axes.get_title() == "5 faults in 3 of 4 blocks"


def test_the_worst_block_is_shown(axes):
    panels = map_panels(memory([0, 20000, 20001]), 16, 1024)
    assert len(panels) == 2
    panels[1](axes)
    assert axes.get_title(loc="left").startswith("block 1: 2 of")
    assert len(map_panels(memory([0]), 16, 4096)) == len(map_panels(memory([0]), 16)) == 1


def test_elements(axes):
    element_panel(FaultMap.from_cells(32, 24, [0, 9, 31], [3, 4, 5], [1, 1, 1]), 4, 8)(axes)
    assert axes.collections[0].get_offsets().tolist() == [[0, 0], [1, 1], [7, 3]]
    assert axes.get_title() == "3 of 32 processing elements faulty"


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_file(tmp_path, suffix):
    p = Profile.load("bram28-kintex7-kc705b-undervolt")
    path = tmp_path / f"p.{suffix}"
    draw_profile(path, p, at={"voltage_v": 0.53}, maps=map_panels(memory([0, 20000]), 16, 1024))
    start = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_panels_do_not_overlap(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: seen.append(self) or open(path, "wb").close())
    maps = map_panels(memory([0, 20000]), 16, 1024)
    draw_profile(tmp_path / "p.png", Profile.load("bram28-kintex7-kc705b-undervolt"), maps=maps)
    seen[0].draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in seen[0].axes]
    assert len(boxes) == 4  # the curve, the blocks and their colour bar, the cells
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        draw_profile(tmp_path / "none" / "p.png", Profile.load("sram14-ibm-7points"))


@pytest.mark.parametrize("name", library())
def test_how_large_a_memory_is_shown(name):
    p = Profile.load(name)
    point = p.rate.points[-1].at if p.rate.points else dict.fromkeys(p.rate.free, 0.1)
    rows, row_bits = memory_size(p, p.resolve_rate(point))
    expected = {
        "bram28-kintex7-kc705b-undervolt": (890 * 1024, 16),
        "bram28-virtex7-vc707-undervolt": (2060 * 1024, 16),
        "sram14-ibm-7points": (8192, 128),
        "sram65-lowvdd-sun2017": (8192, 128),
        "stuck-mac-array": (256, 32),
        "systolic-ws-256x256-stuckat": (65536, 32),
        "uniform-flips": (32768, 32),
        "asymmetric": (32768, 32),
        "mcu": (131072, 8),
    }
    assert (rows, row_bits) == expected.get(name, ((1 << 27) // row_bits, row_bits))
