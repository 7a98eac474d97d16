"""Graphs in onnxruntime, and in qonnx where it is the oracle."""
