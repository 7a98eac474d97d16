import subprocess
import sys

import pytest

from hwfault.campaign import Trials, draw_accuracy
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
