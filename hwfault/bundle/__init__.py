"""Bundles: a graph, its plan, real inputs and what PyTorch made of them, to be checked without PyTorch.

Each part is imported from its own module: only `hwfault.bundle.record` needs torch and Brevitas.
"""
