"""Each mistake is one clear error with exit code 1 or 2, without a traceback, and nothing half-written."""

import os
import shutil

import pytest

from tests.cli.conftest import files, good, hwfault, refused

TOO_LARGE = str(2**64)
RATES = ["1.5", "-0.1", "nan", "inf", "3"]


@pytest.mark.parametrize("rate", RATES)
def test_probabilities_outside_0_to_1(run, out, kept, rate):
    words = ["expected a number in [0, 1]"]
    refused("train", f"--ber={rate}", "--out", out / "run", words=words)
    refused("evaluate", run, f"--ber={rate}", "--out", out, words=words)
    refused("evaluate", run, f"--rates=0,{rate}", "--out", out, words=words)
    refused("export", run, f"--ber={rate}", "--out", kept, words=words)
    refused("faults", run, f"--ber={rate}", "--save", kept, words=words)
    assert not (out / "run").exists()


@pytest.mark.parametrize("rate", ["1.5", ".nan", "-1", "yes", "many", "[0.1, 2, 0, 0]", "[]", "null", "{}"])
def test_probabilities_in_a_file(run, out, kept, tmp_path, rate):
    path = tmp_path / "f.yaml"
    path.write_text(f"faults: [{{model: bit_flips, probability: {rate}}}]")
    for command in (["train", "--out", out / "run"], ["evaluate", run, "--out", out], ["export", run, "--out", kept]):
        refused(*command, "--faults", path, words=str(path))


def test_probabilities_too_small_to_be_drawn(run, kept):
    refused("export", run, "--ber", "1e-14", "--out", kept, words=["too small to be drawn", "site 'input.act_quant'"])


@pytest.mark.parametrize(
    ("selector", "nearest"),
    [
        ("features.0.wieght_quant", "did you mean 'features.0.weight_quant'"),
        ("nothing", "no site matches"),
        ("", "no site"),
    ],
)
def test_unknown_selectors(run, out, kept, selector, nearest):
    refused("train", "--ber", 0.1, f"--select={selector}", "--out", out / "run", words=nearest)
    refused("evaluate", run, "--ber", 0.1, f"--select={selector}", "--out", out, words=nearest)
    refused("evaluate", run, "--rates", "0,0.1", f"--select={selector}", "--out", out, words=nearest)
    refused("export", run, "--ber", 0.1, f"--select={selector}", "--out", kept, words=nearest)
    refused("faults", run, "--ber", 0.1, f"--select={selector}", "--save", kept, words=nearest)


def test_a_process_wider_than_the_word(run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: [{model: word, probability: 0.1, effect: 16}]")
    words = ["fault 0 at site 'features.0.weight_quant'", "mask 0x10 does not fit words of 4 bits, expected 1 to 0xf"]
    refused("train", "--faults", path, "--out", out / "run", words=words)
    refused("evaluate", run, "--faults", path, "--out", out, words=words)
    refused("export", run, "--faults", path, "--out", kept, words=words)
    path.write_text("faults: [{model: bit_flips, probability: [0.1, 0.1, 0.1, 0.1]}]")
    words = "4 probabilities were given for words of 8 bits"
    refused("export", run, "--faults", path, "--out", kept, words=["site 'input.act_quant'", words])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("faults: [{model: bit_flips, probabilty: 0.1}]", "unknown key 'probabilty': did you mean 'probability'"),
        ("faults: [{model: bit_flips, probability: 0.1, sites: {knd: weight}}]", "did you mean 'kind'"),
        ("falts: []", "unknown key 'falts': did you mean 'faults'"),
        ("faults: [{model: bitflips, probability: 0.1}]", "bit_flips"),
        ("faults: {model: bit_flips}", "faults"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: [", "not a YAML file"),
        ("{3: 4}", "unknown key 3"),
        ("faults: [!!python/object/apply:os.system ['true']]", "not a YAML file"),
        ("\x00", "not a YAML file"),
    ],
)
def test_files_of_faults_that_are_none(run, out, kept, tmp_path, text, words):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    for command in (["train", "--out", out / "run"], ["evaluate", run, "--out", out], ["export", run, "--out", kept]):
        refused(*command, "--faults", path, words=[str(path), words])


def test_a_file_without_faults_is_not_taken_for_clean(run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: []")
    train = ["train", "--epochs", 1, "--out", out / "run"]
    for command in (train, ["evaluate", run, "--out", out], ["export", run, "--out", kept]):
        refused(*command, "--faults", path, words=[str(path), "fault"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", "unknown key 'epoch': did you mean 'epochs'"),
        ("epochs: none", "epochs"),
        ("network: digit_cnn", "did you mean 'digits_cnn'"),
        ("network_args: {bits: 9}", "bits is 9, expected 2 to 8"),
        ("network_args: {bit: 4}", "bit"),
        ("data: digit", "did you mean 'digits'"),
        ("[]", "expected a mapping"),
        ("faults: 3", "faults"),
        ("faults: [{model: word, probability: 0.1, effect: rnd}]", "effect"),
        ("gradient: straight", "straight_through"),
    ],
)
def test_configurations_that_are_none(out, tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    refused("train", "--config", path, "--out", out / "run", words=words)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--epochs", "0", "epochs"),
        ("--batch-size", "0", "batch_size"),
        ("--learning-rate", "-1", "learning_rate"),
        ("--learning-rate", "nan", "learning_rate"),
        ("--weight-decay", "inf", "weight_decay"),
        ("--optimizer", "adagrad", "optimizer"),
        ("--loss-on", "faults", "loss_on"),
        ("--loss", "hinge", "loss"),
        ("--schedule", "cosin", "schedule"),
        ("--warmup-epochs", "40", "warmup_epochs"),
        ("--draws", "3", "draws"),
        ("--validation", "1.5", "validation"),
        ("--precision", "16", "precision"),
        ("--precision", "16-mixed", "needs a GPU"),
        ("--accelerator", "tpu", "accelerator"),
        ("--devices", "0", "devices"),
        ("--devices", "4096", "devices is 4096, but there are"),
        ("--accumulate", "0", "accumulate"),
        ("--clip-weights", "-1", "clip_weights"),
        ("--early-stopping", "-1", "early_stopping"),
        ("--monitor", "acuracy", "monitor"),
        ("--set", "network_args.bits=0", "bits is 0"),
        ("--set", "epoch=3", "unknown key 'epoch': did you mean 'epochs'"),
        ("--set", "network_args.bit=3", "digits_cnn"),
        ("--initial", "no-such-file", "no-such-file: cannot be read"),
        ("--augment", "flip", "flip"),
        ("--gradient", "zeros", "gradient"),
        ("--seed", TOO_LARGE, "seed"),
        ("--seed", "-1", "seed"),
    ],
)
def test_options_of_training(out, option, value, words):
    told = value if option not in ("--weight-decay", "--set") else ""
    refused("train", option, value, "--out", out / "run", words=[words, told])
    assert not (out / "run").exists() or files(out / "run") == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "epochs"], "'epochs' is no setting, expected e.g. network_args.bits=3"),
        (["--set", "freeze=[a"], "is no value as in YAML"),
        (["--ramp-epochs", "3"], "--ramp-epochs goes with faults"),
        (["--epochs", "many"], "is not a valid integer"),
    ],
)
def test_wrong_usage_of_training(out, arguments, words):
    done = hwfault("train", *arguments, "--out", out / "run")
    assert done.code == 2
    assert words in " ".join(done.stderr.split())


