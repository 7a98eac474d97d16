"""What does not run as a whole, for each reason, and that it computes what Brevitas does."""

import copy

import pytest
import torch
from brevitas import nn as qnn
from brevitas.core.function_wrapper import (
    FloorSte,
    Identity,
    OverOutputChannelView,
)
from brevitas.core.function_wrapper.misc import Abs, LogTwo, PowerOfTwo
from brevitas.core.function_wrapper.ops_ste import ScalarSignedClampMinSte
from brevitas.core.stats import stats_op
from brevitas.quant import Int8WeightPerChannelFloat
from torch import nn

import hwfault as hf
from hwfault.fusion.whole import WholeQuantizer
from hwfault.fusion.whole_parts import why_not_whole
from tests.helpers.fusion.inside import struck_by
from tests.helpers.fusion.variants import activation
from tests.helpers.fusion.variants import weight as weight_of
from tests.helpers.fusion.whole import CONSTANT, X, act, by_brevitas, linear, parts_of, proxy_of, quantize, same, ways
from tests.slowly import thinned

POWER = ("signed", "parameter", "nearest power", "limit")


def subclass(kind):
    """A type of its own, that says whether it ran."""
    ran = []

    def forward(self, *args, **kwargs):
        ran.append(1)
        return kind.forward(self, *args, **kwargs)

    return type(f"Own{kind.__name__}", (kind,), {"forward": forward, "ran": ran})


def every_part(layer):
    """(path, module) of each part of a quantizer that runs, and the proxy."""
    idle = ("_zero_hw_sentinel", "restrict_scaling_pre", "restrict_inplace_preprocess", "restrict_init")
    paths = dict(proxy_of(layer).named_modules())
    return {path: module for path, module in paths.items() if not any(name in path for name in idle)}


LAYERS = {
    "learned": lambda: activation(*POWER).layer,
    "magnitude": lambda: activation("rectified", "parameter", "float", "limit").layer,
    "log": lambda: activation("rectified", "parameter", "log", "no limit").layer,
    "const": lambda: activation("signed", "const", "next power", "no limit").layer,
    "weights": lambda: weight_of("linear", False, "stats", "float", "limit").layer,
    "channels": lambda: weight_of("linear", True, "stats", "next power", "limit").layer,
    "learned weights": lambda: weight_of("linear", True, "parameter", "log", "no limit").layer,
}


def settled():
    """A layer that learns what its statistics were."""
    layer = activation("signed", "parameter from stats", "float", "limit").layer
    for _ in range(3):
        quantize(layer, X)
    return layer


LAYERS["settled"] = settled
PATHS = thinned([(name, path) for name, build in LAYERS.items() for path in every_part(build())], 2)


def built(name):
    """A layer with parts of its own: by default Brevitas' quantizers share some."""
    return copy.deepcopy(LAYERS[name]())


def x_of(layer):
    return None if hasattr(layer, "weight_quant") else X.clone().requires_grad_()


def runs_of(layer, path):
    """How often a part runs by Brevitas' own modules."""
    ran = []
    part = proxy_of(layer).get_submodule(path)
    plain = part.forward
    part.forward = lambda *args, **kwargs: ran.append(1) or plain(*args, **kwargs)
    quantize(layer, x_of(layer))
    del part.forward
    return len(ran)


def seen_by(attach, name, path):
    """How often something attached to a part was called by a forward, without `fused`, inside of it and before."""
    counts = []
    for inside in (None, True, False):
        layer, seen = built(name), []
        part = proxy_of(layer).get_submodule(path)
        if inside is None:
            attach(part, seen)
            quantize(layer, x_of(layer)).value.sum().backward()
        else:
            if not inside:
                attach(part, seen)
            with hf.fused(layer):
                if inside:
                    attach(part, seen)
                quantize(layer, x_of(layer)).value.sum().backward()
        counts.append(len(seen))
    return counts


def another_forward(part, seen):
    plain = part.forward
    part.forward = lambda *args, **kwargs: seen.append(1) or plain(*args, **kwargs)


HOOKS = {
    "forward": lambda m, seen: m.register_forward_hook(lambda *_: seen.append(1)),
    "before": lambda m, seen: m.register_forward_pre_hook(lambda *_: seen.append(1)),
    "backward": lambda m, seen: m.register_full_backward_hook(lambda *_: seen.append(1)),
    "before backward": lambda m, seen: m.register_full_backward_pre_hook(lambda *_: seen.append(1)),
}


