"""Where answers first turn, as a store keeps it: for each sample a mask a point, and what was checked.

The masks of a trial are "turned by" each point, from mild to harsh, each of which holds those before it; "checked",
which samples ran at all points; and "turned back", which of those were as golden again behind their first turn.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.labels import Label
from hwfault.campaigns.outcomes import Answers
from hwfault.stream import site_number
from hwfault.stream.reference import stream_words

Bools = NDArray[np.bool_]
Numbers = NDArray[np.int64]

CHECKED_SHARE = 0.02
"""The share of (seed, sample) that run at all points."""
CHECKED, BACK = "checked", "turned back"


class Found(NamedTuple):
    """What a trial came to: `first` (samples,) is the place of the point at which each answer first turns.

    It is the number of points where an answer never does. `checked` are the samples that ran at all points, and `back`
    those of them that turned back.
    """

    first: Numbers
    checked: Bools
    back: Bools

    def masks(self, points: int) -> Bools:
        """As a store keeps it: (points + 2, samples)."""
        turned = self.first <= np.arange(points)[:, np.newaxis]
        return np.concatenate([turned, self.checked[np.newaxis], self.back[np.newaxis]])


def mask_names(points: Sequence[Mapping[str, Label]]) -> tuple[str, ...]:
    """What the masks of a sweep are called, by the labels of its points."""
    told = (", ".join(f"{key}={value}" for key, value in labels.items()) for labels in points)
    return (*(f"turned by {one}" for one in told), CHECKED, BACK)


def have_turned(answers: Answers, counted: str) -> Bools:
    """Which answers (k,) have turned: the outcome that counts is so of them, or they were detected (DUE)."""
    found = answers.masks[counted]
    return found | answers.masks["due"] if "due" in answers.masks else found


def checked_samples(seed: int, samples: int) -> Bools:
    """Which samples (samples,) of a seed run at all points, drawn by the stream (docs/fault-stream.md).

    Word r[i] of (seed, site number of process 0 of "turn#checked", sample 0, block 0, plane 0) is that of sample i,
    which is checked where the word is below floor(2^32 * 0.02).
    """
    words = stream_words(seed, site_number("turn#checked", 0), 0, 0, 0, samples)
    return np.asarray(words < int((1 << 32) * CHECKED_SHARE))
