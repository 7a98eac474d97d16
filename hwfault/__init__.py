"""hwfault: what bit errors do to quantized networks, the same faults in training and in the deployed graph."""

import os
import sys

# `python -m hwfault` puts the current folder first on the path (but for -P), where any module of it, say a numpy.py,
# would be taken for an installed one; while the package is looked for, argv begins with -m
_NAMES = {word.removeprefix("-m").partition(".")[0] for word in sys.orig_argv}
if sys.argv[:1] == ["-m"] and "hwfault" in _NAMES and not sys.flags.safe_path:
    del sys.path[0]

# onnxruntime from 1.32 on reports to its makers unless this is set before it is imported, by whomever
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from importlib import import_module  # noqa: E402
from typing import Any  # noqa: E402

_PUBLIC = {
    "AccumulatorFormat": "hwfault.laws.datapath",
    "BitFlips": "hwfault.laws.models",
    "BypassedElements": "hwfault.laws.datapath",
    "Clusters": "hwfault.laws.models",
    "FaultMap": "hwfault.stream.fault_map",
    "FaultPlan": "hwfault.plan",
    "HwfaultError": "hwfault.errors",
    "LateBits": "hwfault.laws.datapath",
    "MapFaults": "hwfault.laws.models",
    "Profile": "hwfault.profiles.profile",
    "ProfileFaults": "hwfault.laws.models",
    "Select": "hwfault.laws.models",
    "Site": "hwfault.plan",
    "StuckElement": "hwfault.laws.datapath",
    "WordFaults": "hwfault.laws.models",
    "integer_arithmetic": "hwfault.arithmetic.integer_arithmetic",
    "load_faults": "hwfault.laws.models",
    "onnxruntime_library": "hwfault.stream.native",
    "resolve": "hwfault.resolving",
    "session": "hwfault.graph.run.session",
}
__all__ = list(_PUBLIC)
__version__ = "0.4.0"

_HIDDEN = {"custom_op": "hwfault.graph.run.qonnx_ops"}  # asked for by qonnx, for the ops of the domain `hwfault`


def __getattr__(name: str) -> Any:
    # imported on first use, so that reading a plan needs no torch and replaying a graph no Brevitas
    module = _PUBLIC.get(name) or _HIDDEN.get(name)
    if module is None:
        raise AttributeError(f"module 'hwfault' has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
