"""Faults in a Brevitas network: its sites, the torch operators, attaching and detaching a plan."""

from hwfault.inject import cuda_ops  # noqa: F401  # registers the operators' other devices
from hwfault.inject.attach import Injection, inject
from hwfault.inject.exact import exact_on_cuda
from hwfault.inject.function import FaultInjectionFunction
from hwfault.inject.layer import QuantFaultInjectionLayer
from hwfault.inject.ready import ProtectionCounts
from hwfault.inject.site_hook import attached
from hwfault.inject.sites import sites

__all__ = [
    "FaultInjectionFunction",
    "Injection",
    "ProtectionCounts",
    "QuantFaultInjectionLayer",
    "attached",
    "exact_on_cuda",
    "inject",
    "sites",
]
