"""The extension's hooks where they must not act: what is refused, switched off, copied or compiled."""

import copy
import functools
import pickle
import threading

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8ActPerTensorFloat
from torch import nn

from hwfault.errors import HwfaultError, PlanError
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips
from hwfault.torch_ops.extension import extension
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import FAULTS, same_bits
from tests.injection.test_lean_hook import both

pytestmark = [
    pytest.mark.skipif(extension() is None, reason="the C++ extension is not built"),
    pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning"),
]


def test_a_run_too_many_is_python_s_to_refuse():
    model = build("twice")
    model.relu.register_forward_hook(lambda module, _args, out: module.forward(out) if more else None)
    more = False
    with inject(model, FAULTS["bits"], seed=7, example=batch(8)), torch.no_grad():
        model(batch(8))
        more = True
        with pytest.raises(PlanError, match="runs"):
            model(batch(8))


def test_an_error_within_a_forward_leaves_nothing_behind():
    def run():
        model = build("cnn")
        with inject(model, FAULTS["bits"], seed=7), torch.no_grad():
            handle = model[2].register_forward_hook(lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model(batch(8))
            handle.remove()
            return [model(batch(8)), model(batch(8))]

    both(run)


def test_a_batch_that_is_not_the_inputs_is_refused():
    class Halved(nn.Sequential):
        def forward(self, x):
            return super().forward(x[:4])

    model = Halved(qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4))
    model(batch(8))
    with inject(model, [BitFlips(probability=0.1)], seed=1), pytest.raises(PlanError, match="but the inputs hold 8"):
        model(batch(8))


def test_a_width_that_is_set_meanwhile_is_refused():
    model = build("cnn")
    with inject(model, FAULTS["bits"], seed=7), torch.no_grad():
        model(batch(8))
        model[3].act_quant.fused_activation_quant_proxy.tensor_quant.msb_clamp_bit_width_impl.bit_width.value.fill_(3)
        with pytest.raises(HwfaultError, match="the bit width of the site"):
            model(batch(8))


def test_quantizers_that_are_switched_off_are_left_alone():
    def run():
        model = nn.Sequential(qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4))
        model(batch(8))
        with inject(model.eval(), FAULTS["bits"], seed=7), torch.no_grad():
            found = [model(batch(8))]
            model[0].act_quant.disable_quant = True
            return [*found, model(batch(8))]

    both(run)


def test_another_thread_is_refused():
    model, errors = build("cnn"), []
    with inject(model, FAULTS["bits"], seed=7), torch.no_grad():
        model(batch(8))

        def elsewhere(*_):
            def run():
                try:
                    model[3](torch.zeros(8, 4, 4, 4))
                except HwfaultError as error:
                    errors.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()

        model[2].register_forward_hook(elsewhere)
        model(batch(8))
    assert len(errors) == 1


def test_copies_are_clean_and_the_hook_itself_is_never_copied():
    model = build("cnn")
    clean = model(batch(8))
    with inject(model, FAULTS["bits"], seed=7):
        assert attached(model)
        assert same_bits(copy.deepcopy(model)(batch(8)).detach(), clean.detach())
        (hook,) = [h for h in model[0].act_quant._forward_hooks.values() if isinstance(h, functools.partial)]
        for copied in (copy.deepcopy, pickle.dumps):
            with pytest.raises(HwfaultError, match="copied or pickled"):
                copied(hook)
    assert not attached(model)
    assert same_bits(model(batch(8)).detach(), clean.detach())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_compiler_follows_the_hook_in_python():
    model = nn.Sequential(qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4))
    model(batch(8))
    with inject(model.eval(), FAULTS["bits"], seed=7) as injection, torch.no_grad():
        injection.samples = torch.arange(8)
        expected = model(batch(8))
        torch.compiler.reset()
        found = torch.compile(model, backend="eager", fullgraph=True)(batch(8))
        torch.compiler.reset()
    assert same_bits(found, expected)
