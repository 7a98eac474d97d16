"""Faults as operators of torch: strike values, zero gradients, on the CPU and on CUDA."""

from hwfault.torch_ops import on_devices  # noqa: F401  # registers the operators' other devices
