"""The usual way to inject faults in training, to compare with: a random mask over each tensor of activations.

Own code after the description of such frameworks: of each activation tensor an exact share of elements is picked with
`randperm`, these get random other integers of the quantizer's range, `torch.where` puts them in, and the mask is kept
for the backward pass, which zeroes the gradient there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import nn

from hwfault.network.sites import quantizers, sites
from hwfault.torch_ops.function import FaultInjectionFunction


@contextmanager
def random_masks(model: nn.Module, share: float) -> Iterator[None]:
    """Faults in `share` of the elements of every activation tensor."""
    activations = {site.name for site in sites(model) if site.kind in ("activation", "input")}
    proxies = [proxy for name, proxy in quantizers(model) if name in activations]
    handles = [proxy.register_forward_hook(_Masked(share)) for proxy in proxies]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Masked:
    def __init__(self, share: float) -> None:
        self._share = share

    def __call__(self, proxy: nn.Module, args: tuple[Any, ...], output: IntQuantTensor) -> IntQuantTensor:
        if output.value.dim() == 0:
            return output
        bits, signed = int(output.bit_width), bool(output.signed)
        low = -(1 << bits - 1) if signed else 0
        with torch.no_grad():
            n, device = output.value.numel(), output.value.device
            mask = torch.zeros(n, dtype=torch.bool, device=device)
            mask[torch.randperm(n, device=device)[: int(self._share * n)]] = True
            integers = torch.randint(low, low + (1 << bits), output.value.shape, device=device)
            faulty = integers * output.scale
        mask = mask.view(output.value.shape)
        struck = FaultInjectionFunction.apply(output.value, faulty.to(output.value.dtype), mask)
        return output._replace(value=struck)
