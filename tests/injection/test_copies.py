"""Copies of a network that are made while faults are attached to it: clean networks, however they are made."""

import copy
import functools
import gc
import io
import pickle
import weakref

import brevitas.nn as qnn
import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.errors import HwfaultError
from hwfault.graph.export.of_network import export
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train.callback import FaultDriver
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import same_bits

FLIPS = [BitFlips(probability=0.05)]
SUMS = [BitFlips(probability=0.02, sites={"kind": "accumulator"})]


def by_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_python_pickle(model):
    file = io.BytesIO()
    pickle._Pickler(file).dump(model)
    return pickle.loads(file.getvalue())  # noqa: S301  # written here


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))  # noqa: S301  # written here


class EMA:
    """Averages as timm, torch-ema and their like keep them: a deepcopy, then its parameters in place."""

    def __init__(self, model):
        self.module = copy.deepcopy(model).eval()
        for p in self.module.parameters():
            p.requires_grad_(False)

    @torch.no_grad()
    def update(self, model):
        for mine, theirs in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            mine.copy_(theirs)


def by_ema(model):
    ema = EMA(model)
    ema.update(model)
    return ema.module


def by_swa(model):
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    return averaged.module


def by_torch_ema(model):
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    averaged.update_parameters(model)
    averaged.update_parameters(model)
    return averaged.module


def within_another(model):
    return copy.deepcopy({"it": [nn.Sequential(model)]})["it"][0][0]


WAYS = [copy.deepcopy, by_ema, by_swa, by_torch_ema, within_another]


def own_hooks(model):
    """Everything of hwfault's that a module holds, found by looking at its attributes one by one."""

    def ours(value):
        return type(value).__module__.startswith("hwfault") or getattr(value, "__module__", "").startswith("hwfault")

    found = []
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            entries = (
                list(value.values()) + list(getattr(value, "__dict__", {}).values()) if isinstance(value, dict) else []
            )
            if any(map(ours, [value, *entries])) or key in ("__getstate__", "__deepcopy__", "inner_forward_impl"):
                found.append((name, key))
    return found


def network(name="cnn"):
    """A network with faults on quantizers and accumulators, and inputs for it."""
    model, x = build(name), batch()
    listed = sites(model, example=x)
    return model, x, resolve(listed, [*FLIPS, *SUMS]), listed


