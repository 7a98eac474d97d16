"""Fault plans in ONNX graphs: export, insertion, sessions of onnxruntime, replay against PyTorch.

Each part is imported from its own module, so that running a graph needs neither torch nor Brevitas.
"""
