"""`hwfault profiles`: what it prints and draws, and what it refuses."""

import pytest
import yaml

from hwfault.profiles.library import folder, library
from hwfault.profiles.profile import Profile
from tests.cli.conftest import good, hwfault, refused
from tests.helpers.profiles.profiles import changed

KC705 = "bram28-kintex7-kc705b-undervolt"


@pytest.fixture
def mine(tmp_path):
    def write(**changes):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(changed(**changes)))
        return path

    return write


def flat(done):
    """What was printed, with single spaces."""
    return " ".join(done.stdout.split())


def test_the_group():
    shown = flat(good("profiles", "--help"))
    assert all(f" {name} " in shown for name in ("list", "show", "plot", "check"))
    assert "no command 'lst': did you mean 'list'?" in hwfault("profiles", "lst").stderr


def test_list():
    found = good("profiles", "list", "--json").json
    assert [p["name"] for p in found] == list(library())
    kc705 = next(p for p in found if p["name"] == KC705)
    assert (kc705["status"], kc705["operating_point"], kc705["measured"]) == ("derived", ["voltage_v"], True)
    assert next(p for p in found if p["name"] == "uniform-flips")["status"] == "free"
    table = good("profiles", "list").stdout.splitlines()
    assert table[0].split() == ["name", "component", "operating", "point", "persistence", "status", "title"]
    row = next(line for line in table if line.startswith(KC705))
    assert row.split()[1:6] == ["weight_memory", "voltage_v", "permanent", "derived", "Block"]


def test_show():
    done = good("profiles", "show", KC705)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["0.53", "0.000155948", "0.000147", "0.000165", "2,274", "14,581,760", "counts"] in rows
    text = flat(done)
    for words in (
        "fail-free from 0.6 V on; crashes below 0.53 V; log10(rate) is linear between the points",
        "effect stuck at 0: 1 of them [dumps]",
        "[counts] read, measured B. Salami",
        "block_share 0.281, dispersion 0.0795",
        Profile.load(KC705).digest,
    ):
        assert words in text
    assert ": probability that a cell is faulty" not in text
    assert max(map(len, done.stdout.splitlines())) <= 160


def test_show_at_an_operating_point():
    text = flat(good("profiles", "show", f"{KC705}@voltage_v=0.54", "--strict-sources"))
    assert "holds at voltage_v=0.53 only" in text
    assert "at voltage_v=0.54: probability that a cell is faulty: 4.73194e-05 (measured, from counts (read))" in text
    text = flat(good("profiles", "show", "asymmetric@p01=0.1,p10=0.2"))
    assert text.endswith("probability that a cell is faulty: 0.3 (free, as you set it)")
    text = flat(good("profiles", "show", "mcu@event_probability=0.1"))
    assert "an event starts at a cell: 0.1; 0.134323 of the cells faulty (free" in text


def test_show_as_json():
    found = good("profiles", "show", f"{KC705}@voltage_v=0.535", "--json").json
    assert found["resolved"]["operating_point"] == {"voltage_v": 0.535}
    assert found["resolved"]["value"] == Profile.load(KC705).resolve_rate({"voltage_v": 0.535}).value
    assert found["resolved"]["region"] == "interpolated"
    assert Profile.parse(found["profile"], "json") == Profile.load(KC705)
    assert found["digest"] == Profile.load(KC705).digest
    last = found["points"][-1]
    assert (last["n_faults"], last["rate"], last["upper_bound"]) == (2274, 2274 / 14581760, False)
    assert last["interval"][0] < last["rate"] < last["interval"][1]


def test_show_an_upper_bound(mine):
    path = mine(rate__points__0={"at": {"voltage_v": 0.6}, "n_faults": 0, "n_bits": 1000, "source": "lab"})
    text = flat(good("profiles", "show", f"{path}@voltage_v=0.6"))
    assert "0.6 upper bound: at most 0.003 0 0.003 0 1,000 lab" in text
    assert (
        "0.003, an upper bound (95 %): nothing failed at a point that it rests on (measured, from lab (read))" in text
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "bram28-kintex7"], ["no profile of the library is named", f"did you mean '{KC705}'?"]),
        (["show", "none/mine.yaml"], "none/mine.yaml: cannot be read (No such file or directory)"),
        (["show", f"{KC705}@voltage_v=0.52"], ["beyond the measured range, 0.53 to 0.59 V", "crashes below 0.53 V"]),
        (["show", f"{KC705}@voltage=0.55"], "did you mean 'voltage_v'?"),
        (["show", f"{KC705}@0.55"], "is not an operating point, expected NAME@axis=value"),
        (["show", f"{KC705}", "--strict-sources"], "the operating point lacks voltage_v"),
        (
            ["show", "sram65-lowvdd-sun2017@voltage_v=0.5", "--strict-sources"],
            ["effect and spatial and persistence and mapping rest on an assumption (unread: Only the abstract"],
        ),
        (["plot", "uniform-flips"], "the free parameter ber is not given"),
        (["plot", "uniform-flips@ber=2"], "ber is 2.0, expected a number in [0, 1]"),
        (["plot", "bram28-virtex7-vc707-undervolt", "--strict-sources"], "rest on an assumption"),
        (["plot", KC705, "--out", "none/p.png"], "none/p.png: cannot be written"),
        (["check", "none.yaml"], "none.yaml: cannot be read (No such file or directory)"),
    ],
)
def test_refusals(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("profiles", *arguments, words=words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["-1", str(2**64), "x"])
def test_devices_are_64_bit_numbers(device):
    refused("profiles", "plot", KC705, "--device", device, words="'--device'", code=2)


def test_check(mine):
    path = mine()
    text = flat(good("profiles", "check", path))
    assert text.startswith("small: A small profile")
    assert text.endswith(f"{path}: a valid profile")
    assert good("profiles", "check", path, "--json").json["profile"]["name"] == "small"


def test_check_refuses(mine):
    refused(
        "profiles", "check", mine(rate__points__0__rate=1.2), words=["mine.yaml", "1.2, expected a number in [0, 1]"]
    )
    refused("profiles", "check", mine(rate__points__0__source="lb"), words=["'lb' is not among", "mean 'lab'"])
    refused("profiles", "check", mine(rate__points__0__at={"voltage_v": 0.5}), words="points 0 and 1 are both at")


def test_check_takes_files_only():
    for name in library():
        good("profiles", "check", folder() / f"{name}.yaml")


def test_plot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = good("profiles", "plot", "stuck-mac-array@pe_fraction=0.1", "--device", 3)
    assert done.stdout == "stuck-mac-array.png: stuck-mac-array at pe_fraction=0.1, device 3\n"
    assert (tmp_path / "stuck-mac-array.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    done = good("profiles", "plot", KC705, "--out", "kc705.svg")
    assert done.stdout == f"kc705.svg: {KC705} at voltage_v=0.53, device 0\n"
    assert "<svg" in (tmp_path / "kc705.svg").read_text()


def test_plot_of_a_file_of_ones_own(mine, tmp_path):
    good("profiles", "plot", f"{mine()}@voltage_v=0.55", "--out", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
