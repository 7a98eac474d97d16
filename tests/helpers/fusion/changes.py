"""What may be changed about a quantizer between two forwards."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

from tests.helpers.fusion.whole import CONSTANT, act, parts_of, proxy_of


def width(layer):
    return parts_of(layer).msb_clamp_bit_width_impl.bit_width


def set_width(layer, value):
    width(layer).value = torch.tensor(value)


def write_width(layer):
    width(layer).value.fill_(3.0)


def write_scale(layer):
    parts_of(layer).scaling_impl.value.data.fill_(1.3)


def reshape_scale(layer):
    parts_of(layer).scaling_impl.value.data = torch.linspace(0.5, 1, 6).reshape(1, 6)


def replace_scale(layer):
    parts_of(layer).scaling_impl.value = nn.Parameter(torch.tensor(0.7))


def scale_as_buffer(layer):
    scaling = parts_of(layer).scaling_impl
    value = scaling.value.detach() * 0.5
    del scaling.value
    scaling.register_buffer("value", value)


class Half(nn.Module):
    def forward(self, value):
        return value / 2


def parametrize_scale(layer):
    parametrize.register_parametrization(parts_of(layer).scaling_impl, "value", Half())


def raise_limit(layer):
    parts_of(layer).scaling_impl.restrict_clamp_scaling.clamp_ste.min_val = 3.0


def set_part(name, **attributes):
    def change(layer):
        for attribute, value in attributes.items():
            setattr(parts_of(layer).get_submodule(name), attribute, value)

    return change


def narrow(layer):
    set_part("int_quant", narrow_range=True)(layer)


def narrow_range_of_scale(layer):
    set_part("int_scaling_impl", narrow_range=True)(layer)


def unsigned(layer):
    set_part("int_quant", signed=False)(layer)


def unsigned_range_of_scale(layer):
    set_part("int_scaling_impl", signed=False)(layer)


def unsigned_proxy(layer):
    proxy_of(layer).is_signed = False


def another_zero_point(layer):
    parts_of(layer).zero_point_impl = Shifted()


def write_zero_point(layer):
    parts_of(layer).zero_point_impl.zero_point.value.fill_(2.0)


class Shifted(nn.Module):
    def forward(self, x, scale, bit_width):
        return torch.tensor(1.0)


class Fixed(nn.Module):
    def forward(self, x, threshold=None):
        return torch.tensor(0.2)


def another_scaling(layer):
    parts_of(layer).scaling_impl = Fixed()


def only_observe(layer):
    parts_of(layer).observer_only = True


def switch_off(layer):
    proxy_of(layer).disable_quant = True


def values_alone(layer):
    proxy_of(layer).skip_create_quant_tensor = True


def evaluate(layer):
    layer.eval()


def evaluate_scaling_alone(layer):
    parts_of(layer).scaling_impl.eval()


def rebuild(layer):
    proxy_of(layer).init_tensor_quant()


def reload(layer):
    state = {name: value * 1.5 for name, value in layer.state_dict().items()}
    layer.load_state_dict(state)


def to_double(layer):
    layer.double()


def there_and_back(layer):
    layer.double().float()


def replace_proxy_parts(layer):
    proxy_of(layer).fused_activation_quant_proxy = copy.deepcopy(act(CONSTANT).act_quant.fused_activation_quant_proxy)


def rectify(layer):
    proxy_of(layer).fused_activation_quant_proxy.activation_impl = nn.ReLU()


def rectify_otherwise(layer):
    proxy_of(layer).fused_activation_quant_proxy.activation_impl = nn.ReLU6()


def write_weights(layer):
    layer.weight.data.mul_(3)


def replace_weights(layer):
    layer.weight = nn.Parameter(torch.randn(5, 6))


def parametrize_weights(layer):
    parametrize.register_parametrization(layer, "weight", Half())