def test_a_run_is_not_written_over_and_none_is_no_run_to_resume(tmp_path, out):
    good("train", "--epochs", 1, "--out", tmp_path / "run")
    refused("train", "--epochs", 1, "--out", tmp_path / "run", words="holds a run already (last.ckpt); go on with")
    refused("train", "--resume", "--out", tmp_path / "run", words="the run is finished, after 1 epochs")
    again = ("train", "--resume", "--out", tmp_path / "run")
    refused(*again, "--learning-rate", 0.5, words=["another configuration", "learning_rate: 0.02 -> 0.5"])
    refused("train", "--resume", "--out", out, words="holds no run to resume")


def test_training_that_diverges_says_so(tmp_path):
    refused(
        "train", "--epochs", 2, "--learning-rate", "1e30", "--optimizer", "sgd", "--out", tmp_path / "run", words="loss"
    )


def test_names_of_files_that_are_not_there(run, made, out, kept, tmp_path):
    nowhere = tmp_path / "nowhere"
    refused("evaluate", nowhere, "--out", out, words=[f"{nowhere}: cannot be read", "expected a checkpoint"])
    refused("export", nowhere, "--out", kept, words="cannot be read")
    refused("export", run, "--plan", nowhere, "--out", kept, words=[f"{nowhere}: cannot be read", "fault plan"])
    refused("export", run, "--faults", nowhere, "--out", kept, words=[f"{nowhere}: cannot be read", "YAML"])
    refused("train", "--config", nowhere, "--out", out / "run", words="cannot be read")
    refused("replay", nowhere, run, "--out", kept, words=[f"{nowhere}: cannot be read", "ONNX file"])
    refused("replay", made / "faulted.onnx", nowhere, "--out", kept, words="cannot be read")
    refused("sites", f"{nowhere}.onnx", words="cannot be read")
    refused("sites", nowhere, words="is unknown")
    refused("faults", f"{nowhere}.json", "--site", "x", words="cannot be read")
    refused("train", "--data", f"{nowhere}.npz", "--out", out / "run", words=f"{nowhere}.npz: there is no such file")


def test_folders_and_devices_in_the_place_of_files(run, made, out, kept, tmp_path):
    refused("replay", tmp_path, run, words="cannot be read")
    refused("export", run, "--plan", tmp_path, "--out", kept, words="cannot be read")
    refused("evaluate", tmp_path, "--out", out, words="cannot be read")
    refused("train", "--config", tmp_path, "--out", out / "run", words="cannot be read")