@pytest.mark.parametrize("name", ["cnn", "biased"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_copy_is_a_clean_network(name, way):
    model, x, plan, _ = network(name)
    clean = model(x)
    with inject(model, plan, seed=1) as injection:
        struck = model(x)
        twin = way(model)
        assert not attached(twin)
        assert own_hooks(twin) == []
        assert same_bits(twin(x), clean)
        injection.first_sample = 0
        assert same_bits(model(x), struck), "the original stays faulty"
        assert attached(model)
    assert same_bits(twin(x), clean)
    assert same_bits(model(x), clean)
    assert own_hooks(model) == []
    with inject(twin, plan, seed=1):  # the copy is a network like others
        assert same_bits(twin(x), struck)
        assert same_bits(model(x), clean)
    assert same_bits(twin(x), clean)


def test_the_networks_here_have_accumulators():
    model, _, plan, listed = network()
    assert {"accumulator", "weight", "activation"} <= {site.kind for site in listed}
    with inject(model, plan, seed=1):
        assert {key[1] for key in own_hooks(model)} >= {"_forward_hooks", "_forward_pre_hooks", "inner_forward_impl"}


def test_a_copy_of_a_part():
    model, x, plan, _ = network()
    clean, inner = model[1](model[0](x)), model[0](x)
    with inject(model, plan, seed=1):
        twin = copy.deepcopy(model[1])
        proxy = copy.deepcopy(model[1].weight_quant)
    assert own_hooks(twin) == own_hooks(proxy) == []
    assert same_bits(twin(inner), clean)
    assert type(copy.deepcopy(model[1])) is type(twin)


def test_copies_of_copies_and_of_nested_injections():
    model, x, plan, _ = network()
    clean = model(x)
    with inject(model, plan, seed=1), inject(model, FLIPS, seed=2) as inner:
        one = copy.deepcopy(model)
        inner.remove()
        other = copy.deepcopy(model)
        with inject(one, plan, seed=3):
            third = copy.deepcopy(one)
    for twin in (one, other, third):
        assert own_hooks(twin) == []
        assert same_bits(twin(x), clean)


def test_the_original_stays_faulty_when_its_copy_is_freed():
    model, x, plan, _ = network()
    with inject(model, plan, seed=1) as injection:
        struck = model(x)
        gone = weakref.ref(twin := copy.deepcopy(model))
        del twin
        gc.collect()
        assert gone() is None
        injection.first_sample = 0
        assert same_bits(model(x), struck)


def test_the_user_s_own_hooks_are_copied_and_can_be_removed():
    model, x, plan, _ = network()
    before = model[0].act_quant.register_forward_hook(functools.partial(_doubled))
    doubled = model(x)
    with inject(model, plan, seed=1):
        between = model[0].act_quant.register_forward_hook(functools.partial(_doubled))
        twin = copy.deepcopy(model)
        between.remove()
        other = copy.deepcopy(model)
    assert len(twin[0].act_quant._forward_hooks) == 2
    assert len(other[0].act_quant._forward_hooks) == 1
    assert same_bits(other(x), doubled)
    before.remove()
    assert not model[0].act_quant._forward_hooks
    assert vars(model[0].act_quant._forward_hooks) == {}


def test_hooks_of_the_user_s_are_those_of_the_copied_objects():
    """As `copy.deepcopy` does without faults: a hook that is a module's method is that of the copy."""
    model, x, plan, _ = network()
    noting = Noting(model)
    with inject(noting.model, plan, seed=1):
        twin = copy.deepcopy(noting)
        twin.model(x)
    assert (noting.seen, twin.seen) == (0, 1)


class Noting(nn.Module):
    """Counts the forwards of a quantizer that injections hook, too."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, 0
        model[0].act_quant.register_forward_hook(self.note)

    def note(self, _module, _args, _output):
        self.seen += 1


class Counting:
    """A hook with a state of its own, which knows the dict that it is in."""

    def __init__(self, hooks):
        self.hooks, self.calls = hooks, 0

    def __call__(self, _module, _args, _output):
        self.calls += 1


def test_the_user_s_hooks_are_copied_with_their_state():
    model, x, plan, _ = network()
    hooks = model[0].act_quant._forward_hooks
    mine = Counting(hooks)
    model[0].act_quant.register_forward_hook(mine)
    with inject(model, plan, seed=1):
        model(x)
        twin = copy.deepcopy(model)
    (theirs,) = twin[0].act_quant._forward_hooks.values()
    assert theirs.hooks is twin[0].act_quant._forward_hooks
    twin(x)
    assert (mine.calls, theirs.calls) == (1, 2)


def all_hooks(model):
    """The keys of everything that modules note about hooks, also of how they are called."""
    return {
        (name, key): list(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if "hooks" in key and isinstance(value, dict)
    }


def test_a_copy_notes_nothing_about_hooks_that_it_does_not_have():
    model, _, plan, _ = network()
    clean = all_hooks(copy.deepcopy(model))
    with inject(model, plan, seed=1):
        assert all_hooks(model)["", "_forward_pre_hooks_with_kwargs"]
        assert all_hooks(copy.deepcopy(model)) == clean


def _doubled(_module, _args, output):
    return output._replace(value=output.value * 2) if hasattr(output, "value") else output * 2


def test_shallow_copies_share_the_quantizers_and_keep_nothing():
    model, x, plan, _ = network()
    clean = model(x)
    with inject(model, plan, seed=1):
        twin, layer = copy.copy(model), copy.copy(model[1])
        assert "inner_forward_impl" not in vars(layer)
        assert not same_bits(twin(x), clean), "its quantizers are those of the model"
    assert same_bits(twin(x), clean)
    assert own_hooks(twin) == own_hooks(layer) == []


def test_models_whose_parameters_are_given():
    model, x, plan, _ = network()
    clean = model(x)
    with inject(model, plan, seed=1):
        base = copy.deepcopy(model)
        parameters, buffers = stack_module_state([model, copy.deepcopy(model)])
    one = {name: t[1] for name, t in {**parameters, **buffers}.items()}
    assert same_bits(functional_call(base, one, (x,)), clean)


class Float(nn.Module):
    """A network that pickle takes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(x)


@pytest.mark.parametrize("way", [by_torch_save, by_python_pickle, by_pickle])
def test_pickled_modules_have_no_hooks(way):
    """Of hooks alone: Brevitas' own quantizers are made of classes that pickle does not find."""
    from hwfault.network.hooks import OwnHook, StandIn

    model, x = Float(), torch.ones(2, 6)
    clean = model(x)
    hooks = [
        OwnHook.after_forward(model.fc, lambda _m, _a, out: out * 2),
        OwnHook.before_forward(model, lambda _m, args: (args[0] + 1,)),
        StandIn(model.fc, "forward", lambda x: x[:, :3], lambda: None),
    ]
    theirs = model.register_forward_hook(_doubled)
    twin = way(model)
    assert same_bits(twin(x), clean * 2)
    assert own_hooks(twin) == []
    for hook in hooks:
        hook.remove()
    theirs.remove()
    assert same_bits(model(x), clean)
    assert own_hooks(model) == []


def test_parametrized_layers_which_copy_themselves():
    model, x = build("cnn"), batch()
    parametrize.register_parametrization(model[1], "weight", nn.Identity())
    plan = resolve(sites(model, example=x), SUMS)
    clean = model(x)
    with inject(model, plan, seed=1) as injection:
        struck = model(x)
        assert not same_bits(struck, clean)
        twin = copy.deepcopy(model)
        injection.first_sample = 0
        assert same_bits(model(x), struck)
    assert own_hooks(twin) == own_hooks(model) == []
    assert same_bits(twin(x), clean)
    refused = pytest.raises(HwfaultError, match="cannot be copied or pickled while its arithmetic is replaced")
    with integer_arithmetic(model), inject(model, plan, seed=1), refused:
        copy.deepcopy(model[1])


def test_traced_modules_which_copy_their_hooks_themselves():
    model, x = build("cnn"), batch()
    graph = torch.fx.GraphModule(model, _calls(model))
    clean = graph(x)
    with inject(graph, FLIPS, seed=1):
        assert not same_bits(graph(x), clean)
        twin = copy.deepcopy(graph)
    assert own_hooks(twin) == []
    assert same_bits(twin(x), clean)


def _calls(model):
    """A graph that calls the children one after the other."""
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    for name, _ in model.named_children():
        x = graph.call_module(name, (x,))
    graph.output(x)
    return graph


def test_a_way_of_copying_that_is_not_known_is_stopped():
    model, _, plan, _ = network()
    with inject(model, plan, seed=1):
        for hooks in (model[0].act_quant._forward_hooks, vars(model[1])):
            with pytest.raises(HwfaultError, match="copied or pickled with it in a way that hwfault does not know"):
                copy.deepcopy(list(hooks.values()))


def test_integer_arithmetic_with_faults_is_still_no_network_to_copy():
    model, x, plan, _ = network()
    with inject(model, plan, seed=1):
        with integer_arithmetic(model):
            for part in (model, model[1]):
                with pytest.raises(HwfaultError, match="cannot be copied or pickled while its arithmetic is replaced"):
                    copy.deepcopy(part)
        twin = copy.deepcopy(model)
    assert same_bits(twin(x), model(x))


def test_copies_made_in_training_with_a_driver():
    model, x = build("cnn"), batch()
    driver = FaultDriver(model, FLIPS, seed=1, example=x)
    driver.train_step(1, 0)
    averaged = AveragedModel(model.train())
    model(x).sum().backward()
    averaged.update_parameters(model)
    driver.remove()
    assert own_hooks(averaged) == []
    assert same_bits(averaged.module.eval()(x), model.eval()(x))


def test_a_copy_can_be_exported_while_the_original_is_faulty():
    model, x, plan, _ = network()
    with inject(model, plan, seed=1):
        graph = export(copy.deepcopy(model), x)
    assert graph.SerializeToString() == export(model, x).SerializeToString()
    assert isinstance(model[0], qnn.QuantIdentity)
