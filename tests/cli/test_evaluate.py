"""`hwfault evaluate`: campaigns over operating points, sites, bits and lists of faults."""

import csv
import json
import sys

import pytest

from hwfault.campaigns.campaign import Campaign
from hwfault.campaigns.evaluate import evaluate
from hwfault.campaigns.points import Point, only_bit
from hwfault.laws.models import ProfileFaults, WordFaults, bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train import TrainConfig, checkpoint
from hwfault.train.data import digits
from tests.cli.conftest import good, refused

KC705, VC707 = "bram28-kintex7-kc705b-undervolt", "bram28-virtex7-vc707-undervolt"
SEEDS = ["--seeds", "0-2"]


@pytest.fixture(scope="module")
def network(run):
    return checkpoint.load(run / "checkpoint.safetensors")[0]


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text("faults: [{model: word, probability: 0.05}]")
    return path


def of(network, faults, seeds=range(3), **how):
    return evaluate(network, digits().test, plan=faults, seeds=seeds, **how)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_degradation_worst_case_and_golden_run(run, network):
    (point,) = good("evaluate", run, "--ber", 0.03, *SEEDS, "--json").json
    expected = of(network, bit_errors(0.03))
    golden = of(network, ()).mean
    assert point["correct"] == list(expected.correct)
    assert point["golden_accuracy"] == golden
    assert point["degradation"] == pytest.approx(golden - expected.mean)
    assert point["relative_degradation"] == pytest.approx(1 - expected.mean / golden)
    assert point["std"] == expected.std
    assert point["worst"] == {"accuracy": min(expected.accuracies), "seed": expected.worst[1]}
    assert point["labels"] == {"faults": "BER 0.03"}
    table = good("evaluate", run, "--ber", 0.03, *SEEDS).stdout.splitlines()
    assert table[1].startswith("BER 0.03")
    for number in (expected.mean, *expected.interval, expected.worst[0]):
        assert f"{number:.2%}" in table[1]
    for number in (expected.std, golden - expected.mean):
        assert f" {100 * number:.2f} " in table[1]
    assert " bound " in table[1], "three trials are too few for Student's t"
    assert point["interval_by"] == "bound"
    assert "lost pp" in table[0]
    assert table[3] == "95 % intervals of the mean over fault seeds on these samples; other samples are not covered"
    assert table[5].startswith("events: trials in which the faults changed the number of right answers")
    assert table[2] == f"golden run (no faults): {golden:.2%} of 360 samples"


def test_one_seed_is_said_to_tell_nothing_of_the_spread(run):
    done = good("evaluate", run, "--ber", 0.03, "--seeds", 4)
    assert "one fault seed tells nothing about the spread" in done.stderr
    assert done.stdout.splitlines()[1].split()[3:7] == ["-", "-", "-", "-"]
    assert "one fault seed" not in good("evaluate", run, "--ber", 0.03, *SEEDS).stderr
    assert good("evaluate", run, "--ber", 0.03, "--seeds", 4, "--json").json[0]["std"] is None


def test_a_sweep_over_an_operating_point(run, network, tmp_path):
    arguments = ["evaluate", run, "--faults", KC705, "--sweep", "voltage_v=0.56,0.53", *SEEDS]
    done = good(*arguments, "--out", tmp_path / "out")
    expected = {v: of(network, [ProfileFaults(profile=KC705, at={"voltage_v": v})]) for v in (0.56, 0.53)}
    points = good(*arguments, "--json").json
    assert [point["labels"] for point in points] == [{"voltage_v": 0.56}, {"voltage_v": 0.53}]
    assert [tuple(point["correct"]) for point in points] == [trials.correct for trials in expected.values()]
    assert [row["voltage_v"] for row in rows_of(tmp_path / "out" / "results.csv")] == ["0.56", "0.53"]
    assert done.stdout.splitlines()[0].split()[0] == "voltage_v"
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_of_several_devices(run):
    named = ["--faults", f"kc={KC705}", "--faults", f"vc={VC707}@voltage_v=0.6"]
    points = good("evaluate", run, *named, "--sweep", "voltage_v=0.54,0.56", "--seeds", 0, "--json").json
    assert [tuple(point["labels"].values()) for point in points] == [
        (name, v) for name in ("kc", "vc") for v in (0.54, 0.56)
    ]


def test_each_site_alone_with_the_least_resilient_first(run, network, tmp_path):
    done = good("evaluate", run, "--ber", 0.05, "--by-site", *SEEDS, "--out", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "results.csv")
    names = [site.name for site in sites(network)]
    assert sorted(row["site"] for row in rows) == sorted(names)
    means = [float(row["accuracy"]) for row in rows]
    assert means == sorted(means)
    assert means[0] < means[-1]
    for row in (rows[0], rows[-1]):
        assert float(row["accuracy"]) == of(network, bit_errors(0.05, row["site"])).mean
        assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])
    table = done.stdout.splitlines()
    assert [line.split()[0] for line in table[1 : 1 + len(names)]] == [row["site"] for row in rows]
    assert f"least resilient: {rows[0]['site']}, which costs " in table[-1]
    assert f"most resilient: {rows[-1]['site']}, which costs " in table[-1]
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    some = good("evaluate", run, "--ber", 0.05, "--by-site", "features.*.weight_quant", *SEEDS, "--json").json
    assert sorted(point["labels"]["site"] for point in some) == [f"features.{i}.weight_quant" for i in (0, 2, 4)]