@pytest.mark.every(8)
@pytest.mark.parametrize(("name", "path"), PATHS)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_what_is_attached_to_a_part_is_called_as_often_as_without(name, path):
    for attach in (HOOKS["forward"], another_forward):
        counts = seen_by(attach, name, path)
        assert counts == [counts[0]] * 3, attach


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize(
    "path",
    [
        "fused_activation_quant_proxy",
        "fused_activation_quant_proxy.activation_impl",
        "fused_activation_quant_proxy.tensor_quant",
        "fused_activation_quant_proxy.tensor_quant.scaling_impl.restrict_clamp_scaling",
    ],
)
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.filterwarnings("ignore:For backward hooks to be called:UserWarning")
def test_every_kind_of_hook(kind, path):
    counts = seen_by(HOOKS[kind], "magnitude", path)
    assert counts == [counts[0]] * 3


@pytest.mark.parametrize(("name", "path"), PATHS)
def test_a_part_of_a_type_of_its_own_runs(name, path):
    layer = built(name)
    part = proxy_of(layer).get_submodule(path)
    runs = runs_of(layer, path)
    part.__class__ = own = subclass(type(part))
    with hf.fused(layer):
        found = quantize(layer, x_of(layer))
        assert len(own.ran) == runs
    assert same(found, quantize(layer, x_of(layer)))


def why(layer):
    return why_not_whole(proxy_of(layer)) or ""


class Handler(nn.Identity):
    """What an export puts in the place of a quantizer."""

    def prepare_for_export(self, _proxy):
        pass

    def attach_debug_info(self, _proxy):
        pass


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: setattr(p, "disable_quant", True), "it is switched off"),
        (lambda p: setattr(p, "skip_create_quant_tensor", True), "it returns values alone"),
        (lambda p: setattr(p.eval(), "export_mode", True), "it is being exported"),
        (lambda p: setattr(p.fused_activation_quant_proxy.tensor_quant, "observer_only", True), "it only observes"),
        (
            lambda p: setattr(p.fused_activation_quant_proxy, "activation_impl", nn.ReLU(inplace=True)),
            "its activation overwrites",
        ),
        (lambda p: setattr(p.fused_activation_quant_proxy, "activation_impl", nn.Tanh()), "its activation is a Tanh"),
        (lambda p: p.eval() and setattr(p, "cache_inference_quant_act", True), "it keeps what it returned"),
    ],
)
def test_switches(change, reason):
    layer = act()
    assert why(layer) == ""
    proxy = proxy_of(layer)
    proxy.export_handler = Handler()
    change(proxy)
    assert reason in why(layer)
    if "exported" not in reason:
        with hf.fused(layer):
            given = X.clone()
            assert same(quantize(layer, given), by_brevitas(layer, X.clone()))


def test_an_activation_that_overwrites_does_so():
    layer = act()
    with hf.fused(layer):
        quantize(layer, X)
        proxy_of(layer).fused_activation_quant_proxy.activation_impl = other = nn.ReLU()
        quantize(layer, X)
        other.inplace = True
        given = X.clone()
        quantize(layer, given)
        assert torch.equal(given, X.relu())


@pytest.mark.parametrize("build", [act, linear])
def test_what_is_kept_of_an_evaluation(build):
    layer = build()
    layer.eval()
    with hf.fused(layer):
        quantize(layer, x_of(layer))
        for name in ("cache_inference_quant_act", "cache_inference_quant_weight"):
            if hasattr(proxy_of(layer), name):
                setattr(proxy_of(layer), name, True)
        quantize(layer, x_of(layer))
        kept = getattr(proxy_of(layer), "_cached_act", None) or getattr(proxy_of(layer), "_cached_weight", None)
        assert kept is not None
        layer.train()
        quantize(layer, x_of(layer))
        assert WholeQuantizer.of(proxy_of(layer)).why is None


class _Strange(nn.Module):
    def forward(self, x, *_):
        return x * 1.5


