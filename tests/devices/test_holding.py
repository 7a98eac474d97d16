"""Where patterns hold: what profiles declare, and what is said where a pattern is drawn all the same."""

import numpy as np
import pytest

from hwfault.devices.clustering import block_share
from hwfault.devices.draw import draw_map
from hwfault.devices.dumps import load_dump
from hwfault.devices.fit import fit
from hwfault.devices.holding import pattern_note
from hwfault.errors import ModelError
from hwfault.profiles.describe import lines
from hwfault.profiles.library import library
from hwfault.profiles.profile import Profile
from hwfault.profiles.spatial import BlockColumn, Independent
from hwfault.profiles.write import write_profile
from tests.helpers.profiles.kc705 import PATTERN, RATE, drawn, hex_dump, measured
from tests.helpers.profiles.profiles import changed, profile

KC705 = Profile.load("bram28-kintex7-kc705b-undervolt")
MEMORY = {"kind": "linear", "row_bits": 16}
BLOCKS = {
    "kind": "block_column", "block_rows": 64, "block_share": 0.3, "dispersion": 0.2, "column_share": 0.5,
    "at_rate": 1e-2,
}  # fmt: skip


def volts(v):
    return {"voltage_v": v}


@pytest.mark.parametrize("name", library())
def test_every_pattern_of_the_library_says_where_it_holds(name):
    p = Profile.load(name)
    if isinstance(p.spatial, Independent):
        return
    assert p.spatial.holds_at is not None
    if p.spatial.holds_at != "everywhere":
        assert p.resolve_rate(p.spatial.holds_at).cells == p.spatial.at_rate
        assert pattern_note(p, p.spatial.holds_at) is None
    assert "; holds " in dict(lines(p))["spatial"]


@pytest.mark.parametrize(("voltage", "known"), [(0.54, "19 % and 13 %"), (0.55, "12 % and 6.3 %")])
def test_the_kc705_at_milder_voltages(voltage, known):
    note = pattern_note(KC705, volts(voltage))
    assert f"at voltage_v={voltage}: the pattern of its faults (block_column) holds at voltage_v=0.53 only" in note
    assert f"drawn and measured: {known} at voltage_v={voltage})" in note
    assert "spatial: {kind: independent} asks" in note


def test_between_the_points_all_that_is_known_is_told():
    note = pattern_note(KC705, volts(0.545))
    assert "19 % and 13 % at voltage_v=0.54, 12 % and 6.3 % at voltage_v=0.55, 4.9 % and 2.5 % at" in note
    assert "2.5 % and 1.3 % at voltage_v=0.57)" in note


def test_where_there_is_nothing_to_say():
    assert pattern_note(KC705, volts(0.53)) is None
    assert pattern_note(KC705, volts(0.6)) is None, "no faults"
    assert pattern_note(KC705, volts(0.54), spatial=Independent()) is None
    assert pattern_note(KC705, volts(0.54), share=0.0) is None
    for name, at in (("mcu", {"event_probability": 0.1}), ("stuck-mac-array", {"pe_fraction": 0.1})):
        assert pattern_note(Profile.load(name), at) is None


def test_a_share_of_the_rate_is_another_rate():
    assert "at voltage_v=0.53, at a share of its rate: the pattern" in pattern_note(KC705, volts(0.53), share=0.5)


