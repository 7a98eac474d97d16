"""onnxruntime reports nothing to its makers: the switch is set in time, and a process that waits opens no socket."""

import os
import subprocess
import sys

import onnxruntime
import pytest

import hwfault

SESSION = """
import os, sys, time
from hwfault.graph.session import session
from onnx import TensorProto, helper
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
made = session(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]))
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    found = [os.readlink(link) for link in links if os.path.exists(link) or os.path.islink(link)]
    assert not any(place.startswith("socket:") for place in found), found
    time.sleep(0.002)
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def waits(seconds, tmp_path):
    """What a process leaves in its home and temporary folder that makes a session and waits."""
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    for key in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        (tmp_path / key).mkdir()
        environment[key] = str(tmp_path / key)
    done = subprocess.run(
        [sys.executable, "-c", SESSION, str(seconds)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n", done.stderr
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def test_it_is_off_before_onnxruntime_is_imported(tmp_path):
    assert waits(0.5, tmp_path) == []


@pytest.mark.slow
def test_no_socket_is_opened_and_no_file_is_written(tmp_path):
    """It begins some 10 seconds after a session was made."""
    assert waits(15, tmp_path) == []


def test_who_imported_onnxruntime_before_gets_it_turned_off_by_its_api():
    code = """
import onnxruntime
onnxruntime.disable_telemetry_events = lambda: print("off")
import hwfault.graph.session
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "off\n"


def test_the_switch_is_set_here():
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert hwfault.__version__
    assert callable(onnxruntime.disable_telemetry_events)
