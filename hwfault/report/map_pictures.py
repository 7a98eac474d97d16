"""Drawn devices for pictures: how large a memory to show of a profile, and its panels."""

from hwfault.devices.draw import draw_map
from hwfault.profiles.profile import Profile, Rate
from hwfault.profiles.spatial import BlockColumn, ProcessingElements
from hwfault.report.profile_pictures import Panel, element_panel, map_panels
from hwfault.stream.mapping import Linear

_FEWEST_CELLS = 1 << 20
_MOST_CELLS = 1 << 27
_FAULTS = 200
"""How many a picture should hold, where the memory's size is not known."""


def device_panels(profile: Profile, rate: Rate, device: int) -> list[Panel]:
    """The panels of one drawn device (of one use, where faults are transient), for `pictures.draw_profile`."""
    flip, low, high = (float(share) for share in rate.effect.shares)
    spatial = profile.spatial
    rows, row_bits = memory_size(profile, rate)
    drawn = draw_map(
        spatial,
        rate.cells,
        rows=rows,
        row_bits=row_bits,
        shares=(flip, low, high),
        device=device,
        name=profile.name,
        bit_weights=profile.bit_weights,
    )
    if isinstance(spatial, ProcessingElements):
        return [element_panel(drawn, spatial.rows, spatial.columns)]
    return map_panels(drawn, row_bits, spatial.block_rows if isinstance(spatial, BlockColumn) else None)


def memory_size(profile: Profile, rate: Rate) -> tuple[int, int]:
    """(rows, row_bits) of the memory to show: that of the mapping, else the measured one, else enough for 200 faults.

    At most 2^27 cells. For processing elements: how many there are, and 32 bits for each.
    """
    spatial = profile.spatial
    mapping = profile.mapping
    if isinstance(spatial, ProcessingElements):
        return spatial.rows * spatial.columns, 32
    row_bits = 32
    rows = None
    if isinstance(mapping, Linear):
        row_bits = mapping.row_bits
        rows = mapping.rows
    if rows is None:
        rows = _cells(profile, rate) // row_bits
    rows = max(1, min(rows, _MOST_CELLS // row_bits))
    if isinstance(spatial, BlockColumn):
        rows = -(-rows // spatial.block_rows) * spatial.block_rows  # whole blocks, which are drawn as such
    return rows, row_bits


def _cells(profile: Profile, rate: Rate) -> int:
    measured = max((point.n_bits or 0 for point in profile.rate.points), default=0)
    if measured:
        return measured
    if not rate.cells:
        return _FEWEST_CELLS
    wanted = int(min(_FAULTS / rate.cells, _MOST_CELLS))
    return max(_FEWEST_CELLS, 1 << wanted.bit_length())
