"""How rows of a struck activation come to be: drawn under the seeds of their trials, or with the cells of these."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwfault.campaigns.engines.engine import Numbers
from hwfault.campaigns.engines.named_cells import Rows
from hwfault.campaigns.engines.passing import take
from hwfault.campaigns.engines.replays import Struck
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.graph.run.session import run

Array = NDArray[Any]


class Strike(Protocol):
    """Strikes rows of golden values."""

    def __call__(self, golden: Array, places: Numbers, trials: Numbers, images: Numbers) -> tuple[Array, Array]:
        """Rows before and after the faults: of each the place in `golden`, the trial, and the number of the image."""
        ...


class DrawnStrike(NamedTuple):
    """Faults that the stream draws; `seeds` (trials,) as int64."""

    struck: Struck
    seeds: Numbers

    def __call__(self, golden: Array, places: Numbers, trials: Numbers, images: Numbers) -> tuple[Array, Array]:
        strike = self.struck.strike
        before = take(golden, places, strike.inputs[self.struck.read])
        _write(strike.inputs, SEED, self.seeds[trials])
        _write(strike.inputs, FIRST_SAMPLE, images)
        strike.run(len(places))
        return before, strike.outputs[self.struck.name][: len(places)]


class CellStrike(NamedTuple):
    """Cells that are faulty in all samples of a trial: rows of a map in which the trials stand for the samples.

    `names` are those of the session's inputs for these rows.
    """

    session: onnxruntime.InferenceSession
    read: str
    names: tuple[str, str, str]
    rows: Rows

    def __call__(self, golden: Array, places: Numbers, trials: Numbers, images: Numbers) -> tuple[Array, Array]:
        before = golden[places]
        feeds = dict(zip(self.names, self.rows, strict=True)) | {self.read: before}
        (after,) = run(self.session, feeds, samples=trials)
        return before, after


def _write(buffers: dict[str, Array], name: str, values: Any) -> None:
    """Writes numbers to the buffer of an input, where the session has that one."""
    if name in buffers:
        buffers[name][: np.size(values)] = values
