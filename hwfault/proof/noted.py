"""What was noted of a run: the codes of its sites, its outputs; and the tensors of a bundle that say so."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import Codes
from hwfault.program.processes import Site
from hwfault.proof.manifest import NO_NUMBERS
from hwfault.proof.sides import predictions
from hwfault.proof.storage import Tensors

Array = NDArray[Any]


@dataclass
class Noted:
    """What the samples of a batch, or of several, became in one run; by the key of each run of a site (`q#0`).

    Codes are (rows, words): a row is a sample, for a parameter a batch. `lost` are the words that held no number,
    counted through all rows, and what they held.
    """

    before: dict[str, Codes] = field(default_factory=dict)
    after: dict[str, Codes] = field(default_factory=dict)
    grids: Tensors = field(default_factory=dict)
    lost: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    output: Array = field(default_factory=lambda: np.zeros(0, np.float32))

    def clean_tensors(self, parameters: Collection[str]) -> Tensors:
        """The tensors of a run without faults; of the `parameters`, the same in every batch, one row."""
        codes = {key: rows[:1] if key in parameters else rows for key, rows in self.before.items()}
        return {f"{key}.codes": rows for key, rows in codes.items()} | self.grids | self._told()

    def faulty_tensors(self, clean: Tensors) -> Tensors:
        """The tensors of a run under faults, where they are not those of the `clean` one (empty: of none).

        Of each run of a site these are the words that the faults changed (`at`, counted through all rows), the codes
        `after`, and the codes `before` unless they are the clean ones.
        """
        found = {key: values for key, values in self.grids.items() if key not in clean} | self._told()
        for key, codes in self.before.items():
            before = clean.get(f"{key}.codes")
            if before is None or not (codes == before).all():
                found[f"{key}.before"] = codes
            at = np.flatnonzero(codes != self.after[key])
            found |= {f"{key}.at": at.astype(np.uint32), f"{key}.after": self.after[key].ravel()[at]}
        return found

    def _told(self) -> Tensors:
        """What every run has of its own: the outputs, and what words held that held no number."""
        found = {"output": self.output, "prediction": predictions(self.output)}
        for key, (at, values) in self.lost.items():
            found |= {f"{key}.{NO_NUMBERS}_at": at.astype(np.uint32), f"{key}.{NO_NUMBERS}": values}
        return found


def join(batches: Sequence[Noted]) -> Noted:
    """What the batches of a run became, one after the other."""
    whole = Noted(output=np.concatenate([batch.output for batch in batches]))
    rows: dict[str, list[Noted]] = {}
    for batch in batches:
        whole.grids |= batch.grids
        for key in batch.before:
            rows.setdefault(key, []).append(batch)
    for key, noted in rows.items():
        whole.before[key] = np.concatenate([batch.before[key] for batch in noted])
        whole.after[key] = np.concatenate([batch.after[key] for batch in noted])
        # words are counted through the rows of all batches
        begins = np.cumsum([0, *(batch.before[key].size for batch in noted)])
        lost = [(at + begin, v) for begin, b in zip(begins, noted, strict=False) for at, v in [b.lost.get(key, _NONE)]]
        if any(len(at) for at, _ in lost):
            whole.lost[key] = np.concatenate([at for at, _ in lost]), np.concatenate([v for _, v in lost if len(v)])
    return whole


_NONE: tuple[Array, Array] = (np.zeros(0, np.int64), np.zeros(0))


def narrow(site: Site) -> type[np.unsignedinteger]:
    """The least type that holds a site's codes."""
    return np.uint8 if site.bit_width <= 8 else np.uint16 if site.bit_width <= 16 else np.uint32
