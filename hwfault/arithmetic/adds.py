"""How one layer is added up on an array of processing elements, while an injection strikes its accumulators."""

import torch
from torch import Tensor

from hwfault.program.processes import ArrayPlan, Site
from hwfault.stream.mechanism import ARRAY, ArrayOperands
from hwfault.torch_ops.arranged import arrange, restore
from hwfault.torch_ops.eager import Faults, by_operator


class Adds:
    """How one layer is added up, ready to be applied: its width, and what its array does."""

    def __init__(self, site: Site, array: ArrayPlan | None) -> None:
        self.array = array or ArrayPlan()
        self.worst_case = site.worst_case
        self._name, self._batch, self._width = site.name, site.batch, site.bit_width
        self._idle = not self.array.events and site.bit_width >= (site.worst_case or site.bit_width)
        with torch.inference_mode(False):
            self._order = torch.tensor(self.array.order, dtype=torch.int64)
            self._events = torch.tensor(self.array.events, dtype=torch.int64).reshape(-1, 8)

    def __call__(
        self, acc: Tensor, x: Tensor, w: Tensor, walk: list[int], groups: int, straight_through: bool
    ) -> Tensor:
        """The accumulators as the array leaves them; x and w are the layer's integers."""
        if self._idle:
            return acc
        x, w = x.detach().float(), w.detach().float()
        if self._batch is None or walk:  # each row of a convolution goes through the array on its own
            return self._added_up(acc, x, w, walk, groups, straight_through)
        sums, inputs = (arrange(t, self._batch, self._name) for t in (acc, x))
        return restore(self._added_up(sums, inputs, w, walk, groups, straight_through), acc, self._batch)

    def _added_up(
        self, acc: Tensor, x: Tensor, w: Tensor, walk: list[int], groups: int, straight_through: bool
    ) -> Tensor:
        operands = ArrayOperands(
            x=x,
            w=w,
            order=self._order,
            events=self._events,
            groups=groups,
            width=self._width,
            saturate=int(self.array.overflow == "saturate"),
            step=self.array.step,
            pass_steps=self.array.pass_steps,
            walk=tuple(walk),
        )
        return by_operator(acc, Faults(ARRAY, True), operands, straight_through)