@pytest.mark.parametrize("seed", [TOO_LARGE, "-1", "1.5", "x", "", "5-1", "1,,2", f"0-{2**64}", "0-99999999"])
def test_seeds_that_do_not_fit(made, run, out, kept, seed):
    refused("evaluate", run, "--ber", 0.1, f"--seeds={seed}", "--out", out, words="--seeds", code=2)
    refused("replay", made / "faulted.onnx", run, f"--seeds={seed}", "--out", kept, words="--seeds", code=2)


def test_seeds_of_the_listing(run, kept):
    for seed in (TOO_LARGE, "-1"):
        refused(
            "faults", run, "--ber", 0.1, "--site", "input.act_quant", "--seed", seed, "--save", kept,
            words=["the seed is", "expected an integer from 0 to 2^64 - 1"],
        )  # fmt: skip


@pytest.mark.parametrize("where", ["file", "proc", "long"])
def test_output_folders_that_cannot_be_written(made, run, tmp_path, where):
    (tmp_path / "file").write_text("old")
    folder = {"file": tmp_path / "file" / "out", "proc": "/proc/hwfault", "long": tmp_path / ("x" * 300)}[where]
    words = ["choose another"]
    refused("train", "--epochs", 1, "--out", folder, words=words)
    refused("evaluate", run, "--rates", "0", "--seeds", 0, "--out", folder, words=words)
    refused("demo", "--out", folder, words=words)
    refused("export", run, "--out", f"{folder}/g.onnx", words=words)
    refused("faults", run, "--ber", 0.1, "--save", f"{folder}/p.json", words=words)
    refused("replay", made / "faulted.onnx", run, "--seeds", 0, "--out", f"{folder}/r.json", words=words)
    assert (tmp_path / "file").read_text() == "old"
    assert files(tmp_path).keys() == {(tmp_path / "file").relative_to(tmp_path)}


def test_a_file_in_the_place_of_the_output_folder(run, tmp_path):
    (tmp_path / "out").write_text("old")
    refused("train", "--epochs", 1, "--out", tmp_path / "out", words=f"{tmp_path}/out: not a folder to write in")
    refused("demo", "--out", tmp_path / "out", words="not a folder to write in")
    assert (tmp_path / "out").read_text() == "old"


def test_contradicting_options(made, run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: [{model: bit_flips, probability: 0.1}]")
    both = ["--faults", path, "--ber", 0.1]
    refused("train", *both, "--out", out / "run", words="expected one of them", code=2)
    refused("evaluate", run, *both, "--out", out, words="expected one of them", code=2)
    refused("evaluate", run, "--rates", "0", "--ber", 0.1, "--out", out, words="expected one of them", code=2)
    refused(
        "export", run, "--plan", made / "plan.json", "--ber", 0.1, "--out", kept, words="expected one of them", code=2
    )
    refused("faults", made / "plan.json", "--ber", 0.1, "--save", kept, words="expected one of them", code=2)
    refused("evaluate", run, "--select", "x", "--out", out, words="--select goes with --ber", code=2)
    refused("faults", run, "--save", kept, words="no faults were named")


def test_an_unknown_site_in_the_listing(made, run):
    refused(
        "faults", made / "plan.json", "--site", "classifer.weight_quant", words="did you mean 'classifier.weight_quant'"
    )
    refused("faults", run, "--ber", 0.1, "--site", "x", words="the plan has no site 'x'")


@pytest.mark.parametrize("rates", ["", "a", "0,,1", "0;1"])
def test_rates_that_are_none(run, out, rates):
    refused("evaluate", run, f"--rates={rates}", "--out", out, words="--rates", code=2)


@pytest.mark.parametrize("batch", ["0", "-1", "x"])
def test_batch_sizes_that_are_none(made, run, out, kept, batch):
    refused("evaluate", run, f"--batch-size={batch}", "--out", out, words="--batch-size", code=2)
    refused("replay", made / "faulted.onnx", run, f"--batch-size={batch}", "--out", kept, words="--batch-size", code=2)


@pytest.mark.parametrize(
    "spec",
    ["no.such:thing", "json:loads", "tests.helpers.train.small:not_a_network", ":", "tests.helpers.train.small:", "os"],
)
def test_networks_and_data_that_are_none(out, spec):
    refused("sites", spec, words="")
    refused("train", "--network", spec, "--epochs", 1, "--out", out / "run", words="network")
    refused("train", "--data", spec, "--epochs", 1, "--out", out / "run", words="data")


def test_data_that_does_not_fit_the_network(run, out, kept):
    refused("evaluate", run, "--data", "tests.helpers.train.small:data", "--out", out, words="")
    refused("export", run, "--data", "tests.helpers.train.small:data", "--out", kept, words="")


def test_a_run_without_its_checkpoint(run, out, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    (copied / "checkpoint.safetensors").unlink()
    refused("evaluate", copied, "--out", out, words="checkpoint.safetensors: cannot be read")


def test_an_interrupted_write_leaves_the_old_file(run, kept, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused("export", run, "--out", kept, words="No space left on device")
    refused("faults", run, "--ber", 0.1, "--save", kept, words="No space left on device")


def test_errors_are_the_same_with_json(run, out):
    refused("evaluate", run, "--ber", 2, "--json", "--out", out, words="expected a number in [0, 1]")