@pytest.mark.parametrize(
    ("name", "path", "part"),
    [
        ("learned", "scaling_impl.restrict_clamp_scaling.restrict_value_impl.float_to_int_impl", Identity()),
        ("learned", "scaling_impl.restrict_clamp_scaling.restrict_value_impl.float_to_int_impl", FloorSte()),
        ("learned", "scaling_impl.restrict_clamp_scaling.restrict_value_impl.power_of_two", Identity()),
        ("learned", "scaling_impl.restrict_clamp_scaling.clamp_ste", Abs()),
        ("magnitude", "scaling_impl.restrict_clamp_scaling.restrict_value_impl.apply_abs", LogTwo()),
        ("magnitude", "scaling_impl.restrict_clamp_scaling.restrict_value_impl", PowerOfTwo()),
        ("magnitude", "scaling_impl.restrict_clamp_scale_threshold.restrict_value_impl", _Strange()),
        ("magnitude", "scaling_impl.restrict_clamp_scale_threshold.clamp_ste", ScalarSignedClampMinSte(9.0)),
        ("magnitude", "scaling_impl.restrict_clamp_threshold.restrict_value_impl", _Strange()),
        ("magnitude", "scaling_impl.restrict_threshold_pre", _Strange()),
        ("magnitude", "int_scaling_impl", _Strange()),
        ("settled", "scaling_impl.restrict_scale_threshold.restrict_value_impl", _Strange()),
        ("settled", "scaling_impl.restrict_scaling.restrict_value_impl", _Strange()),
        ("settled", "scaling_impl.clamp_scaling.clamp_min_ste", Abs()),
        ("weights", "scaling_impl.stats_scaling_impl.affine_rescaling", _Strange()),
        ("weights", "scaling_impl.stats_scaling_impl.restrict_scaling_pre", Identity()),
        ("weights", "scaling_impl.stats_scaling_impl.clamp_scaling.clamp_min_ste", Abs()),
        ("weights", "scaling_impl.stats_scaling_impl.restrict_clamp_scale_threshold.restrict_value_impl", _Strange()),
        ("weights", "scaling_impl.parameter_list_stats.stats.stats_impl", stats_op.AbsMinMax()),
        ("channels", "scaling_impl.stats_scaling_impl.restrict_scaling_pre", Abs()),
        ("channels", "scaling_impl.parameter_list_stats.stats.stats_impl", stats_op.AbsAve(1)),
        (
            "channels",
            "scaling_impl.parameter_list_stats.first_tracked_param.view_shape_impl",
            OverOutputChannelView(permute_dims=(0, 1)),
        ),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_part_that_is_replaced(name, path, part, inside):
    layer = built(name)
    owner, _, last = path.rpartition(".")

    def replace():
        setattr(parts_of(layer).get_submodule(owner), last, part)

    if not inside:
        replace()
    with hf.fused(layer):
        quantize(layer, x_of(layer))
        if inside:
            replace()
        assert same(quantize(layer, x_of(layer)), by_brevitas(layer, x_of(layer)))


def test_weights_that_two_layers_track(monkeypatch):
    first = linear()
    second = qnn.QuantLinear(6, 5, bias=False, weight_quant=first.weight_quant)
    with hf.fused(nn.Sequential(first, second)), ways(monkeypatch) as ran:
        for layer in (first, second):
            assert same(quantize(layer), by_brevitas(layer))
    assert ran == ["scale"] * 2


def test_layers_with_the_same_weights(monkeypatch):
    first, second = linear(), linear(Int8WeightPerChannelFloat)
    second.weight = first.weight
    with hf.fused(nn.Sequential(first, second)), ways(monkeypatch) as ran:
        for layer in (first, second):
            assert same(quantize(layer), by_brevitas(layer))
    assert ran == ["rule"] * 2


@pytest.mark.parametrize("name", ["scale", "zero point", "width"])
def test_constants_pass_no_gradient_even_if_they_want_one(name):
    layer = act(CONSTANT)
    quantizer = parts_of(layer)
    constant = {
        "scale": quantizer.scaling_impl.value,
        "zero point": quantizer.zero_point_impl.zero_point,
        "width": quantizer.msb_clamp_bit_width_impl.bit_width,
    }[name]
    constant.value.requires_grad_()
    with hf.fused(layer):
        for given in (X, X.clone().requires_grad_()):
            for grad in (True, False):
                with torch.set_grad_enabled(grad):
                    assert same(quantize(layer, given), by_brevitas(layer, given))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_scale_wants_a_gradient_where_its_source_does(frozen):
    for layer in (act(), act(CONSTANT)):
        for parameter in layer.parameters():
            parameter.requires_grad_(not frozen)
        with hf.fused(layer):
            for given in (X, X.clone().requires_grad_()):
                assert same(quantize(layer, given), by_brevitas(layer, given))


@pytest.mark.parametrize("way", ["extension", "ctypes"])
def test_what_may_not_run_as_a_whole_is_not_looked_at_each_time(way, monkeypatch):
    layer, looks = act(), []
    expected = quantize(layer, X)
    plain = WholeQuantizer._look
    monkeypatch.setattr(WholeQuantizer, "_look", lambda self: looks.append(plain(self)))
    with struck_by(way), hf.fused(layer) as block:
        handle = parts_of(layer).int_quant.float_to_int_impl.register_forward_hook(lambda *_: None)
        quantize(layer, X)
        del looks[:]
        for _ in range(3):
            assert same(quantize(layer, X), expected)
        assert not looks
        assert "a hook is attached" in block.left["act_quant"]
        handle.remove()
        assert same(quantize(layer, X), by_brevitas(layer, X))
        assert block.left == {}
