"""Memories like the KC705's: drawn devices, dumps of them in the study's format, and the statistics of their faults."""

import os
from pathlib import Path

import numpy as np
import pytest

from hwfault.devices.draw import draw_map
from hwfault.profiles.spatial import BlockColumn

BLOCKS, BLOCK_ROWS, BITS, RATE = 890, 1024, 8, 1137 / (890 * 1024 * 8)
PATTERN = BlockColumn(
    block_rows=1024,
    row_bits=8,
    column_period=2,
    block_share=250 / 890,
    dispersion=0.0795,
    column_share=0.638,
    lone_share=0.147,
    at_rate=RATE,
)


def drawn(devices, probability=RATE, first=0):
    """The faulty cells (blocks, rows, bits) of devices drawn under the pattern."""
    for device in range(first, first + devices):
        size = {"rows": BLOCKS * BLOCK_ROWS, "row_bits": BITS}
        fault_map = draw_map(PATTERN, probability, shares=(0, 1, 0), device=device, name="bram", **size)
        cells = np.zeros((BLOCKS * BLOCK_ROWS, BITS), bool)
        cells[fault_map.cells()[:2]] = True
        yield cells.reshape(BLOCKS, BLOCK_ROWS, BITS)


def cluster_statistics(cells):
    """The statistics that the pattern is to reproduce, counted anew."""
    by_block = np.sort(cells.sum((1, 2)))[::-1].astype(float)
    by_column = np.stack([cells[:, i::2].sum(1) for i in (0, 1)])
    faults, mean = by_block.sum(), by_block.mean()
    return {
        "faults": faults,
        "block_share": (by_block > 0).mean(),
        "dispersion": mean**2 / (by_block.var() - mean),
        "top_10_percent": by_block[:89].sum() / faults,
        "top_5_percent": by_block[:44].sum() / faults,
        "column_share": by_column[by_column >= 5].sum() / faults,
        "lone_share": (by_column == 1).sum() / faults,
        "most_in_a_block": by_block[0],
    }


def hex_dump(cells):
    """A dump of the study's format: all ones but the faulty bits, upper-case hex, each byte written twice."""
    kept = np.packbits(~cells[..., ::-1], axis=-1).ravel()
    return np.repeat(kept, 2).tobytes().hex().upper().encode()


def measured(voltage):
    """The real dump at a voltage; skips the test where the data are not at hand."""
    folder = os.environ.get("HWFAULT_DATA")
    if not folder:
        pytest.skip("HWFAULT_DATA names no folder with the KC705 dumps")
    return Path(folder) / f"KC705B-{voltage}.bin"
