"""Faults in a Lightning Trainer of a user's own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from hwfault.errors import HwfaultError, ModelError
from hwfault.injection.site_hook import attached
from hwfault.laws.models import AccumulatorFormat, BitFlips, WordFaults
from hwfault.plan.fault_plan import FaultPlan
from hwfault.train.callback import FaultInjection, network_of
from hwfault.train.driver import evaluation_seed
from hwfault.train.schedule import Schedule, ScheduledFault
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import Call, Seen, faulty, same_bits
from tests.helpers.injection.snapshot import snapshot
from tests.helpers.train.lit import NAMES, Being, Float, Holding, Resumable, Settled, Two, Watch, loader, trainer
from tests.slowly import slow

FAULTS = [WordFaults(probability=0.2, effect="msb")]
ROOT = Path(__file__).parents[2]
pytestmark = [
    # Lightning's advice about loaders of data that is in memory, fits without validation, and resumes that do not save
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no .val_dataloader"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided"),
]


def fit(kind=Holding, faults=FAULTS, train=None, val=None, module=None, given=None, **options):
    """A fit under faults; the callback, what it saw, and the module."""
    callback = FaultInjection(faults, seed=7, **given or {})
    watch, module = Watch(callback), module or kind()
    run = trainer(callback, watch, **options)
    run.fit(module, train or loader(), val)
    return callback, watch, module


def check(watch, phase, name, numbers, seed=7):
    """Each call of a site has the faults of its numbers: a list for each."""
    calls = watch.calls[phase].of(name)
    assert len(calls) == len(numbers)
    for call, number in zip(calls, numbers, strict=True):
        given = {"step": number, "samples": ()} if "weight" in name else {"samples": number}
        assert same_bits(call.after, faulty(watch.plan, call, seed, **given))
        assert (call.before != call.after).any()


def batches(*sizes, first=0):
    """The numbers of the samples of batches, one after the other."""
    found = []
    for size in sizes:
        found.append(list(range(first, first + size)))
        first += size
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", [Holding, Being])
def test_every_forward_of_training_has_faults_of_its_own(kind, accumulate):
    """Also batches whose gradients are accumulated: step n has faults n, sample i faults i."""
    _, watch, _ = fit(kind, train=loader(14, 4), epochs=2, accumulate_grad_batches=accumulate)
    check(watch, "train", NAMES[kind]["weight"], list(range(8)))
    check(watch, "train", NAMES[kind]["act"], batches(4, 4, 4, 2, 4, 4, 4, 2))


@pytest.mark.parametrize("kind", [Holding, Being])
def test_several_forwards_of_a_step_have_faults_of_their_own(kind):
    _, watch, _ = fit(module=kind(draws=2))
    check(watch, "train", NAMES[kind]["weight"], list(range(8)))
    check(watch, "train", NAMES[kind]["act"], batches(*[4] * 8))


@pytest.mark.parametrize("kind", [Holding, Being])
def test_validation_has_the_faults_of_the_data_set_each_epoch(kind):
    seed = evaluation_seed(7)
    _, watch, _ = fit(kind, val=loader(10, 4), epochs=2, num_sanity_val_steps=2)
    act, weight = NAMES[kind]["act"], NAMES[kind]["weight"]
    check(watch, "sanity", act, batches(4, 4), seed)
    check(watch, "validation", act, batches(4, 4, 2) * 2, seed)
    check(watch, "validation", weight, [0] * 6, seed)
    check(watch, "train", act, batches(*[4] * 8))  # which validation does not disturb
    check(watch, "train", weight, list(range(8)))


def test_validation_within_an_epoch_and_in_several_data_sets():
    seed = evaluation_seed(7)
    val = [loader(6, 4), loader(4, 4, seed=1)]
    _, watch, _ = fit(val=val, val_check_interval=2)
    check(watch, "validation", "0.act_quant", [*batches(4, 2), *batches(4)] * 2, seed)
    check(watch, "train", "5.weight_quant", list(range(4)))


@pytest.mark.parametrize("phase", ["validate", "test", "predict"])
def test_evaluation_outside_of_fit(phase):
    callback = FaultInjection(FAULTS, seed=7, eval_seed=9)
    watch, module = Watch(callback), Holding()
    before = snapshot(module.network)
    run = trainer(callback, watch)
    for _ in range(2):
        getattr(run, phase)(module, loader(6, 4), **{} if phase == "predict" else {"verbose": False})
        assert callback.driver is None
    check(watch, {"validate": "validation"}.get(phase, phase), "0.act_quant", batches(4, 2) * 2, 9)
    after = snapshot(module.network)
    assert all(after[name]["hooks"] == part["hooks"] for name, part in before.items())
    assert all(after[name]["tensors"] == part["tensors"] for name, part in before.items())


def test_schedules_are_followed():
    faults = [
        ScheduledFault(fault=BitFlips(probability=0.1, sites="*act*"), schedule=Schedule(every_steps=3)),
        ScheduledFault(fault=BitFlips(probability=0.1, sites="*weight*"), schedule=Schedule(from_epoch=2)),
    ]
    _, watch, _ = fit(faults=faults, val=loader(4, 4), epochs=3)
    assert len(watch.calls["train"].of("0.act_quant")) == 2 * 3
    assert len(watch.calls["train"].of("5.weight_quant")) == 4 * 2
    assert len(watch.calls["validation"].of("0.act_quant")) == 3
    assert len(watch.calls["validation"].of("5.weight_quant")) == 2


def test_tests_have_the_faults_that_training_ends_with():
    late = ScheduledFault(fault=FAULTS[0], schedule=Schedule(from_epoch=30))
    callback = FaultInjection([late], seed=7)
    watch = Watch(callback)
    trainer(callback, watch).test(Holding(), loader(4, 4), verbose=False)
    check(watch, "test", "0.act_quant", batches(4), evaluation_seed(7))


class Stop(Callback):
    """Saves a checkpoint in a batch and stops, as a run that is killed."""

    def __init__(self, path, epoch, index):
        self.path, self.at = path, (epoch, index)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    """From the end of an epoch, and from the middle of one."""
    held = ScheduledFault(fault=FAULTS[0].model_copy(), schedule=Schedule(refresh_epochs=2))
    faults = [BitFlips(probability=0.02), held]
    options = {"faults": faults, "epochs": 3, "train": Resumable(), "val": loader(4, 4)}
    _, _, whole = fit(Settled, **options)
    keep = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1)
    callback = FaultInjection(faults, seed=7)
    trainer(callback, keep, epochs=2, enable_checkpointing=True).fit(Settled(), Resumable(), loader(4, 4))
    state = torch.load(keep.best_model_path, weights_only=True)["callbacks"][callback.state_key]
    assert state == {"steps": 8, "samples": 32}
    stopped = FaultInjection(faults, seed=7)
    with pytest.raises(SystemExit):
        trainer(stopped, Stop(tmp_path / "killed.ckpt", 1, 1), epochs=3).fit(Settled(), Resumable(), loader(4, 4))
    for path in (keep.best_model_path, tmp_path / "killed.ckpt"):
        module = Settled(seed=3)
        again = FaultInjection(faults, seed=7)
        trainer(again, epochs=3).fit(module, Resumable(), loader(4, 4), ckpt_path=path)
        assert again.state_dict() == {"steps": 12, "samples": 48}
        for key, value in whole.state_dict().items():
            assert torch.equal(value, module.state_dict()[key]), (path, key)
    other = FaultInjection(faults, seed=8)
    trainer(other, epochs=3).fit(module := Settled(), Resumable(), loader(4, 4))
    assert not torch.equal(whole.network[5].weight, module.network[5].weight)  # the faults do matter


def test_a_second_fit_goes_on():
    callback = FaultInjection(FAULTS, seed=7)
    watch, module = Watch(callback), Holding()
    trainer(callback, watch).fit(module, loader())
    trainer(callback, watch).fit(module, loader())
    check(watch, "train", "5.weight_quant", list(range(8)))


class Failing(Callback):
    """Raises in a batch."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, *_):
        raise self.error


