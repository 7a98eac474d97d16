"""Sums over the batches of an epoch, kept on the device and read once."""

from typing import Any

import torch
from torch import Tensor

from hwfault.train.ranks import number, of_all, over_ranks


class Totals:
    """Losses and right answers of batches; `add` waits for nothing."""

    def __init__(self, batches: int, device: torch.device) -> None:
        self._losses = torch.zeros(batches, dtype=torch.float64, device=device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._sizes: list[int] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """A batch: its mean loss, logits (n, classes) and labels (n,)."""
        self._losses[len(self._sizes)] = loss.detach()
        self._right += (logits.detach().argmax(1) == labels).sum()
        self._sizes.append(len(labels))

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy over the samples of all ranks; waits for the device and, like every rank, the others.

        (nan, nan) without batches.
        """
        sizes = torch.tensor(self._sizes, dtype=torch.float64, device=self._losses.device)
        loss = (self._losses[: len(self._sizes)] * sizes).sum()
        # all three in one exchange between the ranks, and in one wait for the device
        sums = torch.stack([loss, self._right.double(), sizes.sum()])
        all_loss, all_right, samples = over_ranks(sums).tolist()
        if not samples:
            return float("nan"), float("nan")
        return all_loss / samples, all_right / samples

    def first_not_finite(self) -> tuple[int, float] | None:
        """The step (from 0) of the first loss that is not finite on any rank, and the ranks' losses there added up.

        Waits for the device and the other ranks, which all get the same.
        """
        losses = self._losses[: len(self._sizes)]
        bad = torch.nonzero(~torch.isfinite(losses))
        own = int(bad[0]) if len(bad) else len(self._sizes)
        # every rank takes part in the exchanges, also those whose losses are all finite
        step = int(over_ranks(torch.tensor(float(own), device=losses.device), smallest=True))
        if step == len(self._sizes):
            return None
        together = over_ranks(losses[step].clone())
        return step, float(together)

    def state_dict(self) -> dict[str, Any]:
        """The sums so far of every rank, each of which must ask."""
        return {"losses": of_all(self._losses), "right": of_all(self._right), "sizes": list(self._sizes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken, with what was this rank's."""
        self._losses.copy_(state["losses"][number()])
        self._right.copy_(state["right"][number()])
        self._sizes = list(state["sizes"])
