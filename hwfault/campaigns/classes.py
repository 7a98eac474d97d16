"""The classes of samples."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Labels(NamedTuple):
    """The class of each sample (n,), how many classes there are, and whose answer is `right` in the golden run (n,).

    The last is None where an older version did not keep it.
    """

    of: NDArray[np.int64]
    classes: int
    right: NDArray[np.bool_] | None = None

    @property
    def counts(self) -> dict[int, int]:
        """How many samples each class has, those without any among them."""
        present = dict.fromkeys(range(self.classes), 0)
        for label, count in zip(*np.unique(self.of, return_counts=True), strict=True):
            present[int(label)] = int(count)
        return present
