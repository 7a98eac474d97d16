"""The extension's hook in place of that in Python, which it calls wherever it does not know what to do itself."""

import functools
from collections.abc import Callable
from typing import Any

from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjectorBase
from torch import nn

from hwfault.injection.runs import Runs
from hwfault.injection.site_hook import SiteHook
from hwfault.torch_ops.extension import extension
from hwfault.torch_ops.unheld import unheld_in_extension


def fast_forward(runs: Runs) -> Any:
    """What the extension's hooks of one injection share; None without an extension."""
    extended = extension()
    if extended is None:
        return None
    extended.set_unheld(unheld_in_extension(extended))
    return extended.Forward(runs)


def lean_hook(hook: SiteHook, proxy: nn.Module, fast: Any) -> Callable[..., Any]:
    """What is to be registered for a hook: the extension's, if there is one for what it does; else the hook itself."""
    extended = extension()
    is_activation = _switched_as_activation(proxy)
    if fast is None or extended is None or is_activation is None or not hook.is_common:
        return hook
    hook.is_activation = is_activation
    hook.state = extended.site(fast, hook.name)
    return functools.partial(extended.strike_output, hook)


def _switched_as_activation(proxy: nn.Module) -> bool | None:
    """Whether a quantizer is switched off as those of activations are, or as those of parameters; None: as neither."""
    switch = getattr(type(proxy), "is_quant_enabled", None)
    if switch is ActQuantProxyFromInjectorBase.is_quant_enabled:
        return True
    return False if switch is QuantProxyFromInjector.is_quant_enabled else None
