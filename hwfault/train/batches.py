"""Batches of a split, in an order that is a pure function of (seed, epoch), shared out over ranks."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwfault.errors import HwfaultError
from hwfault.train.data.augment import Augment
from hwfault.train.data.draws import ORDER, permutation
from hwfault.train.data.split import Split


class Batches:
    """Batches (x float32, y int64) of a split on a device; Lightning and plain loops iterate over it once an epoch.

    The order of an epoch is that of the split, or with `shuffle` a permutation drawn from (seed, epoch). Rank r of w
    takes numbers r, r + w, ... of it. When shuffling, the order is first filled up from its own beginning to a
    multiple of w, so that all ranks get batches of the same sizes; otherwise no sample comes twice.

    `augment` is "crop_flip" for images in memory, "resized_crop" for image folders, or a callable of one's own (or
    module:function). For data in memory that takes a batch as stored and its draws, (k, 8) numbers in [0, 1) that
    depend on (seed, epoch, sample) alone, and returns the batch changed. For image folders it takes a PIL image, with
    torch's random numbers seeded by (seed, epoch, sample), and returns a tensor (c, h, w): uint8 to be normalised, or
    float32 taken as it is.

    `workers` processes decode the images of folders. A split that fits is kept on the device. Raises HwfaultError for
    numbers out of range and an augmentation that does not suit the split.
    """

    batch_sampler = None
    """Lightning asks any loader that has a sampler for this one."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        augment: Augment = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if batch_size < 1 or workers < 0 or not 0 <= rank < world:
            raise HwfaultError(
                f"given batches of {batch_size}, rank {rank} of {world} and {workers} workers; "
                "expected batches of 1 or more, a rank from 0 to one less than their number and no negative workers"
            )
        self._device = torch.device(device)
        self._split = split.kept_on(self._device)
        self._read = self._split.reader(augment, seed=seed, workers=workers, device=self._device)
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._rank = rank
        self._world = world
        self._epoch = 0
        self._done = 0
        self._resume_at = 0

    @property
    def sampler(self) -> "Batches":
        """Itself: Lightning calls `set_epoch` of a loader's sampler."""
        return self

    @property
    def samples(self) -> int:
        """How many samples this rank takes in an epoch."""
        count = len(self._split)
        if self._shuffle:
            return math.ceil(count / self._world)
        return len(range(self._rank, count, self._world))

    def __len__(self) -> int:
        """The number of batches of a whole epoch on this rank."""
        return math.ceil(self.samples / self._batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The epoch (from 0) that is iterated over next; another epoch than before begins at its first batch."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._done = 0
            self._resume_at = 0

    def order(self) -> Tensor:
        """The numbers (int64) in the split of this rank's samples in this epoch, in order."""
        count = len(self._split)
        if not self._shuffle:
            return torch.arange(self._rank, count, self._world)
        order = permutation(count, self._seed, self._epoch, ORDER)
        filled_up = np.resize(order, self.samples * self._world)  # which begins anew where it ends
        own = filled_up[self._rank :: self._world]
        return torch.from_numpy(own.copy())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of this epoch, from its first, or once from where a loaded state was."""
        labels = self._split.labels
        batches = torch.split(self.order().to(labels.device), self._batch_size) if self.samples else ()
        self._done = self._resume_at
        self._resume_at = 0  # where a state was is gone on from once
        rest = batches[self._done :]
        for index, x in zip(rest, self._read(self._epoch, rest), strict=True):
            self._done += 1
            yield x, labels[index].to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """The epoch and how many of its batches were handed out, and what else decides which ones are left."""
        return {"epoch": self._epoch, "done": self._done, **self._fixed()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Makes the next iteration, if it is over the state's epoch, begin where the state was.

        Raises HwfaultError for the state of batches that are cut or ordered otherwise.
        """
        fixed = self._fixed()
        changed = [f"{key} {state.get(key)}, now {fixed[key]}" for key in fixed if state.get(key) != fixed[key]]
        epoch = state.get("epoch")
        done = state.get("done")
        if changed or not isinstance(epoch, int) or not isinstance(done, int) or not 0 <= done <= len(self):
            what = "; ".join(changed) or f"epoch {epoch!r} and {done!r} of {len(self)} batches done"
            raise HwfaultError(f"the position in the data does not fit: {what}; resume with what it was saved with")
        self._epoch = epoch
        self._done = done
        self._resume_at = done

    def _fixed(self) -> dict[str, int | bool]:
        return {
            "seed": self._seed,
            "shuffle": self._shuffle,
            "samples": len(self._split),
            "batch_size": self._batch_size,
            "world": self._world,
        }
