"""What a graph that hwfault exported says of the sites of its network."""

import json
from typing import Any, NamedTuple

from onnx import ModelProto

from hwfault.errors import GraphError, ModelError
from hwfault.graph.ops import DOMAIN
from hwfault.graph.read.qonnxgraph import metadata, set_metadata
from hwfault.program.processes import Site, SiteList

SITES = f"{DOMAIN}.sites"
"""Metadata key of a graph: the sites of the network that it was exported from, as JSON."""


class Exported(NamedTuple):
    """The sites of the network that a graph was exported from; none in graphs of others."""

    sites: SiteList
    tells_axes: bool
    """Whether an example has shown where the samples lie: versions before 0.5 took axis 0 everywhere."""


def write_sites(model: ModelProto, sites: SiteList) -> None:
    """Has an exported graph say the sites of its network, as an example has shown them."""
    records = [site.model_dump(mode="json", exclude_none=True) for site in sites]
    said = {"sites": records, "obstacles": sites.obstacles} | ({"notes": sites.notes} if sites.notes else {})
    set_metadata(model, {SITES: json.dumps(said | {"batch_axes": True}, separators=(",", ":"))})


def exported_sites(model: ModelProto) -> Exported:
    """What `write_sites` wrote into a graph; raises GraphError for what it cannot have written."""
    text = metadata(model).get(SITES)
    if text is None:
        return Exported(SiteList([]), False)
    try:
        said = json.loads(text)
        obstacles, notes = _texts(said["obstacles"]), _texts(said.get("notes", {}))
        sites = SiteList([Site.parse(record, SITES) for record in said["sites"]], obstacles, notes)
        return Exported(sites, said.get("batch_axes") is True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ModelError) as error:
        raise GraphError(
            f"the graph's metadata {SITES!r} is no list of sites ({error}); remove it, or export anew"
        ) from None


def _texts(said: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in said.items()}