@pytest.mark.parametrize(
    ("error", "raised"), [(ZeroDivisionError(), ZeroDivisionError), (KeyboardInterrupt(), SystemExit)]
)
@pytest.mark.parametrize("kind", [Holding, Being])
def test_an_exception_removes_everything(kind, error, raised):
    module, callback = kind(), FaultInjection(FAULTS, seed=7)
    network = network_of(module)
    before = snapshot(network)
    with pytest.raises(raised):
        trainer(callback, Failing(error)).fit(module, loader())
    assert callback.driver is None
    assert not attached(module)
    assert {k: v["hooks"] for k, v in snapshot(network).items()} == {k: v["hooks"] for k, v in before.items()}


@pytest.mark.parametrize("kind", [Holding, Being])
def test_the_end_of_training_leaves_no_trace(kind):
    """Without a learning rate, and with statistics at rest, the network is what it was to the bit and hook."""
    module = kind().eval()
    network = network_of(module)
    seen = []
    network.register_forward_pre_hook(lambda *_: seen.append(0))
    before, state = snapshot(network), {k: v.clone() for k, v in module.state_dict().items()}
    callback = FaultInjection(FAULTS, seed=7)
    trainer(callback).validate(module, loader(), verbose=False)
    after = snapshot(network)
    for name, part in before.items():
        assert after[name]["hooks"] == part["hooks"], name
        assert after[name]["tensors"] == part["tensors"], name
    assert all(same_bits(value, module.state_dict()[key]) for key, value in state.items() if value.is_floating_point())
    assert len(seen) == 4


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_mixed_precision(precision):
    callback, watch, module = fit(precision=precision, val=loader(4, 4), gradient_clip_val=0.1)
    for call in watch.calls["train"]:
        fmt = watch.plan.at(call.name).site
        scale, zero = call.scale.double(), call.zero_point.double()
        codes = [torch.round(t.double() / scale + zero) for t in (call.before, call.after)]
        changed = codes[0] != codes[1]
        assert torch.equal(changed, call.before != call.after)
        assert changed.any()
        flipped = codes[1][changed] - codes[0][changed]
        assert (flipped.abs() == 1 << (fmt.bit_width - 1)).all()
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert callback.state_dict()["steps"] == 4


