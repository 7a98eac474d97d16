"""`make bench-gpu` without a GPU: what it says then, and its parts on the CPU, which stands in for the device."""

import argparse
import inspect
import subprocess
import sys
import time

import pytest
import torch

from tests.helpers.stream.triton_here import OLDEST

pytest.importorskip("triton", minversion=OLDEST, reason="the benchmark measures Triton kernels")

from hwfault.train import networks
from tests.benchmarks import gpu, gpu_bandwidth, gpu_equality, gpu_networks
from tests.benchmarks.gpu import Report
from tests.helpers.injection.replay import WAITS, Recorded
from tests.helpers.stream.triton_calls import INTERPRETED, fast_or
from tests.process import own_words
from tests.slowly import thinned

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="on a GPU the benchmark itself can be run")


@pytest.fixture
def report(tmp_path):
    return Report(minutes=10, path=tmp_path / "result.txt")


def lines(report):
    return report.path.read_text().splitlines()


def test_without_a_gpu_it_says_so():
    run = subprocess.run([sys.executable, "-m", "tests.benchmarks.gpu"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    words = own_words(run.stderr)
    assert words.startswith("bench-gpu measures on a CUDA device, but torch")
    assert "run it on a machine with an NVIDIA GPU" in words
    assert len(words.splitlines()) == 1


def test_parts_that_fail_or_take_too_long_leave_what_was_found(report):
    def failing():
        report.line("some")
        raise torch.cuda.OutOfMemoryError("out of memory\nand more")

    report.part("first", failing)
    report._end = time.monotonic() + 0.05
    report.part("second", lambda: [report.line("more"), time.sleep(30)])
    report.part("third", lambda: report.line("never"))
    found = [line for line in lines(report) if not line.startswith("    (")]
    assert found == [
        "some",
        "first: not measured to the end: OutOfMemoryError: out of memory",
        "more",
        "second: not measured to the end, the time was up",
        "third: not measured to the end, the time was up",
    ]
    assert report.exit_code() == 1


def test_the_parts():
    """Each is a function that is there, of arguments that it takes."""
    options = argparse.Namespace(elements=8, cases=1, batch=2, rounds=1, tune=True)
    found = dict(gpu.parts(None, options))
    assert next(iter(found)) == "equality"
    assert list(found)[-2:] == ["CNV, compiled", "ResNet-20, compiled"]
    assert tuple(gpu_networks.NETWORKS) == gpu._NETWORKS
    modules = {"equality": gpu_equality, "bandwidth": gpu_bandwidth, "tune": gpu_bandwidth}
    for run in found.values():
        name, *args = run.args
        inspect.signature(getattr(modules.get(name, gpu_networks), name)).bind(*args)


@pytest.mark.slow
def test_equality(report, monkeypatch):
    class Small(gpu_equality.Draw):
        """Cases that the interpreter can do in no time."""

        def words(self):
            return self.integer(1, 40)

    monkeypatch.setattr(gpu_equality, "Draw", Small)
    monkeypatch.setitem(gpu_equality.VECTORS, "cases", gpu_equality.VECTORS["cases"][:2])
    with fast_or():
        report.part("equality", lambda: gpu_equality.equality(report, 4))
    found = lines(report)
    assert [line.split(":")[0] for line in found[:4]] == [
        "known answers",
        "random cases of codes",
        "random cases of values and gradients",
        "random cases of fault maps",
    ]
    assert sum("logits under faults, all equal to the CPU's" in line for line in found) == 3
    assert report.exit_code() == 0


@pytest.mark.slow
def test_what_differs_is_told(report, monkeypatch):
    monkeypatch.setattr(gpu_equality, "by_triton", lambda codes, *rest: codes)
    monkeypatch.setattr(gpu_equality, "outputs", lambda model, x: torch.rand(3))
    report.part("equality", lambda: gpu_equality.known_answers(report))
    report.part("codes", lambda: gpu_equality.codes(report, 200))
    report.part("networks", lambda: gpu_equality.whole_networks(report, images=2))
    told = [line for line in lines(report) if line.startswith("DIFFERS: ")]
    assert told[0].startswith("DIFFERS: case ")
    assert told[1].startswith("DIFFERS: this case of codes, between the native library and the CPU")
    assert len(told) == 5
    assert report.exit_code() == 1


@pytest.mark.slow
def test_bandwidth(report):
    with fast_or():
        report.part("bandwidth", lambda: gpu_bandwidth.bandwidth(report, 1024, torch.float32, 1, device="cpu"))
    found = "\n".join(lines(report))
    for rate in ("0", "0.0001", "0.001"):
        assert f"inject, word rate {rate} " in found
    assert found.count("(to reach: 90%)") == 3
    assert found.count("% of the copy") == 14
    assert "not measured" not in found


def test_the_ways_it_is_compared_with_do_strike():
    x = torch.randint(0, 16, (10_000,)).float() * 0.5
    for way in (gpu_bandwidth.naive, gpu_bandwidth.masked):
        out = torch.empty_like(x)
        way(x, out, 0.1)
        assert 500 < int((out != x).sum()) < 5000
        assert ((out >= 0) & (out < 8)).all()


@pytest.mark.slow
def test_networks(report):
    report.part("CNV", lambda: gpu_networks.network(report, "CNV", 2, 1, device="cpu"))
    found = lines(report)
    assert [line.split(":")[0] for line in found if not line.startswith(" ")] == [
        "CNV, batch (2, 3, 32, 32), 4 bits (medians of 1 ratios)",
        "forward, eager",
        "training step, eager",
        "kept for the backward pass",
    ]
    assert sum("(to reach: 1.03x)" in line for line in found) == 2


class Replayed:
    """In place of a CUDA graph."""

    def __init__(self, run):
        run()
        with Recorded() as self._graph:
            self.out = run()

    def __call__(self):
        self._graph.replay()


@pytest.mark.slow
@pytest.mark.parametrize("name", gpu_networks.NETWORKS)
def test_graphs(report, monkeypatch, name):
    monkeypatch.setattr(gpu_networks, "Captured", Replayed)
    models = gpu_networks.Models(name, 2, "cpu")
    with models.attached() as (_, injection):
        report.part("graphs", lambda: gpu_networks.graphs(report, models, injection, 1))
    found = "\n".join(lines(report))
    assert found.count("(to reach: 1.02x)") == 2, found
    assert report.exit_code() == 0


@pytest.mark.parametrize("name", thinned(gpu_networks.NETWORKS, 2))
def test_the_networks_never_ask_the_device(name):
    """Otherwise no CUDA graph could be captured of them."""
    models = gpu_networks.Models(name, 2, "cpu")
    with models.attached() as (built, _):
        for runs in (models.forwards(built), models.steps(built)):
            with Recorded() as graph:
                runs[gpu_networks.FAULTY]()
            assert "strike" in graph.names
            assert not set(graph.names) & set(WAITS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dynamo warns about itself and about Brevitas
def test_compiled_networks(report, monkeypatch):
    monkeypatch.setitem(gpu_networks.NETWORKS, "small", lambda: networks.build("mlp", channels=3, size=32, hidden=(8,)))
    report.part("compiled", lambda: gpu_networks.compiled(report, "small", 2, 1, device="cpu", backend="eager"))
    torch._dynamo.reset()
    found = "\n".join(lines(report))
    assert found.count("(to reach: 1.02x)") == 2, found
