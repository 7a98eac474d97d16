"""The injection sites of a QONNX graph, whoever wrote it."""

from typing import NamedTuple

from onnx import ModelProto

from hwfault.graph.ops import ARRAY_OP, DOMAIN
from hwfault.graph.read.exported import exported_sites
from hwfault.graph.read.flat import flatten
from hwfault.graph.read.places import Places
from hwfault.graph.read.qonnxgraph import PLAN, metadata, site_name
from hwfault.graph.read.site_tensor import SiteTensor
from hwfault.graph.read.sums import Sums, find_sums
from hwfault.graph.read.versions import check_version
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site, SiteList


class GraphSites(NamedTuple):
    """Everything in a graph that can be struck: every run of a quantizer or layer, and why others are none.

    `model` is the graph that they are in, with functions, branches and loops written out as far as can be (see
    hwfault.graph.read.flat), and `changes` says which. `batch` is the number of samples that it is made for; None: any.
    """

    model: ModelProto
    changes: list[str]
    places: list[SiteTensor]
    sums: list[Sums]
    obstacles: dict[str, str]
    notes: dict[str, str]
    batch: int | None


def graph_sites(model: ModelProto, batch_axis: int | None = None) -> GraphSites:
    """The quantized tensors and accumulators of a QONNX graph, in its order.

    Raises GraphError if the graph has no quantized tensor at all.
    """
    flat = flatten(model)
    places = Places(flat.model, batch_axis=batch_axis, left=flat.left)
    sums, obstacles = find_sums(flat.model, places)
    return GraphSites(
        flat.model, flat.changes, places.found, sums, places.obstacles | obstacles, places.notes, places.batch
    )


def sites(model: ModelProto, batch_axis: int | None = None) -> SiteList:
    """Every place where a QONNX graph holds integers that faults can strike; accumulators follow the others.

    Quantizers (Quant, IntQuant, BipolarQuant), MultiThreshold and Trunc nodes, weights whose initializer is annotated
    as integers, ONNX' own integers (see hwfault.graph.read.own_integers), and accumulators of Conv, Gemm and MatMul on
    any of these. A site's name is the metadata
    `hwfault.site` of its node, else the TorchScript scope in the node's name, else the name of the node or tensor. Its
    shape is that of one sample, in the order in which its words are numbered: channels first, weights as (outputs,
    inputs, kernel). In a graph that hwfault exported the sites are those of the network, in its order.
    `batch_axis` is the axis of the inputs that holds the samples. None: the symbolic one, of several the one that is
    called "batch", or axis 0. From there they are followed, unless the graph says itself where they lie; where they do
    not lie as a site's have to there is an obstacle.
    Raises GraphError if there is no such place or axis, and for faults of a version that is not known here.
    """
    check_version(model)
    # what the nodes of the graph show; a parameter that is read again is one site
    found = graph_sites(model, batch_axis)
    listed = {place.site.name: place.site for place in found.places}
    listed |= {entry.site.name: entry.site for entry in found.sums}
    # the layer of an accumulator that is struck already is none any more, as its sums are told by the graph's plan
    obstacles = dict(found.obstacles)
    for site in _carried(model):
        listed[site.name] = site
        obstacles.pop(site.name, None)

    # what an export said of the network comes first and counts more, as far as the graph does not contradict it
    exported = exported_sites(model).sites
    order = dict.fromkeys([*(site.name for site in exported), *listed])
    chosen = {name: site for name, site in listed.items() if name not in exported.obstacles}
    for site in exported:
        if _agrees(listed.get(site.name), site):
            chosen[site.name] = site
    ordered = [chosen[name] for name in order if name in chosen]
    sums = [site for site in ordered if site.kind == "accumulator"]
    others = [site for site in ordered if site.kind != "accumulator"]
    return SiteList([*others, *sums], obstacles | exported.obstacles, found.notes | exported.notes)


def _agrees(found: Site | None, exported: Site) -> bool:
    """Whether what the graph has is the network's site, as far as the graph tells."""
    if found is None:
        return False
    known = ["kind", "bit_width", "signed", "weights", "batch"]
    if found.shape is not None:
        known.append("shape")
    return all(getattr(found, key) == getattr(exported, key) for key in known)


def _carried(model: ModelProto) -> list[Site]:
    """The accumulators that a faulted graph computes already."""
    names = {site_name(node) for node in model.graph.node if node.domain == DOMAIN and node.op_type == ARRAY_OP}
    if not names:
        return []  # a plan may be large: it is only read where it is asked
    text = metadata(model).get(PLAN)
    if text is None:
        return []
    plan = FaultPlan.from_json(text, "the graph's plan")
    return [plan.at(name).site for name in plan.names if name in names]
