"""Run by the oldest onnxruntime, without hwfault: a faulted graph's outputs for the inputs in an .npz file.

Arguments: library, graph, inputs (.npz, one array for each graph input), outputs (.npz to write), threads.
"""

import sys

import numpy as np
import onnxruntime

library, graph, inputs, outputs, threads = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(library)
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
names = [entry.name for entry in session.get_outputs()]
with np.load(inputs) as given:
    feeds = {name: given[name] for name in given.files}
np.savez(outputs, version=np.array(onnxruntime.__version__), **dict(zip(names, session.run(names, feeds), strict=True)))