def test_gradient_rules():
    """Faults of every word let no gradient through, or all of it."""
    every = [WordFaults(probability=1.0, effect="lsb", sites="5.weight_quant")]
    for rule, moves in (("zero", False), ("straight_through", True)):
        module = Holding()
        before = module.network[5].weight.detach().clone()
        fit(faults=every, module=module, given={"gradient": rule})
        assert torch.equal(before, module.network[5].weight) != moves


def test_several_callbacks():
    act = FaultInjection([BitFlips(probability=0.1, sites="*act*")], seed=1)
    weight = FaultInjection([BitFlips(probability=0.1, sites="*weight*")], seed=2)
    assert act.state_key != weight.state_key
    watches = Watch(act), Watch(weight)
    trainer(act, weight, *watches).fit(Holding(), loader())
    assert watches[0].calls["train"].of("0.act_quant")
    check(watches[1], "train", "5.weight_quant", list(range(4)), seed=2)


def test_the_network_within_a_module():
    module = Holding()
    assert network_of(module) is module.network
    assert network_of(module, "network.5") is module.network[5]
    being, two = Being(), Two()
    assert network_of(being) is being
    assert network_of(two) is two
    _, watch, _ = fit(module=two, given={"network": "other"})
    assert {call.name for call in watch.calls["train"]} == {"1.weight_quant"}


