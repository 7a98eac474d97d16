"""Where the modules of hwfault 0.4.0 are now: its import paths still work, with a DeprecationWarning.

An old name leads to the modules that hold what it held, in the order in which they are asked for a name. What the
package does not use itself is nothing but this table: whoever moves a module again changes it here.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_WHOLE = {
    "inject": {
        "arithmetic": "affine exact integer_arithmetic integer_layer integer_parts integer_pools",
        "injection": "attach clock layer strike",
        "network": "accumulators exporting mode override sites",
        "torch_ops": "by_cpu eager unheld",
    },
    "graph": {
        "graph.edit": "accumulators array_node carried channels_last fast insert strip",
        "graph.read": "external integer layouts places shapes struck sums",
        "graph.run": "feeds qonnx_array qonnx_ops session",
        "proof": "replay",
    },
    "bundle": {"proof": "answer check expected manifest outputs page record runners storage tally"},
    "campaign": {"campaigns": "campaign compare picture points report samples trials"},
    "profiles": {
        "devices": "clustering crowding device draw draw_blocks dump_tables dump_text dumps events fit fit_report "
        "synthetic systolic",
        "report": "map_picture map_pictures",
        "stream": "layouts linear mapping",
    },
    "plan": {"laws": "protected"},
}
"""Room of 0.4.0 -> room now -> modules that kept their names."""

_RENAMED = {
    "arrays": ("npz",),
    "bundle.engine": ("proof.engine", "proof.places"),
    "bundle.report": ("proof.report", "proof.sentences"),
    "campaign.evaluate": ("campaigns.evaluate", "campaigns.tables"),
    "campaign.store": ("campaigns.lines", "campaigns.question"),
    "graph.grids": ("graph.read.grids", "graph.ops"),
    "graph.nodes": ("graph.read.nodes", "graph.ops"),
    "graph.qonnxgraph": ("graph.read.qonnxgraph", "graph.ops"),
    "graph.report": ("proof.report", "proof.sentences"),
    "graph.sites": ("graph.read.sites", "graph.read.exported"),
    "graph.upgrade": ("graph.edit.upgrade", "graph.ops"),
    "graph.watched": ("graph.run.watched", "proof.sides"),
    "inject.array_op": ("torch_ops.strike_op", "torch_ops.on_cpu"),
    "inject.cuda_ops": ("torch_ops.on_devices",),
    "inject.map_op": ("torch_ops.strike_op", "torch_ops.on_cpu"),
    "inject.ops": ("torch_ops.strike_op", "torch_ops.on_cpu"),
    "inject.statistics": ("injection.statistics", "injection.site_statistics"),
    "inject.protection_op": ("torch_ops.strike_op", "torch_ops.on_cpu"),
    "listing": ("plan.listing",),
    "plan.mapped": ("program.mapped", "program.steps"),
    "plan.processes": ("program.processes", "graph.run.strike"),
    "plan.datapath": ("laws.accumulation", "program.processes"),
    "plan.hardware": ("laws.memory", "laws.profile", "laws.map"),
    "profiles.arrays": ("stream.layout_arrays",),
    "profiles.datapath": (
        "laws.accumulator",
        "laws.stuck_element",
        "laws.bypassed",
        "laws.late",
        "laws.datapath",
    ),
    "profiles.faultmap": ("stream.fault_map",),
    "profiles.models": ("laws.models", "laws.on_sites", "program.selectors"),
    "profiles.pictures": ("report.profile_pictures",),
    "profiles.protection": ("stream.protection_scheme",),
    "profiles.records": ("records",),
    "profiles.selectors": ("program.selectors", "laws.on_sites"),
    "stream.array": ("stream.native",),
    "stream.native_protection": ("stream.native",),
    # the rooms themselves, for what they held by name
    "bundle": (),
    "campaign": tuple(
        f"campaigns.{held}" for held in ["campaign", "evaluate", "picture", "points", "tables", "trials"]
    ),
    "inject": (
        "injection.attach",
        "network.sites",
        "torch_ops.function",
        "injection.layer",
        "injection.site_statistics",
        "injection.site_hook",
        "arithmetic.exact",
    ),
    "plan": ("plan.fault_plan", "program.processes", "program.batch_axes"),
    "graph.export": ("graph.export.of_network",),
}


def _table() -> dict[str, tuple[str, ...]]:
    table = {old: tuple(f"hwfault.{new}" for new in now) for old, now in _RENAMED.items()}
    for old, rooms in _WHOLE.items():
        for room, modules in rooms.items():
            table |= {f"{old}.{module}": (f"hwfault.{room}.{module}",) for module in modules.split()}
    return {f"hwfault.{old}": now for old, now in table.items()}


MOVED = _table()
"""Full name of a module of 0.4.0 -> full names of the modules that hold its content now."""


_OTHER_NAMES = {
    "hwfault.bundle.report": {"BundleReport": "ReplayReport"},
    "hwfault.graph.report": {"SiteReport": "SiteRecord", "Place": "Difference"},
}
"""What is called otherwise today: by the module of 0.4.0 the name then -> the name now."""


_STORE = (
    "Store is gone: trials are kept in SQLite now; give its path to evaluate as `store`, and the trials that it holds "
    "are taken over"
)
_GONE = {"hwfault.campaign": {"Store": _STORE}, "hwfault.campaign.store": {"Store": _STORE}}
"""What is nowhere today, and what to do in its place: by the module of 0.4.0."""


def moved_names(old: str) -> Callable[[str], Any]:
    """What a module of that name answers for names that it held in 0.4.0: its `__getattr__`."""

    def find(name: str) -> Any:
        now = _OTHER_NAMES.get(old, {}).get(name, name)
        if name in _GONE.get(old, {}):
            raise ImportError(f"{old}.{_GONE[old][name]}")  # no AttributeError, whose words an import leaves out
        if not name.startswith("__"):
            for module in MOVED[old]:
                held = import_module(module)
                if hasattr(held, now):
                    _warn(f"{old}.{name}", f"{module}.{now}", depth=3)
                    return getattr(held, now)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find


def _warn(old: str, now: str, depth: int) -> None:
    warnings.warn(f"{old} is {now} now; the old name goes away in 1.0", DeprecationWarning, stacklevel=depth)


class _OldPaths(MetaPathFinder, Loader):
    """Answers for the modules that are no longer there; asked last, when no file has the name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        is_room = any(other.startswith(fullname + ".") for other in MOVED)
        return ModuleSpec(fullname, self, is_package=is_room)

    def exec_module(self, module: ModuleType) -> None:
        name, now = module.__name__, MOVED[module.__name__]
        if hasattr(module, "__path__") or len(now) > 1:  # a room, or a module that was parted
            module.__getattr__ = moved_names(name)  # type: ignore[method-assign]
            return
        _warn(name, now[0], depth=2)
        sys.modules[name] = import_module(now[0])  # the very same module: what is set on one is set on the other


def keep_old_paths() -> None:
    """Makes the import paths of 0.4.0 work, once."""
    if not any(isinstance(finder, _OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(_OldPaths())
