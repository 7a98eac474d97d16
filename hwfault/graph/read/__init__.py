"""Reading ONNX and QONNX graphs: their sites, grids, shapes and layouts."""
