"""Recording a bundle from PyTorch: the graphs of a network, its plan, real inputs, and what becomes of them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors
from torch import Tensor, nn

from hwfault import __version__
from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.codes import Codes
from hwfault.errors import FileError, HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import Arithmetic, export
from hwfault.graph.read.grids import IntegerGrid
from hwfault.graph.read.qonnxgraph import metadata
from hwfault.graph.read.versions import NEW, SPEC
from hwfault.injection.attach import inject_at
from hwfault.network.mode import evaluation
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, needs_stream, spec_of
from hwfault.profiles.library import profile_path
from hwfault.program.batch_axes import in_rows
from hwfault.program.processes import Site, SiteList, SitePlan
from hwfault.proof.manifest import (
    CLEAN,
    CLEAN_GRAPH,
    FAULTED_GRAPH,
    INPUTS,
    NO_NUMBERS,
    PLAN,
    Manifest,
    RecordedSite,
    seed_file,
    tensor,
)
from hwfault.proof.sides import predictions
from hwfault.proof.storage import Tensors, described, write
from hwfault.stream.check import check_seed


def write_bundle(
    path: Path | str,
    model: nn.Module,
    inputs: Tensor,
    *,
    labels: Tensor | None = None,
    plan: FaultPlan | None = None,
    seeds: Sequence[int] = (),
    batch_size: int | None = None,
    arithmetic: Arithmetic = "float",
    progress: Callable[[], object] = lambda: None,
) -> Manifest:
    """Writes a bundle (a folder, or a .zip by the path's suffix) of a network, and answers with its manifest.

    `inputs` (n, ...) float32 are the samples 0 to n - 1, with their `labels` (n,) where these are known. They are run
    clean and, with a `plan`, under each of `seeds`, in batches of `batch_size` (None: all at once), in the `arithmetic`
    of the graphs (see `export`); `progress` is called after each run. Raises HwfaultError for a plan without seeds or
    seeds without a plan, GraphError or PlanError where the network cannot be exported or the plan does not fit,
    FileError.
    """
    if (plan is None) != (not seeds) or not len(inputs):
        raise HwfaultError(
            f"a bundle of {len(inputs)} samples, {len(seeds)} seeds and {'no' if plan is None else 'a'} plan; expected "
            "samples, and seeds exactly where there is a plan"
        )
    size = len(inputs) if batch_size is None else min(batch_size, len(inputs))
    graphs = {CLEAN_GRAPH: export(model, inputs[:1], arithmetic=arithmetic)}
    if plan is not None:
        graphs[FAULTED_GRAPH] = insert_faults(graphs[CLEAN_GRAPH], plan)
    recorder = _Recorder(model, inputs, size, arithmetic)
    files = {name: graph.SerializeToString() for name, graph in graphs.items()}
    files[INPUTS] = _saved(_numbers(inputs, labels))
    files[CLEAN] = _saved(recorder.clean())
    progress()
    for seed in seeds:
        assert plan is not None
        files[seed_file(seed)] = _saved(recorder.faulty(plan, check_seed(seed)))
        progress()
    profiles = _profiles(plan)
    files |= dict(profiles.values())
    if plan is not None:
        files[PLAN] = plan.to_json().encode()
    needed = recorder.needs_stream or any(metadata(graph).get(SPEC) == NEW for graph in graphs.values())
    manifest = Manifest(
        spec=spec_of("1.1" if needed else needs_stream(entry.site for entry in recorder.sites)),
        versions={"hwfault": __version__, **{name: version(name) for name in ("torch", "brevitas", "onnx")}},
        samples=len(inputs),
        batch_size=size,
        seeds=tuple(seeds),
        plan_sha256=None if plan is None else plan.digest,
        profiles={name: place for name, (place, _) in profiles.items()},
        sites=recorder.sites,
        files=described(files),
    )
    write(path, manifest, files)
    return manifest


def _numbers(inputs: Tensor, labels: Tensor | None) -> Tensors:
    known = {} if labels is None else {"label": labels.numpy(force=True).astype(np.int64)}
    return {"input": inputs.numpy(force=True), **known}


def _saved(tensors: Tensors) -> bytes:
    """Tensors as the bytes of a .safetensors file, which writes memory as it lies."""
    return bytes(save_tensors({name: np.array(values, order="C") for name, values in tensors.items()}))


def _profiles(plan: FaultPlan | None) -> dict[str, tuple[str, bytes]]:
    """The file in the bundle and the content of each profile that a plan was made from."""
    found: dict[str, tuple[str, bytes]] = {}
    for fault in () if plan is None else plan.faults:
        name = fault.profile_name
        if name is not None and name not in found:
            path = profile_path(name)
            try:
                found[name] = f"profiles/{len(found)}-{_plain(path.stem)}.yaml", path.read_bytes()
            except OSError as error:
                raise FileError(f"{path}: cannot be read ({error.strerror}); expected the plan's profile") from None
    return found


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in name)[:100]


class _Recorder:
    """Runs a network on the same samples again and again, and notes its codes."""

    def __init__(self, model: nn.Module, inputs: Tensor, batch_size: int, arithmetic: Arithmetic) -> None:
        self._arithmetic: Callable[[nn.Module], AbstractContextManager[object]] = (
            integer_arithmetic if arithmetic == "integer" else nullcontext
        )
        self._model, self._batches = model, torch.split(inputs, batch_size)
        found = sites(model, inputs[:1])  # which shows the runs of each quantizer, and their batch axes
        self._known = SiteList((site for site in found if site.kind != "accumulator"), found.obstacles)
        self._every = {site.name: site for site in self._known}
        self._calls: Counter[str] = Counter()
        self._found: dict[str, Site] = {}
        self._clean: Tensors = {}
        self.needs_stream = False
        """Whether codes were recorded that only version 1.1 of the fault stream defines."""

    @property
    def sites(self) -> tuple[RecordedSite, ...]:
        """The sites that ran, in the order in which they first did."""
        return tuple(RecordedSite(site=site, calls=self._calls[name]) for name, site in self._found.items())

    def clean(self) -> Tensors:
        """The codes of every site without faults, with scales and zero points, and the outputs."""
        watching = tuple(map(_watching, self._every.values()))
        plan = FaultPlan(faults=(), sites=watching, tables=(), stream=needs_stream(self._every.values()))
        before, _, rest = self._run(plan, 0)
        for name, site in self._every.items():
            if not site.batched:  # a parameter is the same in every batch
                before |= {key: before[key][:1] for key in self._keys(name) if key in before}
        self._clean = {key + ".codes": codes for key, codes in before.items()} | rest
        return self._clean

    def _keys(self, name: str) -> list[str]:
        return [tensor(name, call, "")[:-1] for call in range(self._calls[name])]

    def faulty(self, plan: FaultPlan, seed: int) -> Tensors:
        """What a seed's faults did: for each run of a site the words they changed (`at`, counted through all samples),
        the codes `after`, and the codes `before` unless these are the clean ones."""
        others = tuple(_watching(site) for name, site in self._every.items() if name not in plan.names)
        # a plan of its own: a copy would keep what the first has cached of its sites
        given = {key: getattr(plan, key) for key in FaultPlan.model_fields}
        every = plan.sites + others
        watching = FaultPlan(**given | {"sites": every, "stream": needs_stream(entry.site for entry in every)})
        before, after, rest = self._run(watching, seed)
        found = {
            key: value for key, value in rest.items() if key not in self._clean or key in _OWN or NO_NUMBERS in key
        }
        for key, codes in before.items():
            clean = self._clean.get(key + ".codes")
            if clean is None or not (codes == clean).all():
                found[key + ".before"] = codes
            at = np.flatnonzero(codes != after[key])
            found |= {key + ".at": at.astype(np.uint32), key + ".after": after[key].ravel()[at]}
        return found

    def _run(self, plan: FaultPlan, seed: int) -> tuple[dict[str, Codes], dict[str, Codes], Tensors]:
        """Codes before and after by the key of a run of a site, each row a sample (or a batch, for parameters)."""
        befores: defaultdict[str, list[Codes]] = defaultdict(list)
        afters: defaultdict[str, list[Codes]] = defaultdict(list)
        unstruck: defaultdict[str, list[NDArray[np.floating]]] = defaultdict(list)
        grids, outputs, calls = Tensors(), [], Counter[str]()

        def observe(
            name: str,
            before: Tensor,
            _after: Tensor,
            scale: Tensor,
            zero_point: Tensor,
            codes_before: Tensor,
            codes_after: Tensor,
        ) -> None:
            key, site = tensor(name, calls[name], ""), plan.at(name).site
            calls[name] += 1
            lying = site.batched, site.batch
            self._found.setdefault(name, self._every.get(name, site))
            grid = [np.array(values.numpy(force=True)) for values in (scale, zero_point)]
            for kind, values in zip(("scale", "zero_point"), grid, strict=True):
                grids[key + kind] = values
            if site.kind != "accumulator" and IntegerGrid(grid[0], grid[1], site.bit_width, site.signed).needs_stream:
                self.needs_stream = True
            for codes, rows in ((codes_before, befores), (codes_after, afters)):
                rows[key[:-1]].append(in_rows(codes.numpy(force=True), *lying).astype(_narrow(site)))
            unstruck[key[:-1]].append(in_rows(before.numpy(force=True), *lying))

        device = next((parameter.device for parameter in self._model.parameters()), torch.device("cpu"))
        with (
            evaluation(self._model),
            torch.no_grad(),
            self._arithmetic(self._model),
            inject_at(self._model, plan, self._known, seed=seed, observe=observe),
        ):
            for batch in self._batches:
                calls.clear()
                result = self._model(batch.to(device))
                outputs.append(np.array(getattr(result, "value", result).numpy(force=True)))
        self._calls |= calls
        output = np.concatenate(outputs)
        told = {"output": output, "prediction": predictions(output)}
        before, after = ({key: np.concatenate(rows) for key, rows in side.items()} for side in (befores, afters))
        for key, parts in unstruck.items():
            found = _no_numbers(key, np.concatenate(parts))
            self.needs_stream |= bool(found)
            told |= found
        return before, after, grids | told


_OWN = ("output", "prediction")
"""What every run has of its own."""


def _no_numbers(key: str, values: NDArray[np.floating]) -> Tensors:
    """Where the values (rows, words) of a run of a site are not finite, and what they are; nothing where all are."""
    at = np.flatnonzero(~np.isfinite(values))
    if not len(at):
        return {}
    return {f"{key}.{NO_NUMBERS}_at": at.astype(np.uint32), f"{key}.{NO_NUMBERS}": values.ravel()[at]}


def _watching(site: Site) -> SitePlan:
    """A site at which nothing happens."""
    return SitePlan(site=site, processes=())


def _narrow(site: Site) -> type[np.unsignedinteger]:
    """The least type that holds a site's codes."""
    return np.uint8 if site.bit_width <= 8 else np.uint16 if site.bit_width <= 16 else np.uint32