@pytest.mark.parametrize("voltage", [0.53, 0.54, 0.55])
def test_the_share_of_blocks_is_that_of_drawn_devices(voltage):
    p, found = KC705.resolve_rate(volts(voltage)).cells, []
    for device in range(6):
        size = {"rows": 890 * 1024, "row_bits": 16, "shares": (0, 1, 0), "name": "bram"}
        word, _, _ = draw_map(KC705.spatial, p, device=device, **size).cells()
        found.append(len(np.unique(word // 1024)) / 890)
    expected = block_share(KC705.spatial, 16, p)
    assert abs(np.mean(found) - expected) < 4 * np.sqrt(expected * (1 - expected) / 890 / len(found))


def test_the_share_of_blocks_of_the_measured_device():
    told = {one.at["voltage_v"]: one.block_share for one in KC705.spatial.elsewhere}
    assert told == {v: pytest.approx(n / 890, rel=1e-3) for v, n in {0.54: 115, 0.55: 56, 0.56: 22, 0.57: 12}.items()}
    row, _, _ = load_dump(measured("0.56"), at=volts(0.56)).faults()
    assert len(np.unique(row // 1024)) == 22


def test_a_pattern_without_a_word_holds_at_the_rate_it_was_counted_at():
    p = profile(spatial=BLOCKS, mapping=MEMORY)
    assert pattern_note(p, volts(0.5)) is None
    note = pattern_note(p, volts(0.6))
    assert "was counted at a rate of 0.01, and nothing says that it holds at another (holds_at)" in note
    rows = profile(spatial={"kind": "rows"}, mapping=MEMORY)
    assert pattern_note(rows, volts(0.6)) is None


def test_a_pattern_in_the_place_of_the_profiles():
    other = BlockColumn(**BLOCKS, holds_at=volts(0.6))
    p = profile(spatial={"kind": "rows"}, mapping=MEMORY)
    assert "holds at voltage_v=0.6 only" in pattern_note(p, volts(0.5), spatial=other)
    assert pattern_note(p, volts(0.6), spatial=other) is None
    with pytest.raises(ModelError, match=r"spatial.holds_at: unknown axis 'volt': did you mean 'voltage_v'"):
        pattern_note(p, volts(0.6), spatial=BlockColumn(**BLOCKS, holds_at={"volt": 0.6}))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"holds_at": {"volt": 0.5}}, r"spatial.holds_at: unknown axis 'volt': did you mean 'voltage_v'"),
        ({"holds_at": volts(0.4)}, r"spatial.holds_at: .*lies beyond the measured range"),
        ({"holds_at": {}}, "holds_at: an empty operating point"),
        ({"holds_at": "nowhere"}, "holds_at"),
        ({"elsewhere": [{"at": volts(0.6), "block_share": 0.1}]}, "elsewhere: goes with the operating point"),
        (
            {"holds_at": volts(0.5), "elsewhere": [{"at": volts(0.5), "block_share": 0.1}]},
            r"spatial.elsewhere.0.at: the pattern holds there",
        ),
        (
            {"holds_at": volts(0.5), "elsewhere": [{"at": volts(0.7), "block_share": 0.1}]},
            r"spatial.elsewhere.0.at: .*beyond the measured range",
        ),
        ({"holds_at": volts(0.5), "elsewhere": [{"at": volts(0.6), "block_share": 1.1}]}, "block_share"),
    ],
)
def test_declarations_that_are_refused(keys, words):
    with pytest.raises(ModelError, match=words):
        profile(spatial=BLOCKS | keys, mapping=MEMORY)


def test_free_parameters_are_axes_too():
    free = {"rate": {"quantity": "faulty_cells", "free": ["ber"]}, "mapping": MEMORY}
    p = Profile.parse(changed(**free, spatial=BLOCKS | {"holds_at": {"ber": 0.01}}), "p")
    assert pattern_note(p, {"ber": 0.01}) is None
    assert "holds at ber=0.01 only" in pattern_note(p, {"ber": 0.02})


def test_digests_of_profiles_that_do_not_say_it_stay():
    """As version 0.4.0 computed it, which did not know the key."""
    p = profile(spatial={"kind": "rows"}, mapping=MEMORY)
    assert p.digest == "7da27607597d3b4bbde2c24cbf93464c9891a9ba610372a577c25b8c7b03f7e1"
    assert profile(spatial={"kind": "rows", "holds_at": "everywhere"}, mapping=MEMORY).digest != p.digest


def test_fit_writes_where_the_pattern_holds(tmp_path):
    (harsh,), (mild,) = drawn(1), drawn(1, probability=RATE / 4)
    found = []
    for voltage, cells in ((0.53, harsh), (0.55, mild)):
        (tmp_path / f"{voltage}.bin").write_bytes(hex_dump(cells))
        found.append(load_dump(tmp_path / f"{voltage}.bin", at=volts(voltage)))
    fitted = fit(found, name="mine").profile
    assert fitted.spatial.holds_at == volts(0.53)
    (other,) = fitted.spatial.elsewhere
    assert other.at == volts(0.55)
    assert other.block_share == pytest.approx(mild.any(axis=(1, 2)).mean(), rel=1e-3)
    write_profile(tmp_path / "mine.yaml", fitted)
    assert Profile.load(tmp_path / "mine.yaml") == fitted
    assert pattern_note(fitted, volts(0.53)) is None
    assert "holds at voltage_v=0.53 only" in pattern_note(fitted, volts(0.54))
    assert PATTERN.holds_at is None
