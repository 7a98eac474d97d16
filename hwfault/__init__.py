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

import typing as _typing  # noqa: E402
from importlib import import_module as _import_module  # noqa: E402
from types import ModuleType as _ModuleType  # noqa: E402

from hwfault.moved import keep_old_paths as _keep_old_paths  # noqa: E402

if _typing.TYPE_CHECKING:  # what type checkers see; all is imported on first use
    from hwfault.arithmetic.integer_arithmetic import integer_arithmetic as integer_arithmetic
    from hwfault.campaigns.evaluate import campaign as campaign
    from hwfault.campaigns.evaluate import evaluate as evaluate
    from hwfault.errors import HwfaultError as HwfaultError
    from hwfault.fusion.fused import fused as fused
    from hwfault.graph.export.of_network import export as export
    from hwfault.graph.run.session import run as run
    from hwfault.graph.run.session import session as session
    from hwfault.injection.attach import inject as inject
    from hwfault.laws.accumulator import AccumulatorFormat as AccumulatorFormat
    from hwfault.laws.bit_flips import BitFlips as BitFlips
    from hwfault.laws.bypassed import BypassedElements as BypassedElements
    from hwfault.laws.cells import CellFaults as CellFaults
    from hwfault.laws.clipped import ClippedRange as ClippedRange
    from hwfault.laws.cluster import Clusters as Clusters
    from hwfault.laws.late import LateBits as LateBits
    from hwfault.laws.map import MapFaults as MapFaults
    from hwfault.laws.models import load_faults as load_faults
    from hwfault.laws.profile import ProfileFaults as ProfileFaults
    from hwfault.laws.stuck_element import StuckElement as StuckElement
    from hwfault.laws.word import WordFaults as WordFaults
    from hwfault.network.sites import sites as sites
    from hwfault.plan.fault_plan import FaultPlan as FaultPlan
    from hwfault.profiles.profile import Profile as Profile
    from hwfault.program.processes import Site as Site
    from hwfault.program.selectors import Select as Select
    from hwfault.proof.replay import replay as replay
    from hwfault.resolving import resolve as resolve
    from hwfault.stream.fault_map import FaultMap as FaultMap
    from hwfault.stream.native import onnxruntime_library as onnxruntime_library
    from hwfault.train.callback import FaultInjection as FaultInjection
    from hwfault.train.checkpoint import load as load
    from hwfault.train.checkpoint import save as save
    from hwfault.train.driver import FaultDriver as FaultDriver

_PUBLIC = {
    "AccumulatorFormat": "hwfault.laws.accumulator",
    "BitFlips": "hwfault.laws.bit_flips",
    "BypassedElements": "hwfault.laws.bypassed",
    "CellFaults": "hwfault.laws.cells",
    "ClippedRange": "hwfault.laws.clipped",
    "Clusters": "hwfault.laws.cluster",
    "FaultDriver": "hwfault.train.driver",
    "FaultInjection": "hwfault.train.callback",
    "FaultMap": "hwfault.stream.fault_map",
    "FaultPlan": "hwfault.plan.fault_plan",
    "HwfaultError": "hwfault.errors",
    "LateBits": "hwfault.laws.late",
    "MapFaults": "hwfault.laws.map",
    "Profile": "hwfault.profiles.profile",
    "ProfileFaults": "hwfault.laws.profile",
    "Select": "hwfault.program.selectors",
    "Site": "hwfault.program.processes",
    "StuckElement": "hwfault.laws.stuck_element",
    "WordFaults": "hwfault.laws.word",
    "campaign": "hwfault.campaigns.evaluate",
    "evaluate": "hwfault.campaigns.evaluate",
    "export": "hwfault.graph.export.of_network",
    "fused": "hwfault.fusion.fused",
    "inject": "hwfault.injection.attach",
    "integer_arithmetic": "hwfault.arithmetic.integer_arithmetic",
    "load": "hwfault.train.checkpoint",
    "load_faults": "hwfault.laws.models",
    "onnxruntime_library": "hwfault.stream.native",
    "replay": "hwfault.proof.replay",
    "resolve": "hwfault.resolving",
    "run": "hwfault.graph.run.session",
    "save": "hwfault.train.checkpoint",
    "session": "hwfault.graph.run.session",
    "sites": "hwfault.network.sites",
}
__all__ = list(_PUBLIC)
__version__ = "0.4.0"

_HIDDEN = {"custom_op": "hwfault.graph.run.qonnx_ops"}  # asked for by qonnx, for the ops of the domain `hwfault`

if not _typing.TYPE_CHECKING:  # of a name that is not public a type checker shall complain

    def __getattr__(name: str) -> _typing.Any:
        # imported on first use, so that reading a plan needs no torch and replaying a graph no Brevitas
        module = _PUBLIC.get(name) or _HIDDEN.get(name)
        if module is None:
            raise AttributeError(f"module 'hwfault' has no attribute {name!r}")
        return getattr(_import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(_ModuleType):
    """The package: importing one of its modules never hides a public name that is spelt the same."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, _ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
_keep_old_paths()
