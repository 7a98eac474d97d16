"""Sites of activations whose single flips the sparse engine carries."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from hwfault.campaigns.sparse.description import ValueSite
from hwfault.campaigns.sparse.known import Known
from hwfault.campaigns.sparse.lowering import Quantized
from hwfault.graph.read.site_tensor import SiteTensor
from hwfault.graph.read.sites import graph_sites
from hwfault.stream.native.network import ValueFormat

_MOST_BITS = 14
"""A struck value of so many bits, and its products, fit the sums of 32 bits."""


def value_sites(
    graph: ModelProto, known: Known, quantized: Mapping[str, Quantized]
) -> tuple[dict[str, ValueSite], dict[str, str]]:
    """The activations of a graph whose flips can be carried, by name, and why others cannot."""
    found: dict[str, ValueSite] = {}
    refused: dict[str, str] = {}
    for place in graph_sites(graph).places:
        if not place.site.batched:
            continue
        made = _value_site(place, known.shapes[place.tensor][1:], quantized.get(place.tensor))
        if isinstance(made, str):
            refused[place.site.name] = made
        else:
            found[place.site.name] = made
    return found, refused


def _value_site(place: SiteTensor, shape: tuple[int, ...], step: Quantized | None) -> ValueSite | str:
    """The site, whose values have this shape in one image; or why its flips cannot be carried."""
    site = place.site
    if step is None:
        return "it is no quantizer of values that depend on the input"
    if place.layout or site.batch is not None or site.shape not in (None, shape):
        return "its words do not lie as the network's values do, samples along axis 0"
    if site.bit_width > _MOST_BITS:
        return f"it has {site.bit_width} bits, expected at most {_MOST_BITS}"
    given = place.grid.scale, place.grid.zero_point
    scale, zero_point = (_spread(numbers, shape, last=step.last) for numbers in given)
    if scale is None or zero_point is None:
        return "its scale or zero point is neither one number nor one for each channel"
    form = ValueFormat(*scale, *zero_point, site.bit_width, site.signed)
    last = shape[-1] if step.last else None
    return ValueSite(site, step.node, step.step, form, int(np.prod(shape)), last)


def _spread(numbers: NDArray[Any], shape: tuple[int, ...], *, last: bool) -> tuple[NDArray[np.float64], int] | None:
    """Numbers of a sample's words, and how many elements in a row have each; None where they lie along another axis."""
    flat = np.asarray(numbers, np.float64).reshape(-1)
    if flat.size == 1:
        return flat, 1
    ones = [1] * (len(shape) - 1)
    channels = (*ones, shape[-1]) if last else (shape[0], *ones)
    own = numbers.shape[1:] if numbers.ndim == len(shape) + 1 else numbers.shape
    return (flat, int(np.prod(shape)) // flat.size) if own == channels else None
