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

from hwfault.graph.export import export
from hwfault.graph.session import run, session
from hwfault.inject import sites
from hwfault.plan import resolve
from hwfault.profiles.datapath import AccumulatorFormat, LateBits
from hwfault.profiles.models import BitFlips, Clusters, ProfileFaults, WordFaults
from hwfault.profiles.protection import Protection
from hwfault.stream.native import onnxruntime_library
from hwfault.train.networks import build

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


@pytest.mark.skipif("HWFAULT_OLDEST_ONNXRUNTIME" not in os.environ, reason="`make test` names the oldest onnxruntime")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("faults", [FAULTS, HARDWARE], ids=["stream", "hardware"])
@pytest.mark.parametrize("arithmetic", ["float", "integer"])
def test_the_oldest_onnxruntime_gives_the_same_bits(tmp_path, arithmetic, faults, threads):
    network = build("digits_cnn", seed=3).eval()
    x = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = export(network, x, plan=resolve(sites(network, x), faults), arithmetic=arithmetic)
    onnx.save(graph, tmp_path / "g.onnx")
    np.savez(tmp_path / "in.npz", input=x.numpy(), hwfault_seed=np.int64(-5), hwfault_first_sample=np.int64(70))
    names = [str(tmp_path / name) for name in ("g.onnx", "in.npz", "out.npz")]
    host = [os.environ["HWFAULT_OLDEST_ONNXRUNTIME"], str(HOST), onnxruntime_library(), *names, str(threads)]
    subprocess.run(host, check=True, capture_output=True)
    with np.load(tmp_path / "out.npz") as old:
        assert str(old["version"]).startswith("1.20.")
        (new,) = run(session(graph), x.numpy(), seed=2**64 - 5, first_sample=70)
        assert old["output"].tobytes() == new.tobytes()
    (clean,) = run(session(export(network, x)), x.numpy())
    assert not np.array_equal(clean, new)
