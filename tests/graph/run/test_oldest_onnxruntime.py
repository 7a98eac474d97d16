"""The library in the oldest onnxruntime it supports, against the installed one: equal in every bit.

`make test` sets up that runtime in an environment of its own and names its Python in HWFAULT_OLDEST_ONNXRUNTIME.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.upgrade import upgrade
from hwfault.graph.export.of_network import export
from hwfault.graph.read.sites import sites as sites_of_graph
from hwfault.graph.run.session import run, session
from hwfault.laws.models import AccumulatorFormat, BitFlips, Clusters, LateBits, ProfileFaults, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.native import onnxruntime_library
from hwfault.stream.protection_scheme import Protection
from hwfault.train.networks import build
from tests.helpers.graph.ops import QONNX, assert_same
from tests.helpers.graph.qdq import inputs, quantized

HOST = Path(__file__).with_name("old_host.py")
FAULTS = [
    BitFlips(probability=0.02),
    BitFlips(p01=0.01, p10=0.001, sites={"kind": "weight"}),
    WordFaults(probability=0.01, sites={"kind": "activation"}),
    Clusters(probability=0.001, sizes=[0.5, 0.3, 0.2], axis="word"),
]
SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}}
HARDWARE = [
    ProfileFaults(**SRAM),
    ProfileFaults(profile="ddr3l-retention-70c-1v35", at={"refresh_interval_ms": 2048}),
    ProfileFaults(**SRAM, sites={"kind": "activation"}, protection=Protection(kind="parity", data_bits=16)),
    AccumulatorFormat(width=14, overflow="saturate"),
    LateBits(probability=0.01, bits=4),
]


needs_it = pytest.mark.skipif(
    "HWFAULT_OLDEST_ONNXRUNTIME" not in os.environ, reason="`make test` names the oldest onnxruntime"
)


def host(folder, threads):
    """The outputs, in the oldest onnxruntime, of g.onnx in a folder on in.npz."""
    names = [str(folder / name) for name in ("g.onnx", "in.npz", "out.npz")]
    command = [os.environ["HWFAULT_OLDEST_ONNXRUNTIME"], str(HOST), onnxruntime_library(), *names, str(threads)]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(folder / "out.npz") as old:
        assert str(old["version"]).startswith("1.20.")
        return {name: old[name] for name in old.files}


@pytest.mark.every(5)
@needs_it
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("faults", [FAULTS, HARDWARE], ids=["stream", "hardware"])
@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_the_oldest_onnxruntime_gives_the_same_bits(tmp_path, arithmetic, faults, threads):
    network = build("digits_cnn", seed=3).eval()
    x = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = export(network, x, plan=resolve(sites(network, x), faults), arithmetic=arithmetic)
    onnx.save(graph, tmp_path / "g.onnx")
    np.savez(tmp_path / "in.npz", input=x.numpy(), hwfault_seed=np.int64(-5), hwfault_first_sample=np.int64(70))
    (new,) = run(session(graph), x.numpy(), seed=2**64 - 5, first_sample=70)
    assert host(tmp_path, threads)["output"].tobytes() == new.tobytes()
    (clean,) = run(session(export(network, x)), x.numpy())
    assert not np.array_equal(clean, new)


QONNX_OPS = {
    "trunc1": ("Trunc", "x scale zero bits few", {}),
    "trunc2": ("Trunc", "x scale zero bits larger few", {"rounding_mode": "HALF_UP"}),
    "float": ("FloatQuant", "x scale bits few seven larger", {"has_inf": 1, "saturation": 0}),
    "threshold": ("MultiThreshold", "x thresholds", {"out_dtype": "UINT2", "data_layout": "NHWC"}),
    "im2col": ("Im2Col", "x", {"kernel_size": [3, 3], "stride": [1, 2], "pad_amount": [1, 1, 1, 1]}),
    "average": ("QuantAvgPool2d", "x", {"kernel": 2, "stride": 2, "ibits": 4, "obits": 4, "data_layout": "NHWC"}),
    "maximum": ("MaxPoolNHWC", "x", {"kernel_shape": [2, 2]}),
    "xnor": ("XnorPopcountMatMul", "a b", {}),
    "old": ("Quant", "x scale zero few", {"signed": 1, "narrow": 0}),
}


@needs_it
def test_the_ops_of_qonnx(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 8, (5, 8, 8, 4)).astype(np.float32)
    constants = {"scale": 0.5, "zero": 0, "bits": 8, "few": 3, "larger": 2, "seven": 7}
    constants |= {"thresholds": np.sort(rng.normal(size=(4, 3))), "a": rng.integers(0, 2, (3, 99))}
    constants["b"] = rng.integers(0, 2, (99, 5))
    nodes = [
        helper.make_node(op, names.split(), [out], domain="onnx.brevitas" if out == "old" else QONNX, **attributes)
        for out, (op, names, attributes) in QONNX_OPS.items()
    ]
    nodes[0].input.append("")  # an optional input left empty, which a plain session of the oldest crashes on
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *QONNX_OPS)]
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    opsets = [helper.make_opsetid(*entry) for entry in (("", 17), (QONNX, 1), ("onnx.brevitas", 1))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    upgraded, _ = upgrade(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    onnx.save(upgraded, tmp_path / "g.onnx")
    np.savez(tmp_path / "in.npz", x=x)
    old = host(tmp_path, 2)
    for name, new in zip(QONNX_OPS, run(session(tmp_path / "g.onnx"), x), strict=True):
        assert_same(old[name], new, name)
        assert new.any(), name


@needs_it
@pytest.mark.parametrize("what", ["QDQ", "QDQ 4 bits", "QOperator uint8"])
def test_onnx_own_integers(tmp_path, what):
    """But for biases: struck ones take sums past the 32 bits of the layers that onnxruntime fuses."""
    model = quantized(what)
    listed = [site for site in sites_of_graph(model) if site.kind in ("weight", "activation")]
    struck = insert_faults(model, resolve(listed, FAULTS[:1]))
    onnx.save(struck, tmp_path / "g.onnx")
    numbers = {"hwfault_seed": np.int64(-5), "hwfault_first_sample": np.int64(70)}
    np.savez(tmp_path / "in.npz", x=inputs(), **numbers)
    (new,) = run(session(struck), inputs(), seed=2**64 - 5, first_sample=70)
    assert_same(host(tmp_path, 2)["y"], new)
