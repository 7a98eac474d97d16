"""The injection sites of a QONNX graph, whoever wrote it."""

import json
from typing import Any, NamedTuple

from onnx import ModelProto

from hwfault.errors import GraphError, ModelError
from hwfault.graph.ops import ARRAY_OP, DOMAIN
from hwfault.graph.read.places import Place, Places
from hwfault.graph.read.qonnxgraph import PLAN, metadata, set_metadata, site_name
from hwfault.graph.read.sums import Sums, find_sums
from hwfault.graph.read.versions import check_version
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site, SiteList

SITES = f"{DOMAIN}.sites"
"""Metadata key of a graph: the sites of the network that it was exported from, as JSON."""


class GraphSites(NamedTuple):
    """Everything in a graph that can be struck: every run of a quantizer or layer, and why others are none."""

    places: list[Place]
    sums: list[Sums]
    obstacles: dict[str, str]
    notes: dict[str, str]


def graph_sites(model: ModelProto, batch_axis: int | None = None) -> GraphSites:
    """The quantized tensors and accumulators of a QONNX graph, in its order.

    Raises GraphError if the graph has no quantized tensor at all.
    """
    places = Places(model, batch_axis=batch_axis)
    sums, obstacles = find_sums(model, places)
    moved = {entry.site.name: why for entry in sums if (why := places.moved_behind(entry.node)) is not None}
    kept = [entry for entry in sums if entry.site.name not in moved]
    return GraphSites(places.found, kept, places.obstacles | obstacles | moved, places.notes)


def sites(model: ModelProto, batch_axis: int | None = None) -> SiteList:
    """Every place where a QONNX graph holds integers that faults can strike; accumulators follow the others.

    Quantizers (Quant, IntQuant, BipolarQuant), MultiThreshold and Trunc nodes, weights whose initializer is annotated
    as integers, and accumulators of Conv, Gemm and MatMul on such integers. A site's name is the metadata
    `hwfault.site` of its node, else the TorchScript scope in the node's name, else the name of the node or tensor. Its
    shape is that of one sample, in the order in which its words are numbered: channels first, weights as (outputs,
    inputs, kernel). In a graph that hwfault exported the sites are those of the network, in its order.
    `batch_axis` is the axis of the inputs that holds the samples. None: the symbolic one, of several the one that is
    called "batch", or axis 0. Where they do not lie along axis 0 there is no site, but an obstacle.
    Raises GraphError if there is no such place or axis, and for faults of a version that is not known here.
    """
    check_version(model)
    found = graph_sites(model, batch_axis)
    carried = _carried(model)
    listed: dict[str, Site] = {}
    for site in [*(place.site for place in found.places), *(entry.site for entry in found.sums), *carried]:
        listed[site.name] = site  # a parameter that is read again is one site
    # the layer of an accumulator that is struck already is none any more, as its sums are told by the graph's plan
    obstacles = {name: why for name, why in found.obstacles.items() if name not in {site.name for site in carried}}
    exported = _exported(model)
    kept = [site for site in exported if _same(listed.get(site.name), site)]
    mine = {name: site for name, site in listed.items() if name not in exported.obstacles}
    order = [*(site.name for site in exported), *mine]
    chosen = mine | {site.name: site for site in kept}
    ordered = [chosen[name] for name in dict.fromkeys(order) if name in chosen]
    sums = [site for site in ordered if site.kind == "accumulator"]
    others = [site for site in ordered if site.kind != "accumulator"]
    return SiteList([*others, *sums], obstacles | exported.obstacles, found.notes | exported.notes)


def _same(found: Site | None, exported: Site) -> bool:
    """Whether what the graph has is the network's site, as far as the graph tells."""
    if found is None:
        return False
    known = ["kind", "bit_width", "signed", "weights", *(["shape"] if found.shape is not None else [])]
    return all(getattr(found, key) == getattr(exported, key) for key in known)


def _carried(model: ModelProto) -> list[Site]:
    """The accumulators that a faulted graph computes already."""
    names = {site_name(node) for node in model.graph.node if node.domain == DOMAIN and node.op_type == ARRAY_OP}
    plan = metadata(model).get(PLAN) if names else None
    planned = FaultPlan.from_json(plan, "the graph's plan") if plan is not None else None
    return [planned.at(name).site for name in planned.names if name in names] if planned is not None else []


def write_sites(model: ModelProto, sites: SiteList) -> None:
    """Has an exported graph say the sites of its network."""
    records = [site.model_dump(mode="json", exclude_none=True) for site in sites]
    said = {"sites": records, "obstacles": sites.obstacles} | ({"notes": sites.notes} if sites.notes else {})
    set_metadata(model, {SITES: json.dumps(said, separators=(",", ":"))})


def _exported(model: ModelProto) -> SiteList:
    text = metadata(model).get(SITES)
    if text is None:
        return SiteList([])
    try:
        said = json.loads(text)
        obstacles, notes = _texts(said["obstacles"]), _texts(said.get("notes", {}))
        return SiteList([Site.parse(record, SITES) for record in said["sites"]], obstacles, notes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ModelError) as error:
        raise GraphError(
            f"the graph's metadata {SITES!r} is no list of sites ({error}); remove it, or export anew"
        ) from None


def _texts(said: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in said.items()}
