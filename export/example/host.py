"""What host.cc does, with onnxruntime and NumPy alone.

Arguments: LIBHWFAULT GRAPH.onnx INPUT.npy SEED FIRST_SAMPLE
"""

import sys

import numpy as np
import onnxruntime

library, graph, x, seed, first_sample = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(library)
session = onnxruntime.InferenceSession(graph, options)
numbers = {"hwfault_seed": np.array(int(seed), np.uint64).view(np.int64)}  # the 64 bits of the seed
numbers["hwfault_first_sample"] = np.array(int(first_sample))
(output,) = session.run(None, {"input": np.load(x), **numbers})
print(*(value.hex() for value in output.ravel().tolist()), sep="\n")
