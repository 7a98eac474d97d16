"""What PyTorch's exporter cannot do is told in one sentence; all that it says is in the log."""

import logging
import warnings

import pytest
import torch
from torch import nn

from hwfault.errors import GraphError
from hwfault.graph.export.exporter import told_in_a_sentence
from hwfault.graph.export.of_network import export
from tests.helpers.graph.networks import Chain, batch, signed

X = batch("biased").flatten(1)
NAME = "Brevitas and PyTorch cannot export the network: "
INSTEAD = "; write it with operators that ONNX has, or leave it out of what is exported"


class Does(nn.Module):
    """A module that does one thing."""

    def __init__(self, forward):
        super().__init__()
        self.does = forward

    def forward(self, x):
        return self.does(x)


def missing(x):
    return torch.special.bessel_j0(x.value)


def number(x):
    return (torch.complex(x.value, x.value) * 1j).real


def odd_use(x):
    return nn.functional.adaptive_avg_pool1d(x.value.unsqueeze(1), 5).squeeze(1)


def failing(x):
    if torch.jit.is_tracing():
        raise RuntimeError("a reason\n" + "and its long list\n" * 200)
    return x


CASES = {
    missing: "ONNX of opset 17 has nothing for the operator 'aten::special_bessel_j0' of the module '1.inner'"
    + INSTEAD,
    number: "it computes with complex numbers, which ONNX does not have; compute with their real and imaginary parts "
    "as tensors of their own",
    odd_use: "the operator 'adaptive_avg_pool1d' of the module '1.inner' cannot be written as it is used (Unsupported: "
    "ONNX export of operator adaptive_avg_pool1d, output size that are not factor of input size)" + INSTEAD,
    failing: "a reason; the log at debug level has all that the exporter says",
}


def network(does):
    within = nn.Sequential()
    within.add_module("inner", Does(does))
    return Chain(signed(), within).eval()


def refusal(model):
    with pytest.raises(GraphError) as caught:
        export(model, X)
    return str(caught.value)


@pytest.mark.parametrize("does", CASES, ids=lambda does: does.__name__)
def test_is_told_in_a_sentence(does, capfd, caplog):
    with caplog.at_level(logging.DEBUG, logger="hwfault"):
        assert refusal(network(does)) == NAME + CASES[does]
    assert capfd.readouterr() == ("", "")
    assert "the exporter's whole text: " in caplog.text
    assert does is not missing or "aten::special_bessel_j0(%" in caplog.text
    assert does is not failing or caplog.text.count("and its long list") >= 200


def test_an_operator_of_ones_own():
    library = torch.library.Library("hwfault_tests", "FRAGMENT")
    library.define("twist(Tensor x) -> Tensor")
    library.impl("twist", lambda x: x * 1.5, "CPU")
    told = refusal(network(lambda x: torch.ops.hwfault_tests.twist(x.value)))
    named = "the operator 'hwfault_tests::twist' of the module '1.inner' is not one of PyTorch's own"
    assert told == f"{NAME}{named}, and ONNX has none for it{INSTEAD}"


def scripted(times):
    """An identity; TorchScript compiles the class anew for each set of attributes."""
    inner = nn.Identity()
    inner.times = times
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(inner)


def test_scripted_modules_also_of_a_class_that_was_scripted_before():
    modules = [scripted(times) for times in (1, 1.0)]
    assert "torch_mangle" in modules[1]._c._type().qualified_name()
    for module in modules:
        told = refusal(network(module))
        assert told.startswith(f"{NAME}it calls the scripted module 'torch.nn.modules.linear.Identity', which a trace")


def test_an_exception_without_words_is_named_by_its_type():
    wordless = type("WordlessError", (Exception,), {})
    with pytest.raises(GraphError, match="cannot export the network: WordlessError; the log"), told_in_a_sentence():
        raise wordless


def test_the_exporter_prints_again_afterwards():
    before = torch._C._jit_onnx_log
    for does in (missing, torch.nn.functional.relu):
        try:
            export(network(does), X)
        except GraphError:
            assert does is missing
        assert torch._C._jit_onnx_log is before