def test_each_bit_alone(run, network, tmp_path):
    done = good("evaluate", run, "--ber", 0.05, "--by-bit", *SEEDS, "--out", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "results.csv")
    assert [row["bit"] for row in rows] == [str(bit) for bit in range(7, -1, -1)]
    assert [line.split()[0] for line in done.stdout.splitlines()[1:9]] == [row["bit"] for row in rows]
    campaign = Campaign(network, digits().test)
    for row in rows:
        point = Point.of(bit_errors(0.05), bit=int(row["bit"]))
        assert float(row["accuracy"]) == campaign.run(point, range(3)).mean
    assert len({row["accuracy"] for row in rows}) > 2


@pytest.mark.slow  # bits alone and sites alone are quick tests
def test_each_bit_of_each_site_alone(run, network, tmp_path):
    done = good(
        "evaluate", run, "--ber", 0.2, "--by-site", "features.?.*", "--by-bit", *SEEDS, "--out", tmp_path / "out"
    )
    rows = rows_of(tmp_path / "out" / "results.csv")
    struck = [site for site in sites(network) if site.name.startswith("features.")]
    expected = {(site.name, str(bit)) for site in struck for bit in range(site.bit_width)}
    assert {(row["site"], row["bit"]) for row in rows} == expected
    assert len(rows) == len(expected)
    means = [float(row["accuracy"]) for row in rows]
    assert means == sorted(means)
    for row in (rows[0], rows[-1]):
        point = Point.of(only_bit(resolve(sites(network), bit_errors(0.2, row["site"])), int(row["bit"])))
        assert float(row["accuracy"]) == Campaign(network, digits().test).run(point, range(3)).mean
    assert f"least resilient: {rows[0]['site']} bit {rows[0]['bit']}, which costs" in done.stdout
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_plans_and_lists_of_faults_beside_one_another(run, network, words, tmp_path):
    plan = resolve(sites(network, digits().example), bit_errors(0.03, "classifier.*"))
    plan.save(tmp_path / "p.json")
    named = [
        "--faults",
        f"words={words}",
        "--faults",
        f"{KC705}@voltage_v=0.53",
        "--plan",
        f"last={tmp_path / 'p.json'}",
    ]
    done = good("evaluate", run, *named, *SEEDS, "--out", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "results.csv")
    expected = {
        "words": [WordFaults(probability=0.05)],
        f"{KC705}@voltage_v=0.53": [ProfileFaults(profile=KC705, at={"voltage_v": 0.53})],
        "last": plan,
    }
    assert {row["faults"]: float(row["accuracy"]) for row in rows} == {
        k: of(network, v).mean for k, v in expected.items()
    }
    assert [line.split()[0] for line in done.stdout.splitlines()[1:4]] == list(expected)
    assert (tmp_path / "out" / "accuracy.png").is_file()
    (alone,) = good("evaluate", run, "--plan", tmp_path / "p.json", *SEEDS, "--json").json
    assert alone["correct"] == list(of(network, plan).correct)


def test_statistics_of_each_site(run, network, tmp_path):
    done = good("evaluate", run, "--ber", 0.02, *SEEDS, "--statistics", "--out", tmp_path / "out")
    expected = of(network, bit_errors(0.02), statistics=True).statistics
    rows = rows_of(tmp_path / "out" / "statistics.csv")
    assert [row["site"] for row in rows] == [record.site for record in expected]
    for row, record in zip(rows, expected, strict=True):
        assert (int(row["words"]), int(row["faulty"]), float(row["rmse"])) == (record.words, record.faulty, record.rmse)
        assert [int(row[f"bit {k}"]) for k in range(len(record.flips))] == list(record.flips)
    text = done.stdout
    assert "at each site, over 3 trials: faults BER 0.02" in text
    assert f"{sum(record.faulty for record in expected):,}" in next(
        line for line in text.splitlines() if line.startswith("all sites")
    )
    (point,) = good("evaluate", run, "--ber", 0.02, *SEEDS, "--statistics", "--json").json
    assert [record["faulty"] for record in point["statistics"]] == [record.faulty for record in expected]
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert point.pop("expected_faults")  # said by the command, of the plan
    assert stored["points"] == [point]


def test_the_first_samples_only_and_any_batch_size(run, network):
    arguments = ["evaluate", run, "--ber", 0.03, *SEEDS, "--samples", 50, "--json"]
    (point,) = good(*arguments).json
    assert point["samples"] == 50
    assert point["correct"] == list(of(network, bit_errors(0.03), indices=range(50)).correct)
    assert good(*arguments, "--batch-size", 7).json == [point]
    assert good("evaluate", run, "--samples", 10**6, "--seeds", 0, "--json").json[0]["samples"] == 360


