"""Faults in a Brevitas network: its sites, the torch operators, attaching and detaching a plan."""

from hwfault.inject.attach import Injection, attached, inject
from hwfault.inject.layer import FaultInjectionFunction, QuantFaultInjectionLayer
from hwfault.inject.sites import sites

__all__ = ["FaultInjectionFunction", "Injection", "QuantFaultInjectionLayer", "attached", "inject", "sites"]
