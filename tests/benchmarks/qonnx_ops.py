"""The ops of QONNX in onnxruntime, one thread, against qonnx's executor on the same arrays."""

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.side_by_side import ratios, show
from tests.graph.run.test_qonnx_layers import annotated, pool_by_qonnx
from tests.helpers.graph.ops import by_qonnx, load, model, quant_node

_THRESHOLDS = {"out_dtype": "UINT8", "data_layout": "NHWC"}
_AVERAGE = {"kernel": 4, "stride": 4, "ibits": 8, "obits": 8, "signed": 0, "data_layout": "NHWC"}
_WINDOWS = {"kernel_size": [3, 3], "stride": [1, 1], "pad_amount": [1, 1, 1, 1]}


def main(rounds: int = 15) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(8, 56, 56, 64)) * 4).astype(np.float32)
    bits = rng.integers(0, 2, (784, 576)).astype(np.float32)
    for op, attributes, inputs in (
        ("Quant", {"signed": 1, "narrow": 0}, [x, 0.1, 0, 4]),
        ("Trunc", {"rounding_mode": "FLOOR"}, [x, 0.1, 0, 8, 0.4, 4]),
        ("FloatQuant", {"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1}, [x, 1, 4, 3, 7, 448]),
        ("MultiThreshold", _THRESHOLDS, [x[:1], np.sort(rng.normal(size=(64, 15)))]),
        ("MultiThreshold", _THRESHOLDS, [x[:1], np.sort(rng.normal(size=(64, 255)))]),
        ("Im2Col", _WINDOWS, [x[:1]]),
        ("XnorPopcountMatMul", {}, [bits, bits.T[:, :128]]),
        ("QuantAvgPool2d", _AVERAGE, [np.abs(np.round(x))]),
        ("MaxPoolNHWC", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}, [x]),
    ):
        arrays = [np.ascontiguousarray(values, np.float32) for values in map(np.asarray, inputs)]
        _compare(
            op, attributes, [a if np.ndim(v) else a.reshape(()) for a, v in zip(arrays, inputs, strict=True)], rounds
        )


def _compare(op: str, attributes: dict[str, object], inputs: list[NDArray[np.float32]], rounds: int) -> None:
    feeds = dict(zip((f"x{i}" if i else "x" for i in range(len(inputs))), inputs, strict=True))
    node = quant_node(op, " ".join(feeds), **attributes)
    session = load(model(node))
    pools = ("QuantAvgPool2d", "MaxPoolNHWC")
    graph = annotated() if op == "Im2Col" else None
    by_executor = (
        (lambda: pool_by_qonnx(node, inputs[0])) if op in pools else lambda: by_qonnx(node, feeds, graph=graph)
    )
    variants = {"onnxruntime": lambda: session.run(None, feeds), "qonnx's executor": by_executor}
    title = f"{op} of {' and '.join(str(a.shape) for a in inputs if a.ndim)}"
    show(title, ratios(variants, rounds))


if __name__ == "__main__":
    main()
