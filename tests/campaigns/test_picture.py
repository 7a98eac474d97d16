import subprocess
import sys

import pytest

from hwfault.campaigns.picture import draw_accuracy, draw_losses
from hwfault.campaigns.trials import Trials
from hwfault.errors import FileError


def curve(*correct):
    rates = [0.0, 0.001, 0.03]
    return [
        Trials(seeds=(1, 2), correct=(c, c + 1), samples=10, ber=rate) for c, rate in zip(correct, rates, strict=True)
    ]


def test_a_picture(tmp_path):
    draw_accuracy(tmp_path / "accuracy.png", {"clean": curve(9, 8, 3), "faulty": curve(9, 9, 8)}, title="t")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["accuracy.png"]


def test_no_positive_rate_at_all(tmp_path):
    draw_accuracy(tmp_path / "accuracy.svg", {"clean": curve(9, 8, 3)[:1]})
    assert "<svg" in (tmp_path / "accuracy.svg").read_text()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileError):
        draw_accuracy(tmp_path / "none" / "accuracy.png", {"clean": curve(9, 8, 3)})


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, hwfault.campaign; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def drawn(tmp_path, monkeypatch, draw):
    """The axes of the picture that `draw` writes."""
    from matplotlib.figure import Figure

    figures, plain = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or plain(self, *a, **k))
    draw(tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    return figures[0].axes[0]


def losses(*means, golden=90):
    return {
        f"layers.{i}.blocks.0.conv.weight_quant": Trials(seeds=(1, 2), correct=(m, m + 1), samples=100, golden=golden)
        for i, m in enumerate(means)
    }


def test_bars_go_from_golden_to_the_mean_and_keep_their_order(tmp_path, monkeypatch):
    axes = drawn(tmp_path, monkeypatch, lambda path: draw_losses(path, losses(40, 70, 91), title="t"))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(losses(1, 1, 1))
    bars = [(bar.get_y(), bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert [y for y, _, _ in bars] == sorted(y for y, _, _ in bars)
    assert [
        pytest.approx((0.9, mean)) == (start, end)
        for (_, start, end), mean in zip(bars, (0.405, 0.705, 0.915), strict=True)
    ] == [True] * 3
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first is at the top"
    low, high = axes.get_xlim()
    assert 0 <= low <= 0.405
    assert 0.915 <= high <= 1.1


def test_of_many_bars_those_that_lose_most(tmp_path, monkeypatch):
    many = losses(*range(20, 89))
    axes = drawn(tmp_path, monkeypatch, lambda path: draw_losses(path, many, title="t"))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(many)[:60]
    assert "the 60 of 69 that lose most" in axes.get_title()


def test_an_operating_point_has_a_linear_axis(tmp_path, monkeypatch):
    points = [
        Trials(seeds=(1, 2), correct=(c, c), samples=100, golden=95, labels={"voltage_v": v}, same_faults=True)
        for c, v in ((94, 0.56), (90, 0.54))
    ]
    axes = drawn(
        tmp_path, monkeypatch, lambda path: draw_accuracy(path, {"x": points}, axis="voltage_v", axis_label="volts")
    )
    assert (axes.get_xlabel(), axes.get_xscale()) == ("volts", "linear")
    assert axes.lines[0].get_xdata().tolist() == [0.54, 0.56]
    assert axes.lines[0].get_ydata().tolist() == [0.9, 0.94]
    assert 0.8 <= axes.get_ylim()[0] < 0.9


def test_one_trial_has_no_band_and_low_accuracies_are_drawn_from_zero(tmp_path, monkeypatch):
    points = [Trials(seeds=(1,), correct=(c,), samples=10, ber=ber) for c, ber in ((9, 0.0), (1, 0.1))]
    axes = drawn(tmp_path, monkeypatch, lambda path: draw_accuracy(path, {"x": points}))
    assert len(axes.collections) == 0
    assert axes.get_ylim()[0] == 0
    assert axes.get_xlim()[0] < 0 < 0.1 < axes.get_xlim()[1] < 0.2


def test_many_rates_leave_room_for_their_names(tmp_path, monkeypatch):
    points = [Trials(seeds=(1, 2), correct=(9, 9), samples=10, ber=10**-i) for i in range(1, 9)]
    points += [Trials(seeds=(1, 2), correct=(9, 9), samples=10, ber=3 * 10**-i) for i in range(1, 9)]
    axes = drawn(tmp_path, monkeypatch, lambda path: draw_accuracy(path, {"x": points}))
    low, high = axes.get_xlim()
    assert len([tick for tick in axes.get_xticks() if low <= tick <= high]) <= 10


def test_bands_are_for_students_intervals_and_whiskers_for_bounds(tmp_path, monkeypatch):
    many, few = tuple(range(60, 80)), (90,) * 20
    points = [
        Trials(seeds=range(20), correct=correct, samples=100, golden=95, ber=ber)
        for correct, ber in ((many, 0.1), (few, 0.001))
    ]
    axes = drawn(tmp_path, monkeypatch, lambda path: draw_accuracy(path, {"x": points}))
    band, whiskers = axes.collections
    (whisker,) = whiskers.get_segments()
    assert whisker[:, 0].tolist() == [0.001] * 2
    assert whisker[:, 1].tolist() == pytest.approx(points[1].interval)
    assert set(band.get_paths()[0].vertices[:, 0]) == {0.1}
    assert "bound" in axes.get_legend().get_title().get_text()