def test_networks_that_are_none():
    with pytest.raises(HwfaultError, match="has no module 'netwrok': did you mean 'network'"):
        fit(given={"network": "netwrok"})
    with pytest.raises(HwfaultError, match="the Float holds no Brevitas quantizer"):
        fit(Float)


def test_faults_of_accumulators_need_an_example():
    faults = [AccumulatorFormat(width=9)]
    with pytest.raises(ModelError, match="accumulators are known once an example"):
        fit(faults=faults)
    fit(faults=faults, given={"example": batch(1)})
    module = Holding()
    module.example_input_array = batch(1)
    _, watch, _ = fit(faults=faults, module=module)
    assert {call.name for call in watch.calls["train"]} == {"1.accumulator", "5.accumulator"}
    module.example_input_array = "batch"
    with pytest.raises(HwfaultError, match="example_input_array is a str, expected a tensor"):
        fit(faults=faults, module=module)


@pytest.mark.parametrize(
    ("options", "words"), [({"seed": -1}, "seed"), ({"gradient": "none"}, "gradient rule"), ({"eval_seed": -1}, "seed")]
)
def test_arguments_that_are_none(options, words):
    with pytest.raises(HwfaultError, match=words):
        FaultInjection(FAULTS, **options)


def test_strategies_that_split_the_network():
    from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy

    for kind in (FSDPStrategy, DeepSpeedStrategy):
        run = SimpleNamespace(strategy=kind.__new__(kind))
        with pytest.raises(HwfaultError, match=f"strategy {kind.__name__}, expected one device or DDP"):
            FaultInjection(FAULTS).on_fit_start(run, Holding())


@pytest.fixture(scope="module", params=[slow("Holding"), slow("Being")])
def ranks(request, tmp_path_factory):
    """What both ranks of a run under torchrun saw."""
    out = tmp_path_factory.mktemp("ranks")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*run, "-m", "tests.helpers.train.two_ranks", request.param, str(out)],
        env=env,
        cwd=out,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plan = FaultPlan.load(out / "plan.json")
    saved = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for rank in saved:
        calls = {phase: Seen(Call(**call) for call in calls) for phase, calls in rank["calls"].items()}
        rank["watch"] = SimpleNamespace(calls=calls, plan=plan)
    return NAMES[{"Holding": Holding, "Being": Being}[request.param]], saved


def test_ranks_see_other_faults_in_training(ranks):
    """Number n of rank r is 2 n + r, of steps and samples, each forward counted once."""
    names, saved = ranks
    for rank, found in enumerate(saved):
        check(found["watch"], "train", names["weight"], [2 * n + rank for n in range(4)])
        numbers = [[2 * n + rank for n in numbers] for numbers in batches(4, 4, 4, 4)]
        check(found["watch"], "train", names["act"], numbers)
        assert found["steps"] == {"steps": 4, "samples": 16}
        assert found["removed"]


def test_ranks_validate_under_the_faults_of_the_data_set(ranks):
    """Sample number = index in the data set; weights have the same faults on both."""
    names, saved = ranks
    seed = evaluation_seed(7)
    for rank, found in enumerate(saved):
        mine = [[2 * n + rank for n in numbers] for numbers in batches(4, 1)]
        check(found["watch"], "sanity", names["act"], mine[:1], seed)
        check(found["watch"], "validation", names["act"], mine * 3, seed)
        check(found["watch"], "validation", names["weight"], [0] * 6, seed)


def test_ranks_have_the_same_weights(ranks):
    one, other = (found["weights"] for found in ranks[1])
    assert one.keys() == other.keys()
    trained = [key for key in one if key.endswith("weight")]
    assert trained
    assert all(torch.equal(one[key], other[key]) for key in trained)


def test_the_modules_of_tests_compute():
    assert Holding()(batch(2)).shape == Being()(batch(2)).shape == (2, 5)
    assert isinstance(build("cnn"), nn.Module)