def saved(folder, network, **keys):
    """A run of the network with another configuration."""
    folder.mkdir()
    checkpoint.save(folder / "checkpoint.safetensors", network, TrainConfig(**keys))
    return folder


def test_the_samples_that_a_run_kept_for_validation(network, tmp_path):
    mine = saved(tmp_path / "mine", network, validation=0.1, seed=5)
    (point,) = good("evaluate", mine, "--split", "validation", "--ber", 0.03, *SEEDS, "--json").json
    held = digits().split_off(0.1, 5).validation
    assert point["samples"] == len(held) == 144
    assert point["correct"] == list(evaluate(network, held, plan=bit_errors(0.03), seeds=range(3)).correct)


def test_code_that_a_run_names_is_not_run_unless_the_user_names_it(network, tmp_path, out):
    mine = saved(tmp_path / "mine", network, transform="antigravity:fly")
    words = ["code that a file names is not run", "--transform antigravity:fly"]
    refused("evaluate", mine, "--out", out, words=words)
    refused("export", mine, "--out", out / "g.onnx", words=words)
    assert "antigravity" not in sys.modules
    named = good("evaluate", mine, "--transform", "tests.cli.test_evaluate:dark", "--seeds", 0, "--json").json[0]
    assert named["correct"] == [
        int(evaluate(network, digits().test.stored * 0, digits().test.labels, seeds=[0]).mean * 360)
    ]


def dark(images):
    """A transform: every image is black."""
    return images * 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rates", "0.1", "--by-site", "--by-bit"], "--rates and --by-site and --by-bit were given together"),
        (["--rates", "0.1", "--by-bit"], "--rates and --by-bit were given together"),
        (["--by-site"], "--by-site goes with the faults of --faults, --ber or --plan"),
        (["--sweep", "voltage_v=0.5"], "--sweep goes with the faults"),
        (["--rates", "0.1", "--plan", "x.json"], "expected one of them"),
        (["--ber", 0.1, "--plan", "x.json"], "expected one of them"),
        (["--faults", f"a={KC705}@voltage_v=0.53", "--faults", f"a={VC707}"], "'a' is given twice"),
        (["--faults", f"a={KC705}@voltage_v=0.53", "--faults", f"b={VC707}@voltage_v=0.6", "--by-bit"], "one list"),
        (["--sweep", "voltage_v", "--faults", KC705], "is no sweep"),
        (["--sweep", "=1,2", "--faults", KC705], "is no sweep"),
        (["--sweep", "voltage_v=a", "--faults", KC705], "is no sweep"),
        (["--sweep", "voltage_v=0.53,0.53", "--faults", KC705], "is no sweep"),
        (["--ber", 0.1, "--seeds", "1,2,1"], "names a seed twice"),
        (["--ber", 0.1, "--split", "train"], "'train' is not one of"),
    ],
)
def test_wrong_usage(run, out, options, words):
    refused("evaluate", run, *options, "--out", out, words=words, code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sweep", "volt=0.53", "--faults", KC705], "no profile has the axis 'volt': did you mean 'voltage_v'?"),
        (["--sweep", "voltage_v=0.53,0.1", "--faults", KC705], "voltage_v = 0.1 lies beyond the measured range"),
        (["--sweep", "voltage_v=0.53", "--ber", 0.1], "BER 0.1: has no operating point to sweep"),
        (["--by-site", "feature.*", "--ber", 0.1], "the faults strike no site that matches 'feature.*'"),
        (["--by-site", "input*", "--ber", 0.1, "--select", "features*"], "the faults strike no site that matches"),
        (["--plan", "none.json"], "none.json: cannot be read"),
        (["--split", "validation"], "the run split no samples off for validation"),
    ],
)
def test_questions_without_an_answer(run, out, options, words):
    refused("evaluate", run, *options, "--seeds", "0-1", "--out", out, words=words)


def test_faults_without_bit_planes(run, out, words):
    refused("evaluate", run, "--faults", words, "--by-bit", "--out", out, words="strikes several bits at once")


def test_faults_that_hardly_ever_strike_are_no_certainty(run, tmp_path):
    """A rate at which 20 trials have nothing to show, for each bit of each site."""
    rare = "seu-sram-iec61508-ref@exposure_h=24"
    arguments = ["evaluate", run, "--faults", rare, "--samples", 40]
    (point,) = good(*arguments, "--json").json
    low, high = point["interval"]
    assert (point["interval_by"], point["events"], point["std"]) == ("bound", 0, 0)
    assert low < point["mean"] < high
    assert point["event_share_at_most"] == pytest.approx(1 - 0.05 ** (1 / 20))
    table = good(*arguments, "--by-site", "--by-bit").stdout
    rows = [line.split() for line in table.splitlines() if "weight_quant" in line and "resilient" not in line]
    assert rows
    for row in rows:
        shares = [word for word in row if word.endswith("%")]
        assert not shares[0] == shares[1] == shares[2]
        assert "bound" in row
    assert " pp; most resilient: " in table
